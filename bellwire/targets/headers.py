"""Headers that a subscription adds to its webhooks, such as an API key of the endpoint (RFC 9110 §5)."""

import re
from collections.abc import Mapping

MAX_HEADERS = 20
#: Maximum characters of a value, and of all names and values together: many servers accept no more than 8 KiB of headers.
MAX_HEADER_LENGTH = 2048
MAX_TOTAL_LENGTH = 4096

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
#: Headers that HTTP or Bellwire itself sets.
_OWNED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_OWNED_PREFIXES = ("webhook-", "ce-", "proxy-")


def checked(headers: Mapping[str, str]) -> None:
    """Raise ValueError if a header is not valid or not allowed. The message contains no value."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"are {len(headers)}; the limit is {MAX_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:100]!r} is not a valid header name; use letters, digits and dashes, such as x-api-key"
            )
        lower = name.lower()
        if lower in _OWNED or lower.startswith(_OWNED_PREFIXES):
            raise ValueError(f"{name} is set by Bellwire or by HTTP; choose another name")
        if lower in seen:
            raise ValueError(f"{name} is given twice; leave one of them out")
        seen.add(lower)
        if not _VALUE.fullmatch(value) or len(value) > MAX_HEADER_LENGTH:
            raise ValueError(
                f"{name}: the value is not valid; use 1 to {MAX_HEADER_LENGTH:,} visible ASCII characters and spaces between them"
            )
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_TOTAL_LENGTH:
        raise ValueError(f"have more than {MAX_TOTAL_LENGTH:,} characters in total; shorten them")
