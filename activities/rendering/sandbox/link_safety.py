"""Links in rendered HTML: only http, https, mailto, tel and relative ones leave the house.

Escaping does not stop `href="javascript:…"`, which is a matter of what a value means and not of how it is spelled. An
attribute with another scheme is removed and the rest of the mail stays: the link was mostly made of an event's data, and
a reader is better served by a mail with one dead link than by none.
"""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from lxml import etree  # type: ignore[import-untyped]

#: Schemes that a link may have, and an image.
ALLOWED = frozenset({"http", "https", "mailto", "tel"})

#: Attributes that hold one address.
_ADDRESSES = frozenset(
    {"href", "src", "action", "formaction", "background", "poster", "data", "cite", "longdesc", "manifest", "lowsrc"}
    | {"dynsrc", "profile", "codebase", "classid", "archive", "icon", "usemap", "link", "vlink", "alink"}
)
#: Attributes that hold several, or something else in which addresses are; each with where they begin.
_PARTS = {
    "srcset": re.compile(r"(?:^|,)\s*([^\s,]+:[^\s,]*)"),
    "imagesrcset": re.compile(r"(?:^|,)\s*([^\s,]+:[^\s,]*)"),
    "ping": re.compile(r"(\S+)"),
    "attributionsrc": re.compile(r"(\S+)"),
    "content": re.compile(r"url\s*=\s*[\"']?([^\"']*)", re.IGNORECASE),
    "style": re.compile(r"url\(\s*[\"']?([^\"')]*)", re.IGNORECASE),
    # What SVG animates may be the href of what it stands in.
    **dict.fromkeys(
        ("from", "to", "by", "values"), re.compile(r"\s*((?:javascript|vbscript|data)\s*:)", re.IGNORECASE)
    ),
}
#: Whatever a reader could take for one of these attributes, in or outside a tag: more than there are, and never fewer.
_LIKE_ATTRIBUTE = re.compile(
    r"(href|src|action|background|poster|data|cite|longdesc|manifest|profile|codebase|classid|archive|icon|usemap|link"
    r"|srcset|ping|content|style|from|to|by|values|srcdoc)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>]*)",
    re.IGNORECASE,
)
#: Characters that readers skip while they look for the scheme.
_SKIPPED = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028\u2029\u2060\ufeff\ufffd]+")
_SCHEME = re.compile(r"([^/?#:]*):")
_CSS_ESCAPE = re.compile(r"\\|/\*|expression\s*\(", re.IGNORECASE)
#: Elements whose content some readers take for text and others for elements.
_RAW = ("noscript", "noembed", "noframes", "xmp", "iframe", "plaintext", "template", "textarea", "title", "style")
#: Times that a page is read and mended, until nothing is left to mend.
_PASSES = 5


def safe_links(html: str) -> str:
    """The page without the attributes that lead elsewhere; to the letter as it is if nothing in it looks like one.

    A page in which something does is written anew from how a parser reads it, or what this parser passes over, another
    might not. Raises TemplateRuntimeError for a page that reads otherwise each time it is read.
    """
    if not _suspicious(html):
        return html
    for _ in range(_PASSES):
        tree = etree.ElementTree(_read(html))
        _mend(tree)
        written = etree.tostring(tree, encoding="unicode", method="html")
        if written == html:
            return html
        html = written
    raise TemplateRuntimeError("the HTML holds links that cannot be made safe; close its tags and quotes")


def _suspicious(html: str) -> bool:
    """Whether anything in the text could be an attribute that must go: a cheap look that nearly every mail passes."""
    return any(_bad(name.lower(), unescape(value.strip("\"'"))) for name, value in _LIKE_ATTRIBUTE.findall(html))


def _read(html: str) -> Any:
    root = etree.fromstring(html.encode(), etree.HTMLParser(encoding="utf-8", default_doctype=False))
    if root is None:
        raise TemplateRuntimeError("the HTML has no content but a comment")
    return root


def _mend(tree: Any) -> None:
    """Remove what must go."""
    for element in list(tree.iter()):
        if not isinstance(element.tag, str):
            continue
        for name, value in element.attrib.items():
            if _bad(name.rpartition(":")[2].lower(), value):
                del element.attrib[name]
        if element.tag.lower() in _RAW and element.text and _suspicious(element.text):
            element.text = ""
    for comment in tree.xpath("//comment()"):  # which Outlook reads, if it says [if mso]
        if comment.text and _suspicious(comment.text):
            comment.text = ""


def _bad(name: str, value: str) -> bool:
    if name == "srcdoc":
        return _suspicious(value)
    if name == "style" and _CSS_ESCAPE.search(value):
        return True
    return any(_leads_elsewhere(address) for address in _addresses(name, value))


def _addresses(name: str, value: str) -> Iterator[str]:
    if name in _ADDRESSES:
        yield value
    elif name in _PARTS:
        yield from _PARTS[name].findall(value)


def _leads_elsewhere(address: str) -> bool:
    scheme = _SCHEME.match(_SKIPPED.sub("", address))
    return scheme is not None and scheme[1].lower() not in ALLOWED
