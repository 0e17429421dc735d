"""Host names: one canonical form for mail domains, URLs, relays and settings, and one judgement of what can never be reached.

The canonical form is ASCII in lower case. A name in another script becomes A-labels (xn--…) by IDNA 2008, after the mapping of
UTS 46, non-transitional. IDNA 2003, which `str.encode("idna")` and so Python's own sockets use, maps straße.de to strasse.de,
which belongs to somebody else.
"""

import re
from ipaddress import IPv4Address, IPv6Address

#: RFC 1035 §2.3.4, in ASCII.
MAX_HOST, MAX_LABEL = 253, 63
#: Longest name that is mapped: mapping takes time, and no longer name fits into MAX_HOST.
_MAX_GIVEN = 4 * MAX_HOST

#: Letters, digits and hyphens; an underscore is no host name by RFC 1123, and resolves nevertheless.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
#: Zero-width joiner and non-joiner: invisible, and letters of host names in some scripts. IDNA 2008 checks where they may stand.
JOINERS = "\u200c\u200d"
_A_LABEL = re.compile(r"(?:^|\.)xn--")
#: The last label of what resolvers take for an address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def canonical_host(host: str) -> str:
    """The host as it is looked up, sent and compared, without a dot at its end; an IPv6 address without its brackets.

    Raises ValueError for a host that can never be reached, whatever name servers say.
    """
    if ":" in host:
        return _ipv6(host)
    name = _in_ascii(host).removesuffix(".")
    labels = name.split(".")
    if not all(labels) or max(map(len, labels)) > MAX_LABEL or len(name) > MAX_HOST:
        raise ValueError(
            f"has a host name with an empty label, one of more than {MAX_LABEL} characters, or more than {MAX_HOST} in all"
        )
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            "has a host name with a character that no host name can have, or a hyphen at the edge of a label"
        )
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(name)
        except ValueError:
            raise ValueError("has a host that ends in a number and is not an IPv4 address") from None
    return name


def is_visible(text: str) -> bool:
    """Whether each character can be printed, or is a joiner."""
    return text.isprintable() or text.translate(dict.fromkeys(map(ord, JOINERS))).isprintable()


def _ipv6(host: str) -> str:
    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError("has a host that is not an IPv6 address") from None
    return host.lower()


def _in_ascii(host: str) -> str:
    lower = host.lower()
    if host.isascii() and not _A_LABEL.search(lower):
        return lower
    if len(host) > _MAX_GIVEN:
        raise ValueError(f"has a host name of more than {MAX_HOST} characters")
    try:
        import idna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "host names in other scripts than ASCII need the library idna: pip install idna", name="idna"
        ) from error
    try:
        mapped: str = idna.uts46_remap(host, std3_rules=False, transitional=False)
        return ".".join(label if _is_plain(label) else _a_label(label) for label in mapped.split("."))
    except UnicodeError:
        raise ValueError("has a host name that is not valid in IDNA 2008") from None


def _is_plain(label: str) -> bool:
    return label.isascii() and not label.startswith("xn--")


def _a_label(label: str) -> str:
    """The A-label of a label. An A-label that is in use without being valid in IDNA 2008, such as an emoji's, stays as it is."""
    import idna

    try:
        return idna.alabel(label).decode("ascii")
    except idna.InvalidCodepoint:
        if not label.isascii():
            raise
        # The decoded label must be its own canonical form, or two names would stand for one.
        text = label.removeprefix("xn--").encode("ascii").decode("punycode")
        if text.isascii() or idna.uts46_remap(text, std3_rules=False, transitional=False) != text:
            raise
        return label
