"""Reading events: find one by its id, and show it with its deliveries and attempts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bellwire.client import Client
from bellwire.deliveries import Attempt, Delivery
from bellwire.errors import BellwireError, EventNotFound
from bellwire.receipts import Status
from bellwire.registry import Registry, StoredEvent
from bellwire.sms.receipts import SmsReceipt
from starter.operations.problems import InputInvalid

#: Seconds that Temporal has to report an event's status; after that, the registry's state is all there is.
LIVE_TIMEOUT = 3.0


@dataclass(frozen=True, kw_only=True)
class DeliveryDetails:
    """A delivery with its attempts and, for an SMS, the provider's delivery receipt."""

    delivery: Delivery
    attempts: Sequence[Attempt]
    receipt: SmsReceipt | None


@dataclass(frozen=True, kw_only=True)
class EventDetails:
    """An event as the registry has it, with the first of its deliveries."""

    stored: StoredEvent
    deliveries: Sequence[DeliveryDetails]


@dataclass(frozen=True, kw_only=True)
class LiveStatus:
    """An event's status from its run, or why Temporal did not report it."""

    status: Status | None
    reason: str = ""


async def get_event(registry: Registry, event_id: str, source: str | None = None) -> StoredEvent:
    """The event of this id. Raises EventNotFound, or InputInvalid if several sources use the id and `source` is None."""
    found = await registry.events.with_id(event_id, source=source)
    if not found:
        of = f" of {source}" if source else ""
        raise EventNotFound(
            f"no event {event_id}{of} is known; check the id and the source, and that a worker has processed it"
        )
    if len(found) > 1:
        sources = ", ".join(sorted(stored.event.source for stored in found))
        raise InputInvalid(
            f"{len(found)} events have the id {event_id}", field="source", remedy=f"name one of {sources}"
        )
    return found[0]


async def show_event(registry: Registry, event_id: str, *, source: str | None = None, limit: int = 50) -> EventDetails:
    """An event with its first `limit` deliveries. Raises EventNotFound, InputInvalid."""
    stored = await get_event(registry, event_id, source)
    deliveries = await registry.deliveries.list(event_key=stored.event.key, limit=limit)
    return EventDetails(stored=stored, deliveries=await details_of(registry, deliveries))


async def details_of(registry: Registry, deliveries: Sequence[Delivery]) -> list[DeliveryDetails]:
    """The deliveries with their attempts and receipts."""
    receipts = await registry.sms_receipts.of_deliveries(deliveries)
    return [
        DeliveryDetails(
            delivery=delivery,
            attempts=await registry.attempts.list(delivery.event_key, delivery.subscription_id),
            receipt=receipts.get(delivery.id),
        )
        for delivery in deliveries
    ]


async def live_status(connect: Callable[[], Awaitable[Client]], stored: StoredEvent) -> LiveStatus:
    """The event's status from its run, as far as Temporal reports it in time."""
    try:
        async with asyncio.timeout(LIVE_TIMEOUT):
            client = await connect()
            return LiveStatus(status=await client.status((stored.event.source, stored.event.id)))
    except (BellwireError, TimeoutError) as error:
        return LiveStatus(status=None, reason=str(error) or f"no response within {LIVE_TIMEOUT:g} s")
