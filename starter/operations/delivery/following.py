"""Following published events: their status, waiting until they settle, cancelling them, and taking their messages back."""

from contextlib import suppress
from typing import NamedTuple

from bellwire.client import Client
from bellwire.contract import Recalled, unable_to_recall
from bellwire.errors import EventNotFound, NotRecallable, WaitTimeout
from bellwire.events import event_key
from bellwire.receipts import Status
from bellwire.registry import Registry


class EventOfTenant(NamedTuple):
    """An event that is changed."""

    source: str
    id: str
    #: None: it is not stored yet.
    tenant: str | None

    @property
    def key(self) -> str:
        return event_key(self.source, self.id)


async def find_event(registry: Registry, key: str, *, source: str | None, event_id: str | None) -> EventOfTenant:
    """The event of a key; one that is scheduled, and so not stored, by its source and id. Raises EventNotFound."""
    try:
        event = (await registry.events.get(key)).event
    except EventNotFound:
        if source is None or event_id is None or event_key(source, event_id) != key:
            raise
        return EventOfTenant(source, event_id, None)
    return EventOfTenant(event.source, event.id, event.tenant)


async def status_of(client: Client, source: str, event_id: str, *, wait: float = 0) -> Status:
    """The event's status once it has settled, or after `wait` seconds. Raises EventNotFound, EventConflict,
    TemporalUnavailable."""
    if wait:
        try:
            return await client.wait((source, event_id), timeout=wait)
        except WaitTimeout:
            pass
    return await client.status((source, event_id))


async def recall_event(
    client: Client, registry: Registry, event: EventOfTenant, subscription_id: str | None, *, wait: float | None = None
) -> Recalled | None:
    """Recall the event, and return what became of its messages; None if the recall has not ended within `wait` seconds.

    Raises NotRecallable, EventNotFound, DeliveryNotFound, TemporalUnavailable.
    """
    if unable := unable_to_recall(await registry.recalls.channels(event.key, subscription_id)):
        raise NotRecallable.of(unable)
    recalled = None
    with suppress(WaitTimeout):
        recalled = await client.recall((event.source, event.id), subscription_id, timeout=wait)
    await registry.audit_log.record("event.recalled", event.key, tenant=event.tenant)
    return recalled


async def cancel_event(client: Client, registry: Registry, event: EventOfTenant, subscription_id: str | None) -> Status:
    """Cancel what is unsettled, of one subscription or of all, and return the status right after. Raises EventNotFound,
    DeliveryNotFound, TemporalUnavailable."""
    await client.cancel((event.source, event.id), subscription_id)
    status = await client.status((event.source, event.id))
    await registry.audit_log.record("event.cancelled", event.key, tenant=event.tenant)
    return status
