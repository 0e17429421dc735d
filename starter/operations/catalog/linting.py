"""Linting: advice on event types, beside what is wrong with them."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bellwire.catalog.event_types import EventType, NewEventType
from starter.operations.catalog.event_types import problems_of_type, read_event_type
from starter.operations.documents import Item, object_of
from starter.operations.problems import InputInvalid, problems_of

_WORDS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class Finding(NamedTuple):
    """Something that lint found."""

    #: The type, or the place of one that cannot be read.
    type: str
    #: Whether the catalog refuses it; otherwise it is advice.
    is_error: bool
    field: str
    message: str


def lint_items(items: Iterable[Item]) -> Iterator[Finding]:
    """Findings about the types of a document."""
    for item in items:
        try:
            new = read_event_type(object_of(item))
        except InputInvalid as error:
            yield from (Finding(item.place, True, one.field, one.message) for one in problems_of(error))
        else:
            yield from lint(new)


def lint_stored(types: Iterable[EventType]) -> Iterator[Finding]:
    """Findings about the latest versions of stored types."""
    for each in types:
        latest = each.latest
        fields: dict[str, Any] = {"type": each.type, "schema": latest.schema_, "examples": list(latest.examples)}
        details = {"description": each.description, "owner": each.owner, "deprecated": each.deprecated}
        yield from lint(NewEventType.model_validate({**fields, **details}))


def lint(new: NewEventType) -> Iterator[Finding]:
    """Findings about one type."""
    errors = [Finding(new.type, True, one.field, one.message) for one in problems_of_type(new)]
    yield from errors
    for field, message in _advice(new):
        yield Finding(new.type, False, field, message)


def _advice(new: NewEventType) -> Iterator[tuple[str, str]]:
    if not _WORDS.fullmatch(new.type):
        yield "type", "use two or more words in lower case, from general to specific, such as order.paid"
    if not new.description:
        yield "description", "is missing; say what has happened when it is published"
    if not new.owner:
        yield "owner", "is missing; name who answers for it"
    if new.schema_ is None:
        yield "schema", "is missing, so any data is accepted"
        return
    if not new.examples:
        yield "examples", "are missing; subscribers test with them"
    if new.schema_.get("type") != "object" and "$ref" not in new.schema_:
        yield "schema.type", "should be object, so that properties can be added later"
    elif (
        "additionalProperties" in new.schema_
        and not new.deprecated
        and new.schema_["additionalProperties"] is not False
    ):
        yield "schema.additionalProperties", "allows misspelt properties; leave it out or set it to false"
    for name, schema in _properties(new.schema_):
        if isinstance(schema, dict) and not schema.keys() & {"description", "title", "$ref"}:
            yield f"schema.properties.{name}", "has no description"


def _properties(schema: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    found = schema.get("properties")
    return found.items() if isinstance(found, dict) else ()
