"""Media types (RFC 9110 §8.3.1): `type/subtype`, and perhaps parameters behind it."""

import re

#: What a content is called that has no valid media type.
UNKNOWN = "application/octet-stream"

#: `restricted-name` of RFC 6838 §4.2 in lower case, but at most 64 characters, as registration asks for.
_NAME = r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}"
_TYPE = re.compile(rf"{_NAME}/{_NAME}")
#: Only behind a parameter's semicolon, so that `x="charset=a"` is none.
_CHARSET = re.compile(
    r""";[ \t]*charset=(?:"(?P<quoted>[^"\\]+)"|(?P<token>[^\s;",()<>@:\\/\[\]?={}]+))[ \t]*(?=;|$)""", re.IGNORECASE
)
_PARAMETERS = re.compile(r"[\t\x20-\x7e]*")


def essence(text: str | None) -> str | None:
    """The media type in lower case and without parameters; None if it is not a valid one."""
    found = (text or "").partition(";")[0].strip(" \t").lower()
    return found if _TYPE.fullmatch(found) else None


def charset(text: str | None) -> str | None:
    """The charset parameter in lower case; None without one."""
    found = _CHARSET.search(text or "")
    return (found["quoted"] or found["token"]).lower() if found else None


def is_header_value(text: str) -> bool:
    """Whether the text, parameters included, can be sent as a Content-Type header."""
    return essence(text) is not None and bool(_PARAMETERS.fullmatch(text))
