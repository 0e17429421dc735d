"""JSON values from Python values: dates, times, decimals, UUIDs and enums become what JSON has for them."""

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from bellwire.formats.timestamps import format_timestamp

#: Maximum nesting depth. JSON parsers fail at about 200, and a publication adds levels of its own.
MAX_DEPTH = 100
#: Maximum digits of an integer; parsers fail at 4,300.
MAX_INTEGER_DIGITS = 1000
_TOO_LONG = 10**MAX_INTEGER_DIGITS
#: Maximum values. Lists that contain the same list many times are small in memory and without end in JSON.
MAX_VALUES = 1_000_000

#: What to do with values of Python that JSON does not have.
_REMEDIES: dict[type[object], str] = {
    bytes: "decode them to text, or encode them in base64",
    bytearray: "decode them to text, or encode them in base64",
    set: "use a sorted list",
    frozenset: "use a sorted list",
}


def json_value(value: object) -> Any:
    """The value as JSON has it: None, bool, int, float, str, list, or dict with str as keys.

    Datetimes, dates, times, decimals and UUIDs become strings, enums their values, and tuples lists. Raises ValueError with the
    position of a value that JSON cannot express, such as `items[3].price`.
    """
    return _Conversion().convert(value, (), 0)


#: Types whose values JSON has unchanged.
_AS_THEY_ARE = {str, bool, type(None)}


class _Conversion:
    def __init__(self) -> None:
        self._left = MAX_VALUES

    def convert(self, value: object, path: tuple[str | int, ...], depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"has more than {MAX_VALUES:,} values; send a reference to large data")
        kind = type(value)
        if kind in _AS_THEY_ARE:  # most values: what follows takes ten times as long
            return value
        match value:
            case Enum():
                return self.convert(value.value, path, depth)
            case None | bool():
                return value
            case str():
                return str(value) if type(value) is not str else value
            case int():
                if not -_TOO_LONG < value < _TOO_LONG:
                    raise _refused(
                        path, f"contains an integer of more than {MAX_INTEGER_DIGITS:,} digits", "use a string"
                    )
                return int(value)
            case float():
                if not math.isfinite(value):
                    raise _refused(path, "contains NaN or Infinity, which JSON does not allow", "use null or a string")
                return float(value)
            case Mapping() | list() | tuple():
                if depth == MAX_DEPTH:
                    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels; flatten it, or send a reference to it")
                if isinstance(value, Mapping):
                    names = [(name if type(name) is str else _key(name, path), item) for name, item in value.items()]
                    return {name: self.convert(item, (*path, name), depth + 1) for name, item in names}
                return [self.convert(item, (*path, number), depth + 1) for number, item in enumerate(value)]
            case Decimal() if not value.is_finite():
                raise _refused(path, "contains NaN or Infinity, which JSON does not allow", "use null or a string")
            case Decimal() | UUID():
                return str(value)
            case datetime():
                return format_timestamp(value)
            case date() | time():
                return value.isoformat()
        remedy = _REMEDIES.get(kind, "convert it to text, numbers, lists or dicts, such as by .model_dump(mode='json')")
        raise _refused(path, f"contains a {kind.__name__}, which is not a valid JSON value", remedy)


def _key(name: object, path: tuple[str | int, ...]) -> str:
    text = name.value if isinstance(name, Enum) else name
    if not isinstance(text, str):
        raise _refused(
            path, f"contains a key that is a {type(text).__name__}", "JSON has strings as keys, so use str(key)"
        )
    return str(text)


def _refused(path: tuple[str | int, ...], problem: str, remedy: str) -> ValueError:
    """The error of a value at this position."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path)
    place = "".join(parts).removeprefix(".")
    return ValueError(f"{problem}, at {place}; {remedy}" if place else f"{problem}; {remedy}")
