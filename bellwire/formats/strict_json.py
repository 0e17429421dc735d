"""Strict JSON: the standard library's parser, without NaN and Infinity, which are not JSON (RFC 8259 §6)."""

import json
from collections.abc import Callable
from typing import Any


def loads(text: str | bytes, *, parse_int: Callable[[str], Any] | None = None, **hooks: Any) -> Any:
    """Parse JSON. Raises ValueError, also for NaN and Infinity, and RecursionError. `hooks` are those of `json.loads`."""
    return json.loads(text, parse_constant=_refuse, parse_int=parse_int, **hooks)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value; use null or a string")
