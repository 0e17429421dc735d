"""Storable text: text from outside, such as an SMTP reply or a provider's response, made fit for the registry and for Temporal.

A reply with one byte of Latin-1 becomes a lone surrogate, which UTF-8 cannot encode; JSON can hold half an emoji, and NUL,
which PostgreSQL cannot store. An outcome with such a text could never be recorded, so its delivery would be sent again and
again.
"""

import re
from typing import overload

from pydantic import BeforeValidator

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
#: The escapes of a JSON text, each whole. Group 1: NUL, or a surrogate that is not half of a pair.
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@overload
def storable(text: str, *, limit: int | None = None) -> str: ...
@overload
def storable(text: None, *, limit: int | None = None) -> None: ...
def storable(text: str | None, *, limit: int | None = None) -> str | None:
    """The first `limit` characters of the text, with NUL and lone surrogates replaced by U+FFFD. None stays None."""
    if text is None:
        return None
    if limit is not None and len(text) > limit:
        text = text[:limit]
    if text.isascii() and "\0" not in text:
        return text
    joined = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _UNSTORABLE.sub(_REPLACEMENT, joined)


def from_outside(limit: int) -> BeforeValidator:
    """A validator for a field with text from outside: it makes the text storable and cuts it to `limit` characters."""
    return BeforeValidator(lambda value: storable(value, limit=limit) if isinstance(value, str) else value)


def storable_json(text: str) -> str:
    """A JSON text whose strings are storable once they are parsed; everything else in it stays as it is."""
    if "\\u" not in text:
        return text
    return _ESCAPES.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], text)
