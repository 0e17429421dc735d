"""Final HTML: what a mail sends of rendered HTML. It runs after rendering, on the whole page.

First the rules of <style> are inlined, since many mail readers drop <style>. Then the page is cleaned, so that nothing that
inlining wrote escapes the check. Templates of tenants are finished in their child process, and so are large pages: see
`is_small`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape, unescape

import css_inline
from jinja2 import TemplateError

from activities.rendering.html.css import safe_sheet
from activities.rendering.html.plain_text import html_to_text
from activities.rendering.html.sanitizer import safe_attributes, safe_body
from activities.rendering.text import printable, valid_unicode

#: Largest page after inlining, in characters: four times the largest output of a template.
MAX_CHARACTERS = 1024 * 1024
#: A page up to these limits takes about a millisecond, and at most about 100 ms if it is malformed to make parsers slow:
#: characters, tags, and tags times rules of CSS.
_SMALL, _FEW_TAGS, _FEW_STYLED = 32 * 1024, 300, 6_000

#: Rules that cannot be inlined (@media, :hover) stay in a <style>. Nothing is loaded from other places.
_INLINER = css_inline.CSSInliner(keep_style_tags=True, remove_inlined_selectors=True, load_remote_stylesheets=False)
#: Text without one of these is part of a body, without head or styles.
_PAGE = re.compile(r"<(?:!doctype|html|head|body|style|title|meta)\b", re.IGNORECASE)
_DOCTYPE = re.compile(
    r'\s*(<!doctype html PUBLIC "-//W3C//DTD X?HTML [\w. ]{1,40}//EN"(?:\s+"http://www\.w3\.org/TR/[\w./-]{1,80}")?\s*>)',
    re.IGNORECASE,
)
#: Tags as the inliner writes them.
_TAGS = {name: re.compile(rf'<{name}((?:\s+[^\s=<>"]+(?:="[^"]*")?)*)\s*>') for name in ("html", "body", "meta")}
_ATTRIBUTE = re.compile(r'([^\s=<>"]+)(?:="([^"]*)")?')
#: The <meta> elements that stay, by name. The charset is always UTF-8.
_METAS = frozenset(
    {
        "color-scheme",
        "format-detection",
        "supported-color-schemes",
        "viewport",
        "x-apple-disable-message-reformatting",
    }
)


class PageTooLarge(TemplateError):
    """The page is too large once it is parsed and its styles are inlined."""

    def __init__(self) -> None:
        super().__init__(f"too large: the HTML as sent has more than {MAX_CHARACTERS:,} characters")


@dataclass(frozen=True, slots=True)
class FinalHtml:
    """HTML as it is sent, and the same as plain text."""

    html: str
    text: str


def is_small(html: str) -> bool:
    """Whether finishing the page is so cheap that it needs no limit of time and memory, whatever the page contains."""
    tags = html.count("<")
    rules = html.count("{") + html.count(",") if "{" in html else 0
    return len(html) <= _SMALL and tags <= _FEW_TAGS and tags * rules <= _FEW_STYLED


def finish(html: str, *, with_text: bool = True) -> FinalHtml:
    """Finish rendered HTML. `with_text`: derive the plain text too. Raises PageTooLarge."""
    html = printable(valid_unicode(html))
    head, body = _page(html) if _PAGE.search(html) else ("", safe_body(html))
    end = "</body></html>" if head else ""
    if len(head) + len(body) > MAX_CHARACTERS:
        raise PageTooLarge
    return FinalHtml(printable(f"{head}{body}{end}"), html_to_text(body) if with_text else "")


def append_to_body(html: str, addition: str) -> str:
    """A finished page with `addition`, which is safe HTML, at the end of its body."""
    body, end, rest = html.rpartition("</body>")
    return f"{body}{addition}{end}{rest}" if end else f"{html}{addition}"


def _page(html: str) -> tuple[str, str]:
    """Everything up to the start tag of the body, and the content of the body."""
    try:
        inlined = _INLINER.inline(html)
    except css_inline.InlineError:
        inlined = html  # a mail that looks plain in some readers is better than no mail
    if len(inlined) > 2 * MAX_CHARACTERS:
        raise PageTooLarge
    doctype = _DOCTYPE.match(html)
    start = _TAGS["body"].search(inlined)
    before = inlined[: start.start()] if start else inlined
    root = _TAGS["html"].search(before)
    head = [
        doctype[1] if doctype else "<!doctype html>",
        f"<html{_attributes('html', root)}>",
        '<head><meta charset="utf-8">',
        *_metas(before),
        *(f"<title>{escape(unescape(title), quote=False)}</title>" for title in list(_contents(before, "title"))[:1]),
    ]
    if sheet := safe_sheet("\n".join(_contents(inlined, "style"))):
        head.append(f"<style>\n{sheet}\n</style>")
    head.append(f"</head><body{_attributes('body', start)}>")
    return "\n".join(head), safe_body(inlined).strip()


def _metas(head: str) -> Iterator[str]:
    for found in _TAGS["meta"].finditer(head):
        attributes = _parsed(found[1])
        name = attributes.get("name", "").lower()
        if name in _METAS:
            yield f'<meta name="{name}" content="{escape(attributes.get("content", ""))}">'


def _contents(html: str, element: str) -> Iterator[str]:
    """The content of each element of this name outside comments. It takes time in proportion to the page."""
    starts = re.compile(rf"<!--|<{element}\b[^<>]*>")
    position = 0
    while start := starts.search(html, position):
        comment = start[0] == "<!--"
        end = html.find("-->" if comment else f"</{element}", start.end())
        if end < 0:
            return
        if not comment:
            yield html[start.end() : end]
        position = end


def _attributes(element: str, tag: re.Match[str] | None) -> str:
    return safe_attributes(element, _parsed(tag[1])) if tag else ""


def _parsed(attributes: str) -> dict[str, str]:
    return {name.lower(): unescape(value) for name, value in _ATTRIBUTE.findall(attributes)}
