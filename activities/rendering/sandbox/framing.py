"""Frames of JSON over a pipe: four bytes of length, big-endian, then JSON in UTF-8."""

import json
from typing import Any

HEADER = 4
#: Largest frame in bytes: room for five templates of the largest size, escaped.
MAX_FRAME = 16 * 1024 * 1024


def frame(value: Any) -> bytes:
    """The value as one frame."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return len(body).to_bytes(HEADER, "big") + body


def length(header: bytes) -> int:
    """The length of the body. Raises ValueError if the frame is too large."""
    found = int.from_bytes(header, "big")
    if found > MAX_FRAME:
        raise ValueError(f"a frame of {found:,} bytes")
    return found
