"""The filter dialects that CloudEvents requires: exact, prefix, suffix, all, any, not.

CloudEvents Subscriptions API, "Filter Dialects". A filter reads context attributes, never `data`. An attribute that is not
set matches nothing. Comparisons use canonical strings and are case-sensitive. All attributes of one filter must match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from bellwire.events import Event
from bellwire.filters.event_view import EventView
from bellwire.models import StrictInput

#: Maximum nesting depth of filters. Each `not`, `all` or `any` around others is one level.
MAX_DEPTH = 10


def _attribute_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is not the name of an attribute; write 1 to 64 lower-case letters and digits, such as subject"
        )
    return name


_NAME = re.compile(r"[a-z0-9]{1,64}")
AttributeName = Annotated[str, AfterValidator(_attribute_name)]
Values = Annotated[dict[AttributeName, Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Exact(StrictInput):
    """Each named attribute equals its value."""

    exact: Values

    def matches(self, event: Event | EventView) -> bool:
        texts = EventView.of(event).texts
        return all(texts.get(name) == value for name, value in self.exact.items())


class Prefix(StrictInput):
    """Each named attribute starts with its value."""

    prefix: Values

    def matches(self, event: Event | EventView) -> bool:
        texts = EventView.of(event).texts
        return all(texts.get(name, "").startswith(value) for name, value in self.prefix.items())


class Suffix(StrictInput):
    """Each named attribute ends with its value."""

    suffix: Values

    def matches(self, event: Event | EventView) -> bool:
        texts = EventView.of(event).texts
        return all(texts.get(name, "").endswith(value) for name, value in self.suffix.items())


class All(StrictInput):
    """All of the filters match."""

    all: Annotated[tuple[Filter, ...], Field(min_length=1)]

    def matches(self, event: Event | EventView) -> bool:
        return matches(self.all, event)


class Any(StrictInput):
    """At least one of the filters matches."""

    any: Annotated[tuple[Filter, ...], Field(min_length=1)]

    def matches(self, event: Event | EventView) -> bool:
        view = EventView.of(event)
        return any(item.matches(view) for item in self.any)


class Not(StrictInput):
    """The filter does not match."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    not_: Filter = Field(alias="not")

    def matches(self, event: Event | EventView) -> bool:
        return not self.not_.matches(event)


_DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not")


def _dialect(value: object) -> str | None:
    if isinstance(value, Exact | Prefix | Suffix | All | Any | Not):
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


def _inner(value: object) -> Iterable[object]:
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
    | Annotated[Not, Tag("not")],
    Discriminator(_dialect),
    BeforeValidator(_one_known_dialect),
]

for _model in (All, Any, Not):
    _model.model_rebuild()


def matches(filters: Iterable[Filter], event: Event | EventView) -> bool:
    """Whether the event matches all the filters. No filters match every event."""
    view = EventView.of(event)
    return all(item.matches(view) for item in filters)
