"""EventType: a type of events in the catalog, with a version for each schema that its data has had."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue

from bellwire.models import Payload, StrictInput
from bellwire.subscriptions import RetrySchedule

#: Bytes of JSON of the examples of one version together.
MAX_EXAMPLES_BYTES = 256 * 1024

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.|$)){0,255}")
#: The end of a `dataschema` that names a version of a type.
_VERSION_OF_SCHEMA = re.compile(r"/event-types/([^/?#]+)/versions/([1-9][0-9]{0,5})(?:/schema)?")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "must be dotted words of letters, digits, dashes and underscores, such as order.paid, at most 256 characters"
        )
    return value


TypeName = Annotated[str, AfterValidator(_name)]
#: A JSON Schema; an object, since `true` and `false` describe nothing.
Schema = dict[str, Any]


class TypeVersion(Payload):
    """One version of the schema of an event type's data. It never changes."""

    #: Counts from 1.
    version: int
    #: JSON Schema 2020-12 of `data`; None: any data.
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    #: Values of `data` that are valid.
    examples: tuple[JsonValue, ...] = ()
    created_at: datetime


class EventType(Payload):
    """A type of events in the catalog."""

    #: The `type` of its events, such as order.paid.
    type: str
    description: str = ""
    #: Who answers for it: a team, or an address.
    owner: str = ""
    #: Why it should no longer be used, and what to use instead; None: it is not deprecated.
    deprecated: str | None = None
    #: Seconds before each further attempt, for subscriptions without a schedule of their own; None: the channel's.
    retry_schedule: tuple[float, ...] | None = None
    #: Oldest first; at least one.
    versions: tuple[TypeVersion, ...]
    created_at: datetime
    updated_at: datetime

    @property
    def latest(self) -> TypeVersion:
        return self.versions[-1]

    def version(self, number: int) -> TypeVersion | None:
        return next((one for one in self.versions if one.version == number), None)


class TypeDetails(StrictInput):
    """What can be changed of a type without a new version."""

    description: Annotated[str, Field(max_length=10_000)] = ""
    owner: Annotated[str, Field(max_length=200)] = ""
    deprecated: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    retry_schedule: RetrySchedule | None = None


class NewVersion(StrictInput):
    """A version to add to a type."""

    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    examples: Annotated[tuple[JsonValue, ...], Field(max_length=20)] = ()


class NewEventType(TypeDetails, NewVersion):
    """A type to add to the catalog, or a version to add to one that the catalog has."""

    type: TypeName


def version_in(dataschema: str | None, type_name: str) -> int | None:
    """The version that an event's `dataschema` names: …/event-types/order.paid/versions/2. None if it names none of this type."""
    found = _VERSION_OF_SCHEMA.search(dataschema) if dataschema else None
    if found is None or found.end() != len(dataschema or "") or found[1] != type_name:
        return None
    return int(found[2])
