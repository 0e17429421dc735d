"""Publication: the events that one Notify workflow delivers."""

from collections.abc import AsyncIterable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes

from bellwire import contract
from bellwire.errors import EventConflict
from bellwire.events import Event
from bellwire.formats.json_sizes import cut_to_json, json_bytes
from bellwire.models import Payload

#: Maximum bytes of one search attribute as it is sent. The server accepts 2,048.
MAX_ATTRIBUTE_BYTES = 2_000
#: Keys that ScheduledKeys keeps, about 1 MB.
MAX_SCHEDULED_KEYS = 10_000


class Publication(Payload):
    events: tuple[Event, ...]

    @property
    def workflow_id(self) -> str:
        if len(self.events) == 1:
            return contract.event_workflow_id(self.events[0].source, self.events[0].id)
        return contract.batch_workflow_id(self.events)

    @property
    def digest(self) -> str:
        return contract.publication_digest(self.events)

    @property
    def summary(self) -> str:
        """What the Temporal UI shows beside the workflow, at most 200 bytes of JSON."""
        first, more = self.events[0], len(self.events) - 1
        text = f"{first.type} from {first.source}" + (f" and {more} more" if more else "")
        return cut_to_json(text, 200)

    @property
    def priority(self) -> Priority:
        """Servers with fairness start as many events of each tenant: a run of a hundred counts as much as a hundred runs."""
        return Priority(fairness_key=self.events[0].tenant, fairness_weight=1 / len(self.events))

    @property
    def search_attributes(self) -> TypedSearchAttributes:
        """The search attributes of the workflow: as many ids and types as the server accepts in one value."""
        pairs: list[SearchAttributePair[Any]] = [
            SearchAttributePair(key, fitting)
            for key, values in (
                (contract.EVENT_TYPE, [event.type for event in self.events]),
                (contract.EVENT_ID, [event.id for event in self.events]),
            )
            if (fitting := _fitting(values))
        ]
        tenants = {event.tenant for event in self.events}
        if len(tenants) == 1:
            pairs.append(SearchAttributePair(contract.TENANT, tenants.pop()))
        return TypedSearchAttributes(pairs)


def one_event(event: object) -> Event:
    """The argument of `publish`. Raises TypeError if it is no Event."""
    if not isinstance(event, Event):
        raise TypeError(f"publish takes an Event, not {_kind(event)}; {_remedy(event, 'publish_many')}")
    return event


def many_events(events: object) -> list[Event]:
    """The argument of `publish_many`. Raises TypeError, which names the first item that is no Event."""
    if isinstance(events, Event):
        raise TypeError("publish_many takes a list of events, not one event; write publish(event)")
    if isinstance(events, str | bytes | Mapping) or not isinstance(events, Iterable):
        raise TypeError(f"publish_many takes a list of events, not {_kind(events)}; {_remedy(events, 'publish_many')}")
    found = list(events)
    for position, event in enumerate(found):
        if not isinstance(event, Event):
            raise TypeError(f"events[{position}] is {_kind(event)}, not an Event; {_remedy(event, 'publish_many')}")
    return found


def _kind(value: object) -> str:
    """What the value is, without its content, which may be private."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _remedy(value: object, many: str) -> str:
    if isinstance(value, Mapping | str | bytes):
        return "write Event(source=…, type=…, data=…), or Event.parse(…) for a CloudEvent as JSON"
    if isinstance(value, Iterable):
        return f"write {many}(events) for several"
    if isinstance(value, AsyncIterable):
        return "collect them in a list first"
    return "write Event(source=…, type=…, data=…)"


def encoded_size(event: Event) -> int:
    """Bytes of an event as the payload converter writes it."""
    return len(event.model_dump_json().encode())


class ScheduledKeys:
    """The keys of the last events that a client has published for later. They are published alone: a workflow of several events
    does not see one that waits."""

    def __init__(self, *, maximum: int = MAX_SCHEDULED_KEYS) -> None:
        self._maximum = maximum
        self._keys: dict[str, None] = {}

    def add(self, events: Iterable[Event]) -> None:
        self._keys |= dict.fromkeys(event.key for event in events)
        while len(self._keys) > self._maximum:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: object) -> bool:
        return key in self._keys


def publications(events: Sequence[Event], *, alone: Container[str] = ()) -> Iterator[Publication]:
    """Divide events into publications of up to MAX_EVENTS and MAX_PUBLICATION_BYTES, and of one event each for the keys `alone`.
    Repeated events are included once.

    The same events in the same order make the same publications, so that publishing them again starts nothing. Raises
    EventConflict, before the first is yielded, if two events share (source, id) and differ.
    """
    distinct = list(_distinct(events))
    yield from (Publication(events=(event,)) for event in distinct if event.key in alone)
    yield from _divided(event for event in distinct if event.key not in alone)


def _distinct(events: Iterable[Event]) -> Iterator[Event]:
    digests: dict[str, str] = {}
    for event in events:
        if (known := digests.get(event.key)) is None:
            digests[event.key] = event.digest
            yield event
        elif known != event.digest:
            raise EventConflict(
                f"two events have source {event.source} and id {event.id}, but differ; give each event its own id"
            )


def _divided(events: Iterable[Event]) -> Iterator[Publication]:
    batch: list[Event] = []
    size = 0
    for event in events:
        bytes_of_event = encoded_size(event)
        if batch and (len(batch) == contract.MAX_EVENTS or size + bytes_of_event > contract.MAX_PUBLICATION_BYTES):
            yield Publication(events=tuple(batch))
            batch, size = [], 0
        batch.append(event)
        size += bytes_of_event
    if batch:
        yield Publication(events=tuple(batch))


def _fitting(values: Iterable[str]) -> list[str]:
    """Those of the distinct values that fit. An id of 256 emoji alone is too long, so such an event is found by its workflow."""
    fitting, size = [], json_bytes([])
    for value in dict.fromkeys(values):
        more = json_bytes(value, ascii_only=True) + 1
        if size + more <= MAX_ATTRIBUTE_BYTES:
            fitting.append(value)
            size += more
    return fitting
