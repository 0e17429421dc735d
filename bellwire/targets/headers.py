"""Headers that a subscription adds to its webhooks, such as an API key of the receiver's (RFC 9110 §5)."""

import re
from collections.abc import Mapping

MAX_HEADERS = 20
#: Characters of a value, and of all names and values together: many servers take no more than 8 KiB of headers.
MAX_HEADER_LENGTH = 2048
MAX_TOGETHER = 4096
#: What is shown in place of a value.
HIDDEN = "**********"

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
#: Headers that say how the request travels, or are Bellwire's own.
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
    """Raises ValueError for what cannot be sent or is not the subscription's to say; the text repeats no value."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"are {len(headers)}; give at most {MAX_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:100]!r} is not a header's name; use letters, digits and dashes, such as x-api-key"
            )
        lower = name.lower()
        if lower in _OWNED or lower.startswith(_OWNED_PREFIXES):
            raise ValueError(f"{name} is set by Bellwire or by HTTP itself; choose another name")
        if lower in seen:
            raise ValueError(f"{name} stands twice; leave one of them out")
        seen.add(lower)
        if not _VALUE.fullmatch(value) or len(value) > MAX_HEADER_LENGTH:
            raise ValueError(
                f"{name}: the value is invalid; use 1 to {MAX_HEADER_LENGTH:,} visible ASCII characters and inner spaces"
            )
        if value == HIDDEN:
            raise ValueError(f"{name} has the stars that stand for its value; give the value itself")
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_TOGETHER:
        raise ValueError(f"have more than {MAX_TOGETHER:,} characters together; give less")
