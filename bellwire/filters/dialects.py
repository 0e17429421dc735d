"""The filter dialects: those of CloudEvents (exact, prefix, suffix, all, any, not, sql), and data for the data of events.

CloudEvents Subscriptions API, "Filter Dialects". All but `data` read context attributes only. An attribute that is not set
matches nothing. Comparisons of exact, prefix and suffix use canonical strings and are case-sensitive. All attributes of one
filter must match.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from bellwire.events import Event
from bellwire.filters.cesql import MAX_CHARACTERS, TYPE_NAMES, EvaluationError, Expression, parse
from bellwire.filters.data import MAX_STEPS, Pattern, PatternError, check_pattern, compile_pattern
from bellwire.filters.event_view import EventView
from bellwire.models import StrictInput, skip_when_trusted

#: Maximum nesting depth of filters. Each `not`, `all` or `any` around others is one level.
MAX_DEPTH = 10


def _attribute_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is not the name of an attribute; write 1 to 64 lower-case letters and digits, such as subject"
        )
    return name


#: Whether an event matches a filter.
Test = Callable[[EventView], bool]

_NAME = re.compile(r"[a-z0-9]{1,64}")
AttributeName = Annotated[str, AfterValidator(_attribute_name)]
Values = Annotated[dict[AttributeName, Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Dialect(StrictInput):
    """What all filters have."""

    @cached_property
    def test(self) -> Test:
        """Check an event. Compiled when it is first used."""
        return self._compile()

    def matches(self, event: Event | EventView) -> bool:
        return self.test(EventView.of(event))

    def _compile(self) -> Test:
        raise NotImplementedError


class Exact(Dialect):
    """Each named attribute equals its value."""

    exact: Values

    def _compile(self) -> Test:
        return _each(self.exact, str.__eq__)


class Prefix(Dialect):
    """Each named attribute starts with its value."""

    prefix: Values

    def _compile(self) -> Test:
        return _each(self.prefix, str.startswith)


class Suffix(Dialect):
    """Each named attribute ends with its value."""

    suffix: Values

    def _compile(self) -> Test:
        return _each(self.suffix, str.endswith)


def _each(wanted: dict[str, str], fits: Callable[[str, str], bool]) -> Test:
    """No value is empty, so an attribute that is not set fits none."""
    if len(wanted) > 1:
        return _all_true([_each({name: value}, fits) for name, value in wanted.items()])
    ((name, value),) = wanted.items()
    return lambda view: fits(view.texts.get(name, ""), value)


def _all_true(tests: list[Test]) -> Test:
    """What checks that all tests are true."""
    if len(tests) == 1:
        return tests[0]

    def test(view: EventView) -> bool:
        for each in tests:  # noqa: SIM110 - `all` costs more than most filters
            if not each(view):
                return False
        return True

    return test


class All(Dialect):
    """All of the filters match."""

    all: Annotated[tuple[Filter, ...], Field(min_length=1)]

    def _compile(self) -> Test:
        return _all_true([item.test for item in self.all])


class Any(Dialect):
    """At least one of the filters matches."""

    any: Annotated[tuple[Filter, ...], Field(min_length=1)]

    def _compile(self) -> Test:
        tests = [item.test for item in self.any]
        return lambda view: any(test(view) for test in tests)


class Not(Dialect):
    """The filter does not match."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    not_: Filter = Field(alias="not")

    def _compile(self) -> Test:
        test = self.not_.test
        return lambda view: not test(view)


def _expression(text: str) -> str:
    """A problem of the expression has its position, which counts characters from 1."""
    found = parse(text)
    if found.problems:
        raise found.problems[0]
    if found.type not in {bool, None}:
        kind = TYPE_NAMES[found.type]
        raise ValueError(
            f"is of type {kind}; write a condition, which is true or false, such as subject LIKE 'order-%'"
        )
    return text


