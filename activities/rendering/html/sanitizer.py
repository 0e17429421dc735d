"""Removes from HTML everything except the elements, attributes and URLs that mails need.

The page is parsed as browsers do and written again, so no spelling and no malformed markup hides anything. Comments are
removed, also Outlook's conditional ones.
"""

from html import escape

import nh3

from activities.rendering.html.css import safe_declarations
from activities.rendering.html.safe_urls import SCHEMES, is_safe_url
from activities.rendering.text import printable

_TEXT = """
a abbr acronym address b bdi bdo big br cite code del dfn em font i ins kbd mark q rp rt ruby s samp small span strike strong
sub sup time tt u var wbr
"""
_BLOCKS = """
article aside blockquote caption center col colgroup dd details dir div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6
header hgroup hr li main menu nav ol p pre section summary table tbody td tfoot th thead tr ul
"""
_IMAGES = "area img map picture source"
ELEMENTS = frozenset(f"{_TEXT} {_BLOCKS} {_IMAGES}".split())
#: Elements that are removed with their content. Of other elements that are not allowed, the content stays.
_WITHOUT_CONTENT = """
applet audio canvas datalist embed frameset iframe math noembed noframes noscript object optgroup option plaintext script select
style svg template textarea title video xmp
"""
#: Attributes that contain one URL, or several.
_URLS, _URL_LISTS = frozenset({"background", "cite", "href", "longdesc", "src", "usemap"}), frozenset({"srcset"})
_PLAIN = """
abbr align alink alt axis bgcolor border bordercolor cellpadding cellspacing char charoff class clear color cols colspan compact
coords datetime dir face frame headers height hspace hreflang id lang link marginheight marginwidth media name noshade nowrap
open rel reversed role rowspan rules scope shape size sizes span start style summary tabindex target text title translate type
valign value vlink vspace width xml:lang
"""
ATTRIBUTES = frozenset(_PLAIN.split()) | _URLS | _URL_LISTS
_PREFIXES = frozenset({"aria-", "data-"})


def safe_attribute(element: str, name: str, value: str) -> str | None:  # noqa: ARG001 - nh3 passes the element
    """The value of an allowed attribute as it may be sent; None: remove the attribute."""
    value = printable(value)  # before it is checked: what is removed later could turn a harmless URL into another one
    if name == "style":
        return safe_declarations(value) or None
    if name in _URLS:
        return value if is_safe_url(value) else None
    if name in _URL_LISTS:
        return value if all(map(is_safe_url, value.replace(",", " ").split())) else None
    return value


_CLEANER = nh3.Cleaner(
    tags=set(ELEMENTS),
    clean_content_tags=set(_WITHOUT_CONTENT.split()),
    attributes={"*": set(ATTRIBUTES)},
    generic_attribute_prefixes=set(_PREFIXES),
    attribute_filter=safe_attribute,
    url_schemes=set(SCHEMES),
    link_rel=None,
    strip_comments=True,
)


def safe_body(html: str) -> str:
    """The content of the page's body with everything that is not allowed removed. Well-formed, without comments."""
    return _CLEANER.clean(html)


def safe_attributes(element: str, attributes: dict[str, str]) -> str:
    """The allowed ones of an element's attributes, as HTML with a leading space each."""
    kept = {
        name: safe_attribute(element, name, value)
        for name, value in attributes.items()
        if name in ATTRIBUTES or name.startswith(tuple(_PREFIXES))
    }
    return "".join(f' {name}="{escape(value)}"' for name, value in kept.items() if value is not None)
