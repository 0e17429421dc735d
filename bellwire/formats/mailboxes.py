"""Mailboxes: the one form in which an email address is checked, looked up, suppressed, erased and sent.

The domain is its canonical host name, so U-label and A-label are one domain. The local part is normalized to NFC, with
full-width and half-width letters made plain (RFC 8265 §3.1), and keeps its case: it is sent as it was given, since RFC 5321
§2.4 leaves its meaning to its server. Mailboxes are compared without case, since no large provider distinguishes it.
"""

import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import NamedTuple

from bellwire.formats.hosts import MAX_LABEL, canonical_host, is_visible

#: RFC 5321 §4.5.3.1, in octets of UTF-8.
MAX_LOCAL, MAX_MAILBOX = 64, 254

_SPECIAL = re.compile(r"[\s<>()\[\],;:\\\"@]")
#: Characters that are not seen: default-ignorable code points that `str.isprintable` accepts.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_INVALID = "is not an email address; give the bare address, such as ann@example.com"


def canonical_mailbox(address: str) -> str:
    """The address as it is stored and sent. Raises ValueError for one that no mail can be sent to."""
    text = address if address.isascii() else unicodedata.normalize("NFC", "".join(map(_narrowed, address)))
    local, at, domain = text.rpartition("@")
    if not at or not local or _SPECIAL.search(local) or not (local.isprintable() and is_visible(domain)):
        raise ValueError(_INVALID)
    if _INVISIBLE.search(text):
        raise ValueError(_INVALID)
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError(_INVALID)
    if unicodedata.normalize("NFKC", local) != local:
        raise ValueError(
            "is not an email address: a letter before the @ stands for another one, such as ² for 2; write the plain letter"
        )
    try:
        host = canonical_host(domain)
    except ValueError as error:
        raise ValueError(f"is not an email address: it {error}") from None
    if host.rpartition(".")[2].isdigit():
        raise ValueError("is not an email address: its domain is a number; give a domain name")
    if unicodedata.normalize("NFKC", domain).endswith((".", "\u3002")) or "_" in host or ":" in host:
        raise ValueError(_INVALID)
    if len(local.encode()) > MAX_LOCAL or len(local.encode()) + 1 + len(host) > MAX_MAILBOX:
        raise ValueError(
            f"is not an email address: it is too long, at most {MAX_LOCAL} bytes before the @, and {MAX_MAILBOX} in all"
        )
    return f"{local}@{host}"


def mailbox_key(address: str) -> str:
    """What equals for all spellings of one mailbox, and differs for two mailboxes. Takes any text."""
    text = address.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    local, at, domain = text.rpartition("@")
    return f"{folded(_seen(local))}{at}{_host_key(domain)}"


def _host_key(domain: str) -> str:
    """The canonical host. For what is none: without characters that are not seen, such as a joiner at a wrong place, and with the
    A-labels that are accepted for it, such as those of emoji.
    """
    seen = _seen(domain)
    for each in (domain, seen, ".".join(map(_punycode, folded(seen).split(".")))):
        try:
            return canonical_host(each)
        except ValueError:
            continue
    return folded(seen)


def _punycode(label: str) -> str:
    if label.isascii() or len(label) > MAX_LABEL:
        return label
    return f"xn--{label.encode('punycode', 'replace').decode()}"


def _seen(text: str) -> str:
    """The text without characters that are not seen."""
    if text.isascii():
        return text.strip()
    return "".join(each for each in _INVISIBLE.sub("", text) if unicodedata.category(each) != "Cf").strip()


def folded(text: str) -> str:
    """The text without differences of case and of compatibility forms. A letter stays one letter: ß is not ss."""
    if text.isascii():
        return text.lower()
    for _ in range(2):  # once more for what the first pass composes
        folds = ((each, each.casefold()) for each in unicodedata.normalize("NFKC", text))
        text = "".join(fold if len(fold) == 1 else each.lower() for each, fold in folds)
    return unicodedata.normalize("NFKC", text)


def _narrowed(character: str) -> str:
    """The plain form of a full-width or half-width character; any other as it is."""
    wide = unicodedata.decomposition(character).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", character) if wide else character


class Sender(NamedTuple):
    """A sender's display name, which may be empty, and address."""

    name: str
    address: str


def parse_sender(text: str) -> Sender:
    """A sender, written `address`, `Name <address>`, `"Name" <address>` or `address (Name)`.

    The address is what stands in the last angle brackets, whatever the name contains. Raises ValueError for a group, a list,
    or an address that no mail can be sent from.
    """
    text = text.strip()
    name, address = "", text
    if text.endswith(">"):
        name, _, address = text[:-1].rpartition("<")
    elif found := re.fullmatch(r"([^\s()<>\"]+)\s*\(([^()]*)\)", text):
        address, name = found[1], found[2]
    name = name.strip()
    if found := re.fullmatch(r'"((?:[^"\\]|\\.)*)"', name):
        # RFC 2047 §5: a quoted string has no encoded words.
        return Sender(re.sub(r"\\(.)", r"\1", found[1]).strip(), canonical_mailbox(address.strip()))
    if re.search(r'[<>"]', name) or ("@" in name and re.search(r"[,;]", name)):
        raise ValueError("has more than one address, or a name that needs quotes; write Name <address>")
    return Sender(_decoded(name).strip(), canonical_mailbox(address.strip()))


def _decoded(name: str) -> str:
    """The name with its encoded words (RFC 2047) decoded."""
    if "=?" not in name:
        return name
    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, LookupError, ValueError):
        return name
