"""Text that is safe to send: without control characters, in one line, in valid Unicode."""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Control characters other than tab and line feed, marks that change the direction of the text after them, and byte order
#: marks.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")

_CUTS: ContextVar[list[str] | None] = ContextVar("cuts", default=None)

#: The zero-width joiner of emoji, what follows an emoji (joiner, skin tones, tags), and the letters that pairs of are flags.
_JOINER = "\u200d"
_EXTENDS = {_JOINER, *map(chr, range(0x1F3FB, 0x1F400)), *map(chr, range(0xE0020, 0xE0080))}
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))


def printable(text: str) -> str:
    """`text` with LF line ends and without characters that terminals, phones or mail readers take for commands."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, *, limit: int) -> str:
    """`text` as one line of at most `limit` characters: runs of white space and control characters become one space."""
    return shortened(_SPACES.sub(" ", text.replace("\ufeff", "")).strip(), limit)


def valid_unicode(text: str) -> str:
    """`text` with pairs of surrogates joined, and lone ones, which cannot be encoded, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_invisible(text: str) -> str:
    """`text` without control characters, line ends of any script, and marks that change its direction."""
    return "".join(character for character in text if character.isprintable())


def shortened(text: str, limit: int, ending: str = "…") -> str:
    """The text in at most `limit` characters, with an ellipsis if it was longer. No emoji is cut in two."""
    if len(text) <= limit:
        return text
    return _noted(start_of(text, limit - len(ending)).rstrip() + ending)


def shortened_bytes(text: str, limit: int) -> str:
    """The text in at most `limit` bytes of UTF-8, with an ellipsis if it was longer."""
    if len(text.encode()) <= limit:
        return text
    return _noted(start_of(text, len(text.encode()[: limit - 3].decode(errors="ignore"))).rstrip() + "…")


@contextmanager
def noting_cuts() -> Iterator[list[str]]:
    """Collect the texts that are cut meanwhile, as they are after it: for previews."""
    cuts: list[str] = []
    token = _CUTS.set(cuts)
    try:
        yield cuts
    finally:
        _CUTS.reset(token)


def _noted(text: str) -> str:
    cuts = _CUTS.get()
    if cuts is not None:
        cuts.append(text)
    return text


def start_of(text: str, limit: int) -> str:
    """The first characters of the text, at most `limit`, without half of an emoji or a letter without its marks."""
    end = min(len(text), limit)
    while 0 < end < len(text) and _joined(text[:end], text[end]):
        end -= 1
    return text[: end or limit]


def _joined(before: str, character: str) -> bool:
    """Whether a reader sees this character and the one before it as one (of Unicode's UAX #29 what texts often have)."""
    if unicodedata.category(character).startswith("M") or character in _EXTENDS or before[-1] == _JOINER:
        return True
    flags = len(before) - len(before.rstrip(_FLAG_LETTERS))
    return character in _FLAG_LETTERS and flags % 2 == 1
