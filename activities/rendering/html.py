"""HTML as mail readers take it: styles in the elements, since many of them drop <style>; and its words as text."""

import re
from typing import Any

import css_inline
from inscriptis import get_text  # type: ignore[import-untyped]
from inscriptis.css_profiles import CSS_PROFILES  # type: ignore[import-untyped]
from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]
from inscriptis.model.html_document_state import HtmlDocumentState  # type: ignore[import-untyped]
from inscriptis.model.tag import CustomHtmlTagHandlerMapping  # type: ignore[import-untyped]

#: Rules that have no place in an element (@media) stay in a <style>. Nothing is ever loaded, from nowhere.
_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
_STYLED = re.compile(r"<style\b", re.IGNORECASE)
_LINK = re.compile(r"(?:https?|mailto|tel):[^\s<>\x00-\x1f\x7f]+", re.IGNORECASE)
#: A link whose words are its address, and the address once more.
_TWICE = re.compile(r"(https?://\S+) \(\1\)")
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)


def inlined(html: str) -> str:
    """The page with the rules of its <style> elements in the `style` of what they match; without <style>, as it is."""
    if not _STYLED.search(html):
        return html
    try:
        return _INLINER.inline(html)
    except css_inline.InlineError:
        return html  # a look that some readers drop is better than no mail


def text_of(html: str) -> str:
    """The words of a page for readers without HTML: blocks and table rows are lines, links are `words (URL)`."""
    text = _TWICE.sub(r"\1", get_text(html, _CONFIG))
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def with_more(html: str, more: str) -> str:
    """The page with `more`, which is HTML, at the end of its body."""
    ends = list(_BODY_END.finditer(html))
    at = ends[-1].start() if ends else len(html)
    return html[:at] + more + html[at:]


def _open_link(state: HtmlDocumentState, attributes: Any) -> None:
    target = str(attributes.get("href", "")).strip()
    state.link_target = target if _LINK.fullmatch(target) else ""


def _close_link(state: HtmlDocumentState) -> None:
    if state.link_target:
        state.tags[-1].write(f" ({state.link_target})")
        state.link_target = ""


_CONFIG = ParserConfig(
    css=CSS_PROFILES["strict"],
    custom_html_tag_handler_mapping=CustomHtmlTagHandlerMapping(
        start_tag_mapping={"a": _open_link}, end_tag_mapping={"a": _close_link}
    ),
)
