"""Values of CESQL and the casts between their types (CESQL 1.0 §3.1 and §3.7)."""

import re
from collections.abc import Callable, Mapping

from bellwire.filters.cesql.errors import ErrorKind, EvaluationError

Value = str | int | bool
#: The attributes that are set, by name.
Values = Mapping[str, Value]
#: A compiled expression. Raises EvaluationError.
Run = Callable[[Values], Value]

SMALLEST, LARGEST = -(2**31), 2**31 - 1
ZERO: Mapping[type | None, Value] = {str: "", int: 0, bool: False, None: False}
#: The types by the names that the specification gives them.
TYPE_NAMES: Mapping[type, str] = {str: "String", int: "Integer", bool: "Boolean"}

_INTEGER = re.compile(r"[+-]?[0-9]{1,64}")
_BOOLEANS = {"true": True, "false": False}


def to_string(value: Value) -> str:
    if type(value) is str:
        return value
    return str(value).lower()  # true, false, or digits


def to_integer(value: Value) -> int:
    """Raises EvaluationError."""
    if type(value) is not str:
        return int(value)
    if _INTEGER.fullmatch(value):
        number = int(value)
        if SMALLEST <= number <= LARGEST:
            return number
    raise _not_cast(value, int)


def to_boolean(value: Value) -> bool:
    """Raises EvaluationError."""
    if type(value) is not str:
        return bool(value)
    found = _BOOLEANS.get(value.lower())
    if found is None:
        raise _not_cast(value, bool)
    return found


CASTS: Mapping[type, Callable[[Value], Value]] = {str: to_string, int: to_integer, bool: to_boolean}


def _not_cast(value: str, to: type) -> EvaluationError:
    shown = value if len(value) <= 100 else f"{value[:100]}…"
    return EvaluationError(ErrorKind.CAST, f'"{shown}" is not of type {TYPE_NAMES[to]}')
