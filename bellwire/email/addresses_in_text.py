"""Finds addresses in the fields of mails, whatever is around them.

The fields of bounces are written by many programs: "rfc822; ann@example.com", "ann@example.com <ann@example.com>", lists,
comments, encoded words. A parser of the standard's grammar refuses some of these, so every address in the text counts.
"""

import re
from collections.abc import Iterable
from email.errors import HeaderParseError
from email.header import decode_header, make_header

#: Addresses that are found at most.
_MAX_ADDRESSES = 200
_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]]{1,250}@[^\s<>,;:\"()\[\]@]{1,253}")
#: A local part in quotes that needs none.
_QUOTED_LOCAL = re.compile(r'"([^\s"@<>]{1,250})"@')
#: Forms of DSN for bytes that are not ASCII (RFC 6533 §3), and for + and = in parameters of SMTP (RFC 3461 §4).
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


def addresses_in(values: Iterable[str]) -> tuple[str, ...]:
    """The distinct addresses in the values of fields. One that may be encoded is found in both forms."""
    found: dict[str, None] = {}
    for value in values:
        if "@" not in value and "=?" not in value:
            continue
        text = _QUOTED_LOCAL.sub(r"\1@", _UNITEXT.sub(_character, value))
        for each in (text, _decoded_words(text)) if "=?" in text else (text,):
            for address in _ADDRESS.findall(each):
                plain = address.strip("'").rstrip(".")
                found.setdefault(plain)
                if "+" in plain:
                    found.setdefault(_XTEXT.sub(lambda match: chr(int(match[1], 16)), plain))
        if len(found) >= _MAX_ADDRESSES:
            break
    return tuple(found)[:_MAX_ADDRESSES]


def _decoded_words(text: str) -> str:
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):  # UnicodeError among them
        return ""


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]
