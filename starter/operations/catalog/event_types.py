"""Event types: read from documents, checked, and stored with a version for each schema."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from bellwire.catalog.event_types import MAX_EXAMPLES_BYTES, EventType, NewEventType, TypeDetails
from bellwire.catalog.validating import SchemaValidator
from bellwire.errors import SchemaIncompatible, SchemaInvalid
from bellwire.formats.json_values import json_value
from bellwire.registry import Registry
from bellwire.registry.api.event_types import StoredType
from bellwire.registry.db.auditing import change
from starter.operations.documents import Item, collect, object_of
from starter.operations.problems import InputInvalid, Problem, problems_of

#: Types that one read of the registry returns.
PAGE = 500
FORCE = "a new version must suit publishers and subscribers of the one before, unless it is forced"


def read_event_types(items: Iterable[Item]) -> list[NewEventType]:
    """The types of a document, each checked. Raises InputInvalid with the problems of every bad item."""
    first: dict[str, str] = {}

    def read(item: Item) -> NewEventType:
        new = read_event_type(object_of(item))
        if first.setdefault(new.type, item.place) != item.place:
            raise InputInvalid(f"is given twice; {first[new.type]} has it too", field="type")
        if problems := list(problems_of_type(new)):
            raise InputInvalid.of(problems)
        return new

    return collect(items, read)


def read_event_type(value: Mapping[str, Any]) -> NewEventType:
    """A type from its JSON object. Raises InputInvalid with a problem for each bad field."""
    try:
        return NewEventType.model_validate(value)
    except ValidationError as error:
        known = ("type", "description", "owner", "schema", "examples", "deprecated", "retry_schedule")
        problems = problems_of(error, known=lambda place: known if len(place) == 1 else ())
        raise InputInvalid.of(problems) from error


def problems_of_type(new: NewEventType, stored: EventType | None = None) -> Iterator[Problem]:
    """What is wrong with the schema and the examples of a type; `stored` is what the catalog has of it."""
    schema = new.schema_
    if "schema_" not in new.model_fields_set and stored:
        schema = stored.latest.schema_
    try:
        # What parsers of YAML and JSON give may be deeper than the rest of the system takes.
        json_value(schema)
        json_value(new.examples)
        validator = None if schema is None else SchemaValidator(schema)
    except SchemaInvalid as error:
        yield from problems_of(error)
        return
    except ValueError as error:
        yield Problem(message=str(error), field="schema")
        return
    size = len(json.dumps(new.examples, ensure_ascii=False).encode(errors="replace"))
    if size > MAX_EXAMPLES_BYTES:
        yield Problem(message=f"have {size:,} bytes of JSON, the limit is {MAX_EXAMPLES_BYTES:,}", field="examples")
        return
    for number, example in enumerate(new.examples):
        for problem in validator.problems(example, root=f"examples[{number}]") if validator else ():
            yield Problem(message=problem.message, field=problem.field)


async def put_event_type(registry: Registry, new: NewEventType, *, force: bool = False) -> StoredType:
    """Store a type, or a new version of it; what `new` leaves out stays as it is.

    Raises InputInvalid, and SchemaIncompatible if the schema does not suit those of the version before, unless `force`.
    """
    stored = await registry.event_types.find(new.type)
    # In a thread, since a schema of 64 KB may take a second, and nothing else should wait for it.
    if problems := await asyncio.to_thread(lambda: list(problems_of_type(new, stored))):
        raise InputInvalid.of(problems)
    with change("event_type.forced" if force else "event_type.stored", new.type):
        return await registry.event_types.put(new, force=force)


async def put_event_types(
    registry: Registry, new: Iterable[NewEventType], *, force: bool = False
) -> AsyncIterator[StoredType]:
    """Store types one after the other. Those before the first that is refused are stored.

    Raises InputInvalid, which names the type that is refused.
    """
    for each in new:
        try:
            yield await put_event_type(registry, each, force=force)
        except SchemaIncompatible as error:
            problems = [Problem(message=one.message, field=one.field, place=each.type) for one in problems_of(error)]
            raise InputInvalid.of([*problems, Problem(message=FORCE, place=each.type)]) from error
        except InputInvalid as error:
            raise InputInvalid.of(problems_of(error, place=each.type)) from error


async def change_event_type(registry: Registry, name: str, details: TypeDetails) -> EventType:
    """Change those details that are given. Raises EventTypeNotFound."""
    with change("event_type.changed", name):
        return await registry.event_types.change(name, details)


async def remove_event_type(registry: Registry, name: str) -> None:
    """Remove a type with its versions. Events and subscriptions stay. Raises EventTypeNotFound."""
    with change("event_type.removed", name):
        await registry.event_types.remove(name)


async def all_event_types(registry: Registry) -> list[EventType]:
    """The whole catalog, by name."""
    found: list[EventType] = []
    while True:
        page = await registry.event_types.list(after=found[-1].type if found else "", limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found


def document_of(event_type: EventType) -> dict[str, Any]:
    """A type as JSON, as `Catalog.read` takes it."""
    return event_type.model_dump(mode="json", by_alias=True)
