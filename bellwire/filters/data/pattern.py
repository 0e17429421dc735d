"""Patterns on an event's data, in the style of EventBridge and SNS: {"order": {"amount": [{"numeric": [">", 100]}]}}.

All fields of a pattern must match; a field matches if any of its alternatives does. If the data has a list where a pattern has a
field, any item of the list may match; fields of one object of a pattern must match in one and the same item.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bellwire.filters.data.conditions import CONDITIONS, Path, Test, condition, equal_to, is_scalar, tests_in
from bellwire.filters.data.errors import PatternError

#: Characters of a pattern as JSON, names on the way to a field (`$or` counts twice), and alternatives of all fields together.
MAX_CHARACTERS, MAX_DEPTH, MAX_ALTERNATIVES = 16_384, 20, 500
#: Maximum product of the size of an event's data and the alternatives of patterns. Above it they do not match. A second at most.
MAX_STEPS = 4_000_000
#: Characters of text that take as long to match as one value.
CHARACTERS_OF_A_STEP = 16

#: Stands for the value of a field that the data does not have.
ABSENT: Any = object()
#: Whether a value of the data, or ABSENT, matches.
Match = Callable[[Any], bool]


class DataSize(NamedTuple):
    """How large an event's data is."""

    #: Values at all levels.
    values: int
    #: Characters of the texts among them.
    characters: int

    @property
    def steps(self) -> int:
        """What it costs to match it with one alternative."""
        return self.values + self.characters // CHARACTERS_OF_A_STEP


class Compiled(NamedTuple):
    """A part of a pattern."""

    matches: Match
    #: Alternatives in it, with each value that `anything-but` lists.
    size: int
    #: Whether it only wants fields to be absent.
    only_absent: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. `matches` is for the data of an event; data that is not an object matches no pattern."""

    matches: Match
    size: int


def check_pattern(pattern: Mapping[str, object]) -> None:
    """Raises PatternError, which says where the problem is."""
    try:
        text = json.dumps(pattern, ensure_ascii=False)
        text.encode()
    except RecursionError:
        raise PatternError((), f"is nested deeper than {MAX_DEPTH} levels; flatten it") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise PatternError((), f"contains {half}, half of a surrogate pair; write the whole character") from None
    if (length := len(text)) > MAX_CHARACTERS:
        raise PatternError((), f"has {length:,} characters of JSON, the limit is {MAX_CHARACTERS:,}; shorten it")
    found = compile_pattern(pattern)
    if found.size > MAX_ALTERNATIVES:
        raise PatternError((), f"has {found.size:,} alternatives, the limit is {MAX_ALTERNATIVES:,}; shorten it")


def compile_pattern(pattern: Mapping[str, object]) -> Pattern:
    """Compile a pattern that was checked before."""
    found = compile_object(pattern, ())
    matches = found.matches
    return Pattern(lambda data: type(data) is dict and matches(data), found.size)


def compile_object(pattern: object, path: Path) -> Compiled:
    """Compile an object of a pattern: all its fields must match, and one pattern of each `$or`."""
    if not isinstance(pattern, Mapping) or not pattern:
        raise PatternError(path, 'must be an object with at least one field, such as {"status": ["paid"]}')
    if len(path) > MAX_DEPTH:
        raise PatternError((), f"is nested deeper than {MAX_DEPTH} levels; flatten it")
    compiled = [(name, compile_field(name, value, path)) for name, value in pattern.items()]
    fields = tuple((name, part.matches) for name, part in compiled if name != "$or")
    choices = tuple(part.matches for name, part in compiled if name == "$or")
    size = sum(part.size for _, part in compiled)
    only_absent = all(part.only_absent for _, part in compiled)
    return Compiled(_object(fields, choices, only_absent), size, only_absent)


def compile_field(name: str, value: object, path: Path) -> Compiled:
    """Compile what a pattern has under a name: alternatives, an object, or the patterns of `$or`."""
    path = (*path, name)
    if name == "$or":
        return _choice(value, path)
    if isinstance(value, Mapping):
        return compile_object(value, path)
    if isinstance(value, list | tuple) and value:
        return _alternatives(value, path)
    if name in CONDITIONS:
        raise PatternError(
            path, f'is a condition; write it in the list of a field, such as {{"status": [{{"{name}": …}}]}}'
        )
    raise PatternError(
        path, 'must be a list of at least 1 alternative, such as ["paid", {"prefix": "re"}], or an object'
    )


def _choice(value: object, path: Path) -> Compiled:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise PatternError(path, "must be a list of at least 2 patterns, one of which has to match")
    parts = [compile_object(each, (*path, str(number))) for number, each in enumerate(value)]
    tests = tuple(part.matches for part in parts)
    only_absent = all(part.only_absent for part in parts)
    return Compiled(lambda data: any(test(data) for test in tests), sum(part.size for part in parts), only_absent)


def _alternatives(values: Sequence[object], path: Path) -> Compiled:
    """Compile the list of a field."""
    scalars: list[object] = []
    tests: list[Test] = []
    absent, size = False, 0
    for number, value in enumerate(values):
        size += 1
        if isinstance(value, Mapping):
            if set(value) == {"exists"}:
                if not isinstance(value["exists"], bool):
                    raise PatternError((*path, str(number), "exists"), "must be true or false")
                absent = absent or not value["exists"]
                if value["exists"]:
                    tests.append(lambda _: True)
            else:
                tests.append(condition(value, (*path, str(number))))
                size += tests_in(value) - 1
        elif is_scalar(value):
            scalars.append(value)
        else:
            raise PatternError((*path, str(number)), "must be a text, a number, true, false, null, or a condition")
    if scalars:
        tests.insert(0, equal_to(scalars))
    only_absent = not tests
    return Compiled(_field(_any_of(tests), absent), size, only_absent)


def _any_of(tests: list[Test]) -> Test:
    match tests:
        case []:
            return lambda _: False
        case [test]:
            return test
        case _:
            return lambda value: any(test(value) for test in tests)


def _field(test: Test, absent: bool) -> Match:
    """`absent`: also a field without a value matches. An object or an empty list is not a value."""

    def matches(value: Any) -> bool:
        kind = type(value)
        if kind is list:
            empty = True
            for item in flat(value):
                if type(item) is not dict:
                    empty = False
                    if test(item):
                        return True
            return absent and empty
        if kind is dict or value is ABSENT:
            return absent
        return test(value)

    return matches


def _object(fields: Sequence[tuple[str, Match]], choices: Sequence[Match], only_absent: bool) -> Match:
    def matches(value: Any) -> bool:
        kind = type(value)
        if kind is list:
            for item in flat(value) or [{}]:
                if matches(item) is not only_absent:
                    return not only_absent
            return only_absent
        if kind is not dict:
            value = {}
        for name, test in fields:
            if not test(value.get(name, ABSENT)):
                return False
        return all(choice(value) for choice in choices)

    return matches


def flat(items: list[Any]) -> list[Any]:
    """The items of a list, and of lists in it, in any order."""
    if list not in map(type, items):
        return items
    found: list[Any] = []
    stack = [items]
    while stack:
        for item in stack.pop():
            (stack if type(item) is list else found).append(item)
    return found


def size_of(data: Any) -> DataSize:
    values = characters = 0
    for value in _walk(data):
        values += 1
        if type(value) is str:
            characters += len(value)
    return DataSize(values, characters)


def _walk(data: Any) -> Iterator[Any]:
    stack = [data]
    while stack:
        value = stack.pop()
        yield value
        if type(value) is dict:
            stack.extend(value.values())
        elif type(value) is list:
            stack.extend(value)
