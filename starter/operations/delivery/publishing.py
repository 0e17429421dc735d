"""Publishing: events from a document, handed to Temporal, and waited for."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from bellwire.client import Client
from bellwire.errors import EventInvalid
from bellwire.events import Event
from bellwire.receipts import Receipt
from bellwire.registry import Registry
from bellwire.temporal.start_times import Delay, DeliverAt, start_time
from bellwire.tenants import ALL_TENANTS
from starter.operations.documents import Item, collect, object_of
from starter.operations.problems import InputInvalid

#: Events handed to the client at a time: a multiple of what one run carries, so that progress is worth showing.
BATCH = 1_000


def read_events(items: Sequence[Item]) -> list[Event]:
    """The events of a document.

    Raises InputInvalid with the problems of every bad item. Two items with the same source and id, and other content, are bad.
    """
    first: dict[str, tuple[str, str]] = {}

    def read(item: Item) -> Event:
        event = Event.parse(object_of(item))
        place, digest = first.setdefault(event.key, (item.place, event.digest))
        if digest != event.digest:
            raise EventInvalid(
                f"id: {place} has the same source and id but other content; give each event an id of its own"
            )
        return event

    return collect(items, read)


async def unknown_tenants(registry: Registry, events: Sequence[Event]) -> list[str]:
    """The tenants of these events that no subscription was ever stored for, such as a misspelt one."""
    named = {event.tenant for event in events} - {ALL_TENANTS}
    return sorted(named - await registry.subscriptions.known_tenants(named))


def distinct(events: Sequence[Event]) -> list[Event]:
    """Each event once, in order."""
    return list({event.key: event for event in events}.values())


def delivery_time(delay: Delay | None, deliver_at: DeliverAt | None) -> datetime | None:
    """When events are to be delivered; None: at once. Raises InputInvalid."""
    try:
        return start_time(delay, deliver_at)
    except EventInvalid as error:
        field, _, message = str(error).partition(": ")
        raise InputInvalid(message, field=field) from error


async def publish(
    client: Client, events: Sequence[Event], *, deliver_at: datetime | None = None
) -> AsyncIterator[list[Receipt]]:
    """Publish distinct events in batches, and give the receipts of each batch once it is published.

    After an error, the batches so far are published. Raises EventConflict, TemporalUnavailable, NotSetUp.
    """
    for start in range(0, len(events), BATCH):
        yield await client.publish_many(events[start : start + BATCH], deliver_at=deliver_at)


def receipts_in_order(events: Sequence[Event], receipts: Sequence[Receipt]) -> list[Receipt]:
    """A receipt for each event, in their order; an event that occurs again is a duplicate."""
    by_event: dict[tuple[str, str], Receipt] = {(receipt.source, receipt.event_id): receipt for receipt in receipts}
    seen: set[str] = set()
    ordered = []
    for event in events:
        receipt = by_event[event.source, event.id]
        ordered.append(receipt.model_copy(update={"duplicate": True}) if event.key in seen else receipt)
        seen.add(event.key)
    return ordered
