"""Removes unsafe links from rendered HTML: only http, https, mailto, tel and relative URLs are allowed.

Escaping does not stop `href="javascript:…"`. An attribute with another scheme is removed, and the rest of the mail stays:
most such links come from the data of an event, and a mail with one dead link is better than no mail.
"""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from lxml import etree  # type: ignore[import-untyped]

#: Schemes that links and images may have.
ALLOWED = frozenset({"http", "https", "mailto", "tel"})

#: Attributes that hold one URL.
_URL_ATTRIBUTES = frozenset(
    {"href", "src", "action", "formaction", "background", "poster", "data", "cite", "longdesc", "manifest", "lowsrc"}
    | {"dynsrc", "profile", "codebase", "classid", "archive", "icon", "usemap", "link", "vlink", "alink"}
)
#: Attributes that hold several URLs, or URLs within other text, each with a pattern that finds them.
_URL_PATTERNS = {
    "srcset": re.compile(r"(?:^|,)\s*([^\s,]+:[^\s,]*)"),
    "imagesrcset": re.compile(r"(?:^|,)\s*([^\s,]+:[^\s,]*)"),
    "ping": re.compile(r"(\S+)"),
    "attributionsrc": re.compile(r"(\S+)"),
    "content": re.compile(r"url\s*=\s*[\"']?([^\"']*)", re.IGNORECASE),
    "style": re.compile(r"url\(\s*[\"']?([^\"')]*)", re.IGNORECASE),
    # An SVG animation may set the href of the element around it.
    **dict.fromkeys(
        ("from", "to", "by", "values"), re.compile(r"\s*((?:javascript|vbscript|data)\s*:)", re.IGNORECASE)
    ),
}
#: Text that any parser could read as one of these attributes, inside or outside a tag. It finds too many, never too few.
_LIKE_ATTRIBUTE = re.compile(
    r"(href|src|action|background|poster|data|cite|longdesc|manifest|profile|codebase|classid|archive|icon|usemap|link"
    r"|srcset|ping|content|style|from|to|by|values|srcdoc)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>]*)",
    re.IGNORECASE,
)
#: Characters that mail readers ignore in front of and within a scheme.
_SKIPPED = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028\u2029\u2060\ufeff\ufffd]+")
_SCHEME = re.compile(r"([^/?#:]*):")
_CSS_ESCAPE = re.compile(r"\\|/\*|expression\s*\(", re.IGNORECASE)
#: Elements whose content some readers parse as text and others as elements.
_RAW = ("noscript", "noembed", "noframes", "xmp", "iframe", "plaintext", "template", "textarea", "title", "style")
#: Times that a page is parsed and cleaned until it stays the same.
_MAX_PASSES = 5


def safe_links(html: str) -> str:
    """The page without unsafe attributes; unchanged if nothing in it looks like one.

    Otherwise the page is parsed and serialized again, since other parsers may read malformed HTML differently. Raises
    TemplateRuntimeError for a page that changes each time.
    """
    if not _is_suspicious(html):
        return html
    for _ in range(_MAX_PASSES):
        tree = etree.ElementTree(_parse(html))
        _remove_unsafe(tree)
        written = etree.tostring(tree, encoding="unicode", method="html")
        if written == html:
            return html
        html = written
    raise TemplateRuntimeError("the HTML holds links that cannot be made safe; close its tags and quotes")


def _is_suspicious(html: str) -> bool:
    """Whether any text could be an unsafe attribute. A cheap check that finds nothing in almost all mails."""
    return any(_is_unsafe(name.lower(), unescape(value.strip("\"'"))) for name, value in _LIKE_ATTRIBUTE.findall(html))


def _parse(html: str) -> Any:
    root = etree.fromstring(html.encode(), etree.HTMLParser(encoding="utf-8", default_doctype=False))
    if root is None:
        raise TemplateRuntimeError("the HTML has no content except a comment")
    return root


def _remove_unsafe(tree: Any) -> None:
    for element in list(tree.iter()):
        if not isinstance(element.tag, str):
            continue
        for name, value in element.attrib.items():
            if _is_unsafe(name.rpartition(":")[2].lower(), value):
                del element.attrib[name]
        if element.tag.lower() in _RAW and element.text and _is_suspicious(element.text):
            element.text = ""
    for comment in tree.xpath("//comment()"):  # Outlook parses comments with [if mso]
        if comment.text and _is_suspicious(comment.text):
            comment.text = ""


def _is_unsafe(name: str, value: str) -> bool:
    if name == "srcdoc":
        return _is_suspicious(value)
    if name == "style" and _CSS_ESCAPE.search(value):
        return True
    return any(_has_unsafe_scheme(url) for url in _urls(name, value))


def _urls(name: str, value: str) -> Iterator[str]:
    if name in _URL_ATTRIBUTES:
        yield value
    elif name in _URL_PATTERNS:
        yield from _URL_PATTERNS[name].findall(value)


def _has_unsafe_scheme(url: str) -> bool:
    scheme = _SCHEME.match(_SKIPPED.sub("", url))
    return scheme is not None and scheme[1].lower() not in ALLOWED