class Sql(Dialect):
    """The expression is true. It is one of CESQL 1.0: `subject LIKE 'order-%' AND priority > 5`."""

    sql: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS), skip_when_trusted(_expression)]

    @cached_property
    def expression(self) -> Expression:
        return parse(self.sql)

    def _compile(self) -> Test:
        run = self.expression.run

        def test(view: EventView) -> bool:
            try:
                return run(view.given_values) is True
            except EvaluationError:
                return False

        return test


def _pattern(pattern: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        check_pattern(pattern)
    except PatternError as error:
        # Names the place in the pattern like that of any other field.
        problem = PydanticCustomError("value_error", "{problem}", {"problem": error.problem})
        place = (".".join(error.path),) if error.path else ()
        line = InitErrorDetails(type=problem, loc=place, input=None)
        raise ValidationError.from_exception_data("data", [line]) from None
    return pattern


class Data(Dialect):
    """The event's data matches the pattern, as those of EventBridge: `{"order": {"amount": [{"numeric": [">", 100]}]}}`."""

    data: Annotated[dict[str, JsonValue], skip_when_trusted(_pattern)]

    @cached_property
    def pattern(self) -> Pattern:
        return compile_pattern(self.data)

    def _compile(self) -> Test:
        matches = self.pattern.matches
        if self.pattern.size <= _FEW:
            return lambda view: matches(view.data)
        return lambda view: not self.exceeds(view) and matches(view.data)

    def exceeds(self, view: EventView) -> bool:
        """Whether it would take too long to match the data, which then does not match."""
        return _exceed(self.pattern.size, view)


def _exceed(alternatives: int, view: EventView) -> bool:
    return alternatives > _FEW and alternatives * view.data_size.steps > MAX_STEPS


#: Alternatives of patterns that any data may be matched with.
_FEW = 20
_DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not", "sql", "data")


def _dialect(value: object) -> str | None:
    if isinstance(value, Exact | Prefix | Suffix | All | Any | Not | Sql | Data):
        return type(value).__name__.lower()
    return next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None


def _one_known_dialect(value: object) -> object:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _inner(outer)]
    if level:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels; flatten it")
    if _dialect(value) not in _DIALECTS:
        raise ValueError(
            f'is not a valid filter; write one of {", ".join(_DIALECTS)} with its values, such as {{"exact": {{"type": "a"}}}}'
        )
    return value


def _inner(value: object) -> Iterable[typing.Any]:
    """The filters within a filter, which may be a model or unvalidated."""
    match value:
        case All(all=inner) | Any(any=inner):
            return inner
        case {"all": list(inner) | tuple(inner)} | {"any": list(inner) | tuple(inner)}:
            return inner
        case Not(not_=inner) | {"not": inner}:
            return (inner,)
        case _:
            return ()


Filter = Annotated[
    Annotated[Exact, Tag("exact")]
    | Annotated[Prefix, Tag("prefix")]
    | Annotated[Suffix, Tag("suffix")]
    | Annotated[All, Tag("all")]
    | Annotated[Any, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Sql, Tag("sql")]
    | Annotated[Data, Tag("data")],
    Discriminator(_dialect),
    BeforeValidator(_one_known_dialect),
]

for _model in (All, Any, Not):
    _model.model_rebuild()


def matches(filters: Iterable[Filter], event: Event | EventView) -> bool:
    """Whether the event matches all the filters. No filters match every event."""
    return all_of(filters)(EventView.of(event))


def all_of(filters: Iterable[Filter]) -> Test:
    """Compile filters, all of which have to match. If all together would take too long, they do not match."""
    items = tuple(filters)
    test, size = _all_true([item.test for item in items]), sum(map(alternatives_of, items))
    return test if size <= _FEW else lambda view: not _exceed(size, view) and test(view)


def exceed(filters: Iterable[Filter], view: EventView) -> bool:
    """Whether it would take too long to match the data with all the filters together, which then do not match."""
    return _exceed(sum(map(alternatives_of, filters)), view)


def alternatives_of(item: Filter) -> int:
    """The alternatives of all patterns on data in a filter."""
    if isinstance(item, Data):
        return item.pattern.size
    return sum(map(alternatives_of, _inner(item)))
