"""JSON over a pipe: four bytes of length, the most significant first, and then as many of JSON in UTF-8."""

import json
from typing import Any

HEADER = 4
#: Longest frame, in bytes: five parts of the largest size, escaped.
MAX_FRAME = 16 * 1024 * 1024


def frame(value: Any) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return len(body).to_bytes(HEADER, "big") + body


def length(header: bytes) -> int:
    """Raises ValueError for a frame that is too long."""
    found = int.from_bytes(header, "big")
    if found > MAX_FRAME:
        raise ValueError(f"a frame of {found:,} bytes")
    return found
