"""HTML of mails: inlined styles, since many mail readers drop <style>, and conversion to plain text."""

import re
from typing import Any

import css_inline
from inscriptis import get_text  # type: ignore[import-untyped]
from inscriptis.css_profiles import CSS_PROFILES  # type: ignore[import-untyped]
from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]
from inscriptis.model.html_document_state import HtmlDocumentState  # type: ignore[import-untyped]
from inscriptis.model.tag import CustomHtmlTagHandlerMapping  # type: ignore[import-untyped]

#: Rules that cannot be inlined (@media) stay in a <style>. Nothing is loaded from other places.
_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
_STYLED = re.compile(r"<style\b", re.IGNORECASE)
_LINK = re.compile(r"(?:https?|mailto|tel):[^\s<>\x00-\x1f\x7f]+", re.IGNORECASE)
#: A link whose text is its URL, followed by the URL again.
_REPEATED_URL = re.compile(r"(https?://\S+) \(\1\)")
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)


def inline_styles(html: str) -> str:
    """The page with the rules of its <style> elements in `style` attributes; unchanged without <style>."""
    if not _STYLED.search(html):
        return html
    try:
        return _INLINER.inline(html)
    except css_inline.InlineError:
        return html  # a mail that looks plain in some readers is better than no mail


def html_to_text(html: str) -> str:
    """The page as plain text: blocks and table rows are lines, links are `text (URL)`."""
    text = _REPEATED_URL.sub(r"\1", get_text(html, _CONFIG))
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def append_to_body(html: str, addition: str) -> str:
    """The page with `addition`, which is HTML, at the end of its body."""
    ends = list(_BODY_END.finditer(html))
    position = ends[-1].start() if ends else len(html)
    return html[:position] + addition + html[position:]


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
