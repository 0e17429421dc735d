"""Conditions on one value of an event's data: prefix, suffix, anything-but, numeric and so on."""

import ipaddress
import math
import operator
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bellwire.filters.data.errors import PatternError
from bellwire.filters.wildcards import with_gaps

#: A value of JSON that has no other values within it.
Scalar = str | int | float | bool | None
Test = Callable[[Scalar], bool]
Path = tuple[str, ...]

_WILDCARD = re.compile(r"\\[*\\]|\*|[^*\\]+|\\", re.DOTALL)
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition(value: Mapping[str, object], path: Path) -> Test:
    """Compile a condition such as {"prefix": "a"}, except `exists`. Raises PatternError."""
    name, argument = _only(value, path, _CONDITIONS)
    return _CONDITIONS[name](argument, (*path, name))


def is_number(value: object) -> bool:
    """Whether it is a number of JSON. 1e400 is none: as a float it is infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or is_number(value)


def tests_in(value: Mapping[str, object]) -> int:
    """How many values a compiled condition compares with: 1, but as many as `anything-but` lists."""
    listed = value.get("anything-but")
    if isinstance(listed, Mapping):
        (listed,) = listed.values()
    return len(listed) if isinstance(listed, list | tuple) else 1


def _only(value: Mapping[str, object], path: Path, known: Mapping[str, object]) -> tuple[str, object]:
    """The only name and value of an object."""
    if len(value) != 1 or (name := next(iter(value))) not in known:
        names = CONDITIONS if known is _CONDITIONS else known
        raise PatternError(path, f"must be an object with one of {', '.join(names)}")
    return name, value[name]


def _text(value: object, path: Path, *, least: int = 1) -> str:
    if not isinstance(value, str) or len(value) < least:
        size = " of at least 1 character" if least else ""
        raise PatternError(path, f'must be a text{size}, such as "order-"')
    return value


def _affix(check: Callable[[str, str], bool], *, least: int) -> Callable[[object, Path], Test]:
    """Compile `prefix` or `suffix`; with {"equals-ignore-case": …} upper and lower case are the same.

    Each text starts and ends with the empty one.
    """

    def compiled(argument: object, path: Path) -> Test:
        if isinstance(argument, Mapping):
            name, inner = _only(argument, path, {"equals-ignore-case": None})
            lower = _text(inner, (*path, name), least=least).lower()
            return lambda value: type(value) is str and check(value.lower(), lower)
        text = _text(argument, path, least=least)
        return lambda value: type(value) is str and check(value, text)

    return compiled


def _ignore_case(argument: object, path: Path) -> Test:
    if not isinstance(argument, str):
        raise PatternError(path, 'must be a text, such as "eur"')
    lower = argument.lower()
    return lambda value: type(value) is str and value.lower() == lower


def _wildcard(argument: object, path: Path) -> Test:
    """`*` stands for any characters or none; a backslash before * or a backslash takes it literally."""
    parts, before = [""], ""
    for written in _WILDCARD.findall(_text(argument, path)):
        if written == "\\":
            raise PatternError(
                path, r"has a backslash before another character than * or a backslash; write \\ for one"
            )
        if written == "*" and before == "*":
            raise PatternError(path, "has two * in a row; write one")
        if written == "*":
            parts.append("")
        else:
            parts[-1] += written[1] if written[0] == "\\" else written
        before = written
    fits = with_gaps(parts)
    return lambda value: type(value) is str and fits(value)


def _numeric(argument: object, path: Path) -> Test:
    remedy = 'must be a list of comparisons and numbers, such as [">", 0, "<=", 100] or ["=", 5]'
    if not isinstance(argument, list | tuple) or len(argument) not in {2, 4}:
        raise PatternError(path, remedy)
    bounds = dict(zip(argument[::2], argument[1::2], strict=True)) if all(map(_hashable, argument)) else {}
    if not bounds or not all(name in _COMPARISONS and is_number(number) for name, number in bounds.items()):
        raise PatternError(path, remedy)
    tests = [(_COMPARISONS[name], number) for name, number in bounds.items()]
    if len(argument) == 2:
        ((compare, only),) = tests
        return lambda value: type(value) in _NUMBERS and compare(value, only)  # type: ignore[arg-type]
    lower = [number for name, number in bounds.items() if name[0] == ">"]
    upper = [number for name, number in bounds.items() if name[0] == "<"]
    if len(lower) != 1 or len(upper) != 1 or lower[0] > upper[0] or (lower == upper and len("".join(bounds)) < 4):
        raise PatternError(path, 'must be a lower bound and a larger upper one, such as [">", 0, "<=", 100]')
    (above, low), (below, high) = tests
    return lambda value: type(value) in _NUMBERS and above(value, low) and below(value, high)  # type: ignore[arg-type]


_NUMBERS = frozenset({int, float})


def _hashable(value: object) -> bool:
    return isinstance(value, str | int | float)


def _cidr(argument: object, path: Path) -> Test:
    try:
        network = ipaddress.ip_network(_text(argument, path), strict=False)
    except ValueError:
        raise PatternError(path, "must be a range of IP addresses, such as 10.0.0.0/8 or 2001:db8::/32") from None
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    mask, wanted = int(network.netmask), int(network.network_address)

    def within(value: Scalar) -> bool:
        if type(value) is not str:
            return False
        try:
            return int.from_bytes(socket.inet_pton(family, value)) & mask == wanted
        except (OSError, ValueError):
            return False

    return within


def _anything_but(argument: object, path: Path) -> Test:
    """Any value except these. A field without a value does not match."""
    if isinstance(argument, Mapping):
        name, inner = _only(argument, path, _EXCLUDABLE)
        excluded = inner if isinstance(inner, list | tuple) else [inner]
        tests = [_EXCLUDABLE[name](each, (*path, name)) for each in excluded]
        if not tests:
            raise PatternError((*path, name), "must have at least 1 text")
        return lambda value: not any(test(value) for test in tests)
    values = argument if isinstance(argument, list | tuple) else [argument]
    if not values or not all(map(is_scalar, values)):
        raise PatternError(path, "must be a text, a number, true, false or null, or a list of them")
    is_excluded = equal_to(values)
    return lambda value: not is_excluded(value)


def equal_to(values: Sequence[Any]) -> Test:
    """What checks that a value is one of these. 1 and 1.0 are equal, true and 1 are not."""
    texts = frozenset(value for value in values if isinstance(value, str))
    others = frozenset((isinstance(value, bool), value) for value in values if not isinstance(value, str))
    if not others:
        return texts.__contains__
    return lambda value: value in texts if type(value) is str else (type(value) is bool, value) in others


_EXCLUDABLE: Mapping[str, Callable[[object, Path], Test]] = {
    "prefix": _affix(str.startswith, least=1),
    "suffix": _affix(str.endswith, least=1),
    "equals-ignore-case": _ignore_case,
    "wildcard": _wildcard,
}
_CONDITIONS: Mapping[str, Callable[[object, Path], Test]] = {
    **_EXCLUDABLE,
    "prefix": _affix(str.startswith, least=0),
    "suffix": _affix(str.endswith, least=0),
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
}
#: The names of all conditions.
CONDITIONS = (*_CONDITIONS, "exists")
