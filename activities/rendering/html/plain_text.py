"""The plain text of a mail that has only HTML. It takes time in proportion to the page, however it is nested."""

import re
from html import unescape

from activities.rendering.html.safe_urls import SCHEMES

#: A tag or text, as `safe_body` writes them.
_PIECE = re.compile(r'<(/?)([a-z][a-z0-9]*)((?:\s+[^\s=<>"]+(?:="[^"]*")?)*)\s*>|([^<]+)')
_VOID = frozenset({"area", "br", "col", "hr", "img", "source", "wbr"})
_PARAGRAPHS = frozenset({"blockquote", "dl", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "p", "pre"})
_LINES = frozenset(
    {"address", "article", "aside", "caption", "center", "dd", "details", "dir", "div", "dt", "figcaption", "footer", "header"}
    | {"hgroup", "li", "main", "menu", "nav", "ol", "section", "summary", "table", "tr", "ul"}
)  # fmt: skip
_CELLS = frozenset({"td", "th"})

_LINK = re.compile(rf"(?:{'|'.join(sorted(SCHEMES))}):[^\s<>\x00-\x1f\x7f]+", re.IGNORECASE)
_HREF = re.compile(r'\shref="([^"]*)"')
_HIDDEN = re.compile(r'\sstyle="[^"]*display\s*:\s*none', re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\n\f\v\x85\xa0\u2028\u2029]+")
#: Ends of lines and of paragraphs until the text is complete: private characters, which the page's own text loses.
_LINE, _PARAGRAPH = "\ue000", "\ue001"
_PRIVATE = re.compile(f"[{_LINE}{_PARAGRAPH}]")
_BREAK = re.compile(rf" ?(?:[\n{_LINE}{_PARAGRAPH}] ?)+")


def html_to_text(html: str) -> str:
    """HTML that `safe_body` returned as plain text: blocks and table rows are lines, links are `text (URL)`."""
    text: list[str] = []
    #: For each list around: the number of the last item, or None if the items have bullets.
    lists: list[int | None] = []
    link, link_at = "", 0
    hidden = preformatted = 0
    for end, name, attributes, words in _PIECE.findall(html):
        if words:
            if not hidden:
                text.append(_words(words, keep_lines=preformatted > 0))
            continue
        if hidden or (attributes and not end and _HIDDEN.search(attributes)):
            hidden += 0 if name in _VOID else -1 if end else 1
            continue
        if name == "br":
            text.append("\n")
        elif name in _PARAGRAPHS:
            text.append(_PARAGRAPH)
            preformatted += 0 if name != "pre" else -1 if end else 1
        elif name in _LINES:
            text.append(_LINE)
            if name in {"ul", "ol"}:
                if not end:
                    lists.append(0 if name == "ol" else None)
                elif lists:
                    lists.pop()
            elif name == "li" and not end:
                text.append(_bullet(lists))
        elif name in _CELLS:
            text.append(" ")
        elif name == "a" and not end:
            found = _HREF.search(attributes)
            link, link_at = unescape(found[1]).strip() if found else "", len(text)
        elif name == "a":
            if _LINK.fullmatch(link) and "".join(text[link_at:]).strip() != link:
                text.append(f" ({link})")
            link = ""
    return _BREAK.sub(_newlines, re.sub(" +", " ", "".join(text))).strip()


def _words(html: str, *, keep_lines: bool) -> str:
    text = _PRIVATE.sub("", unescape(html))
    return "\n".join(_SPACES.sub(" ", line) for line in text.split("\n")) if keep_lines else _SPACES.sub(" ", text)


def _bullet(lists: list[int | None]) -> str:
    number = lists[-1] if lists else None
    if number is None:
        return "* "
    lists[-1] = number + 1
    return f"{number + 1}. "


def _newlines(found: re.Match[str]) -> str:
    run = found[0]
    least = 2 if _PARAGRAPH in run else 1
    return "\n" * min(max(least, run.count("\n")), 2)
