"""Segments: the parts that a text takes as an SMS, which is what providers bill and count.

3GPP TS 23.038: a text is sent in GSM-7 if every character of it has a place there, and in UCS-2 otherwise. One part holds
140 bytes; with more than one, each gives six of them to a header that joins them.
"""

from enum import StrEnum

from bellwire.models import Payload

#: 3GPP TS 23.038 §6.2.1, the default alphabet and its extension, whose characters take two places each.
_GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")


class Encoding(StrEnum):
    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


#: Places in a text of one part, and in each of several: seven bits each, or UTF-16 units.
_ROOM = {Encoding.GSM_7: (160, 153), Encoding.UCS_2: (70, 67)}


class Segments(Payload):
    """How a text is sent."""

    encoding: Encoding
    #: From 1, also for an empty text.
    count: int
    #: Places taken.
    units: int
    #: Places in so many parts.
    room: int


def segments(text: str) -> Segments:
    """How this text is sent, unless the provider replaces characters of it."""
    others = set(text) - _GSM_7
    encoding = Encoding.GSM_7 if others <= _EXTENSION else Encoding.UCS_2
    wide = others if encoding is Encoding.GSM_7 else {letter for letter in others if ord(letter) > 0xFFFF}
    one, each = _ROOM[encoding]
    units = len(text) + sum(text.count(character) for character in wide)
    if units <= one:
        return Segments(encoding=encoding, count=1, units=units, room=one)
    count = _parts(text, wide, each) if wide else -(-units // each)
    return Segments(encoding=encoding, count=count, units=units, room=count * each)


def _parts(text: str, wide: set[str], each: int) -> int:
    """A character of two places is never split over two parts, so that one place may stay empty."""
    count, taken = 1, 0
    for character in text:
        size = 2 if character in wide else 1
        if taken + size > each:
            count, taken = count + 1, 0
        taken += size
    return count
