"""Catalog: checks events by their types before they are published."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import TypeAdapter, ValidationError

from bellwire.catalog.event_types import EventType, TypeVersion, version_in
from bellwire.catalog.validating import DataProblem, SchemaValidator
from bellwire.errors import EventInvalid, SchemaInvalid, fields_in_error
from bellwire.events import Event

#: What becomes of events whose type the catalog does not have.
UnknownTypes = Literal["allow", "refuse"]

_DOCUMENT: TypeAdapter[tuple[EventType, ...]] = TypeAdapter(tuple[EventType, ...])


class CheckedType:
    """An event type with its validators, which are made when they are first needed."""

    def __init__(self, event_type: EventType) -> None:
        self.event_type = event_type
        self._validators: dict[int, SchemaValidator | None] = {}

    def problems(self, event: Event) -> Sequence[DataProblem]:
        """What is wrong with the event's data, by the version that its `dataschema` names, or else by the latest."""
        version = self._version(event)
        if version is None:
            named = version_in(event.dataschema, event.type)
            latest = self.event_type.latest.version
            return [DataProblem("dataschema", f"{event.type} has no version {named}; the latest is {latest}")]
        if version.version not in self._validators:
            schema = version.schema_
            self._validators[version.version] = None if schema is None else SchemaValidator(schema)
        validator = self._validators[version.version]
        return validator.problems(event.data) if validator else ()

    def is_prepared(self, event: Event) -> bool:
        """Whether the validator for this event was made; making one may take a second."""
        version = self._version(event)
        return version is None or version.version in self._validators

    def _version(self, event: Event) -> TypeVersion | None:
        named = version_in(event.dataschema, event.type)
        return self.event_type.latest if named is None else self.event_type.version(named)


class Catalog:
    """Event types by name, for `Client.connect(catalog=…)`.

    ```python
    catalog = Catalog.read("event-types.json")  # written by `python -m starter types list --json`
    client = await Client.connect(catalog=catalog)
    ```
    """

    def __init__(self, types: Iterable[EventType], *, unknown_types: UnknownTypes = "allow") -> None:
        self._types = {each.type: CheckedType(each) for each in types}
        self._unknown_types = unknown_types

    @classmethod
    def read(cls, file: str | Path, *, unknown_types: UnknownTypes = "allow") -> Self:
        """The catalog in a file that `python -m starter types list --json` wrote. Raises SchemaInvalid, OSError."""
        return cls.of(json.loads(Path(file).read_text(encoding="utf-8")), unknown_types=unknown_types)

    @classmethod
    def of(cls, document: object, *, unknown_types: UnknownTypes = "allow") -> Self:
        """The catalog of such a document, or of a page of `GET /v1/event-types`. Raises SchemaInvalid."""
        if isinstance(document, Mapping) and "items" in document:
            document = document["items"]
        try:
            return cls(_DOCUMENT.validate_python(document), unknown_types=unknown_types)
        except ValidationError as error:
            raise SchemaInvalid(fields_in_error(error)) from None

    def check(self, event: Event, *, place: str = "") -> None:
        """Raises EventInvalid, which points into the data: `data.items[3].price: is not of type "number"`.

        `place` is that of the event in an input of many.
        """
        if problems := self.problems(event):
            text = "; ".join(map(str, problems))
            raise EventInvalid(f"{place}: {text}" if place else text)

    def deprecation(self, event_type: str) -> str | None:
        """Why a type is deprecated, and what to use instead; None if it is not."""
        known = self._types.get(event_type)
        return None if known is None else known.event_type.deprecated

    def problems(self, event: Event) -> Sequence[DataProblem]:
        """What is wrong with an event, each problem at its place; empty if it is valid."""
        if (known := self._types.get(event.type)) is not None:
            return known.problems(event)
        return [unknown_type(event.type)] if self._unknown_types == "refuse" else ()


def unknown_type(name: str) -> DataProblem:
    """The problem of a type that the catalog does not have."""
    return DataProblem("type", f"{name[:80]} is not in the catalog; `python -m starter types list` lists the types")
