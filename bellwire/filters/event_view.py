"""EventView: what filters read of an event, prepared once for all filters that are tried on it."""

from collections.abc import Iterable
from functools import cached_property
from typing import Self

from pydantic import JsonValue

from bellwire.events import Event
from bellwire.filters.data import DataSize, size_of
from bellwire.formats.timestamps import format_timestamp


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
        return read_values(self._event, [*self._event.__dict__, *(self._event.__pydantic_extra__ or ())])

    @cached_property
    def given_values(self) -> dict[str, str | int | bool]:
        """The same without `time` if the publisher gave none. An event that was stored or sent has always one."""
        if "time" in self._event.model_fields_set:
            return self.values
        return {name: value for name, value in self.values.items() if name != "time"}

    @cached_property
    def texts(self) -> dict[str, str]:
        """The attributes that are set, in their canonical string form (CloudEvents "Type System")."""
        return {
            name: value if type(value) is str else str(value).lower()  # true, false, or digits
            for name, value in self.values.items()
        }

    @property
    def data(self) -> JsonValue:
        return self._event.data

    @cached_property
    def data_size(self) -> DataSize:
        return size_of(self._event.data)


def read_values(event: Event, names: Iterable[str]) -> dict[str, str | int | bool]:
    """Those of the named attributes that are set, as CloudEvents types them."""
    attributes, extensions, found = event.__dict__, event.__pydantic_extra__ or {}, {}
    for name in names:
        value = attributes.get(name)
        if value is None:
            value = extensions.get(name)
        if value is not None and name != "data":
            found[name] = value if name != "time" else format_timestamp(value)
    return found
