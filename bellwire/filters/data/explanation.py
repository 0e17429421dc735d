"""Explains why data matches a pattern or does not, with the values seen."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bellwire.filters.data.conditions import Path
from bellwire.filters.data.pattern import ABSENT, compile_field, flat
from bellwire.formats.counts import counted

#: Fields whose values are named if the pattern matches.
MAX_FIELDS = 5


def explain(pattern: Mapping[str, Any], data: Any, quoted: Callable[[object], str]) -> str:
    """The first field of the pattern that fails, or the values of its fields if it matches."""
    if type(data) is not dict:
        found = "there is no data" if data is None else f"the data is {quoted(data)}"
        return f"{found}; a pattern matches an object only"
    failed = _failure(pattern, data, ("data",), quoted)
    if failed is not None:
        return failed
    seen = list(_seen(pattern, data, ("data",), quoted))
    return ", ".join(seen[:MAX_FIELDS]) + (
        f" and {counted(len(seen) - MAX_FIELDS, 'more field')}" if seen[MAX_FIELDS:] else ""
    )


def _failure(
    pattern: Mapping[str, Any], data: dict[str, Any], path: Path, quoted: Callable[[object], str]
) -> str | None:
    for name, wanted in pattern.items():
        value = data if name == "$or" else data.get(name, ABSENT)
        if compile_field(name, wanted, ()).matches(value):
            continue
        place = (*path, name)
        if name == "$or":
            first = _failure(wanted[0], data, path, quoted)
            return f"none of {len(wanted)} patterns of $or matches: {first}, …"
        if not isinstance(wanted, Mapping):
            return f"{_is(place, value, quoted)}, which does not match {quoted(wanted)}"
        items = flat(value) if type(value) is list else [value]
        if len(items) == 1:
            return _failure(wanted, items[0] if type(items[0]) is dict else {}, place, quoted)
        return f"{'.'.join(place)} has {counted(len(items), 'item')}, none of which matches {quoted(wanted)}"
    return None


def _seen(
    pattern: Mapping[str, Any], data: dict[str, Any], path: Path, quoted: Callable[[object], str]
) -> Iterator[str]:
    """The values of the fields of a pattern that matches."""
    for name, wanted in pattern.items():
        value = data if name == "$or" else data.get(name, ABSENT)
        if name == "$or":
            chosen = next(one for one in wanted if _failure(one, data, path, quoted) is None)
            yield from _seen(chosen, data, path, quoted)
        elif isinstance(wanted, Mapping) and type(value) is not list:
            yield from _seen(wanted, value if type(value) is dict else {}, (*path, name), quoted)
        else:
            yield _is((*path, name), value, quoted)


def _is(path: Path, value: Any, quoted: Callable[[object], str]) -> str:
    return f"{'.'.join(path)} is {'not set' if value is ABSENT else quoted(value)}"
