"""EventView: what filters read of an event, prepared once for all filters that are tried on it."""

from functools import cached_property
from typing import Self

from pydantic import JsonValue

from bellwire.events import Event


class EventView:
    """The attributes and the data of an event."""

    def __init__(self, event: Event) -> None:
        self._event = event

    @classmethod
    def of(cls, event: "Event | EventView") -> "Self | EventView":
        return event if isinstance(event, EventView) else cls(event)

    @cached_property
    def values(self) -> dict[str, str | int | bool]:
        """The attributes that are set, as CloudEvents types them. URIs and times are strings."""
        found = self._event.model_dump(mode="json", exclude={"data"})
        return {name: value for name, value in found.items() if value is not None}

    @cached_property
    def texts(self) -> dict[str, str]:
        """The attributes that are set, in their canonical string form (CloudEvents "Type System")."""
        return {name: value if isinstance(value, str) else canonical(value) for name, value in self.values.items()}

    @property
    def given(self) -> frozenset[str]:
        """The attributes that the publisher gave, or that were stored: without defaults of a new event."""
        return frozenset(self._event.model_fields_set)

    @property
    def data(self) -> JsonValue:
        return self._event.data


def canonical(value: int | bool) -> str:
    """The canonical string of an integer or a boolean."""
    return str(value).lower() if isinstance(value, bool) else str(value)
