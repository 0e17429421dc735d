"""Segments: the number of SMS that a text needs. Providers bill segments.

3GPP TS 23.038: a text is encoded in GSM-7 if that has all of its characters, else in UCS-2. A segment has 140 bytes; if there
are several, six bytes of each are a header that joins them.
"""

from enum import StrEnum

from bellwire.models import Payload

#: 3GPP TS 23.038 §6.2.1, the default alphabet and its extension, whose characters are two units each.
_GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")


class Encoding(StrEnum):
    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


#: Units of a single segment, and of each of several segments. A unit is seven bits in GSM-7, and 16 bits in UCS-2.
_ROOM = {Encoding.GSM_7: (160, 153), Encoding.UCS_2: (70, 67)}


class Segments(Payload):
    """The encoding and size of a text as SMS."""

    encoding: Encoding
    #: At least 1, also for an empty text.
    count: int
    #: Units of the text.
    units: int
    #: Units that fit into `count` segments.
    room: int


def segments(text: str) -> Segments:
    """The segments of the text, provided that the provider does not replace characters."""
    others = set(text) - _GSM_7
    encoding = Encoding.GSM_7 if others <= _EXTENSION else Encoding.UCS_2
    wide = others if encoding is Encoding.GSM_7 else {letter for letter in others if ord(letter) > 0xFFFF}
    one, each = _ROOM[encoding]
    units = len(text) + sum(text.count(character) for character in wide)
    if units <= one:
        return Segments(encoding=encoding, count=1, units=units, room=one)
    count = _count(text, wide, each) if wide else -(-units // each)
    return Segments(encoding=encoding, count=count, units=units, room=count * each)


def _count(text: str, wide: set[str], each: int) -> int:
    """The number of segments. A character of two units is never split, so one unit of a segment may stay unused."""
    count, used = 1, 0
    for character in text:
        size = 2 if character in wide else 1
        if used + size > each:
            count, used = count + 1, 0
        used += size
    return count
