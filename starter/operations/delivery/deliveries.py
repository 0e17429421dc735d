"""Reading deliveries, and attempting one again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bellwire.client import Client
from bellwire.deliveries import Delivery, DeliveryKey, DeliveryState, parse_delivery_id
from bellwire.errors import DeliveryNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.sms.receipts import SmsReceipt
from bellwire.targets import Channel
from starter.operations.delivery.events import DeliveryDetails, details_of, get_event
from starter.operations.problems import InputInvalid


def parse_key(delivery_id: str, *, field: str = "delivery_id") -> DeliveryKey:
    """Return the key of a delivery id. Raises InputInvalid, which names the field."""
    key = parse_delivery_id(delivery_id)
    if key is None:
        raise InputInvalid(
            f"{delivery_id} is not a valid delivery id",
            field=field,
            remedy="write it as dlv_<event key>_<subscription id>",
        )
    return key


@dataclass(frozen=True, kw_only=True)
class DeliveryPage:
    """Deliveries in order, with the delivery receipts of those that are SMS, by delivery id."""

    deliveries: Sequence[Delivery]
    #: Their events, by key.
    events: Mapping[str, Event]
    receipts: Mapping[str, SmsReceipt]


@dataclass(frozen=True, kw_only=True)
class DeliveryOfEvent:
    """A delivery and the event that it delivers."""

    event: Event
    delivery: Delivery


def next_attempt(delivery: Delivery) -> datetime | None:
    """When the next attempt is due, without jitter; None if none is scheduled."""
    if delivery.state.settled:
        return None
    due = None if delivery.delay is None else delivery.updated_at + timedelta(seconds=delivery.delay)
    return max((time for time in (due, delivery.not_before) if time), default=None)


async def list_deliveries(
    registry: Registry,
    *,
    event_id: str | None = None,
    source: str | None = None,
    subscription_id: str | None = None,
    tenant: str | None = None,
    state: DeliveryState | None = None,
    channel: Channel | None = None,
    since: datetime | None = None,
    after: str = "",
    limit: int = 100,
) -> DeliveryPage:
    """Deliveries that match every filter given, those of the newest events first. Raises EventNotFound, InputInvalid."""
    if after:
        parse_key(after, field="after")
    if source is not None and event_id is None:
        raise InputInvalid("needs an event id as well", field="source")
    found = await registry.deliveries.list(
        event_key=None if event_id is None else (await get_event(registry, event_id, source)).event.key,
        subscription_id=subscription_id,
        tenant=tenant,
        state=state,
        channel=channel,
        since=since,
        after=after,
        limit=limit,
    )
    events = await registry.events.by_keys([delivery.event_key for delivery in found])
    receipts = await registry.sms_receipts.of_deliveries(found)
    return DeliveryPage(deliveries=found, events=events, receipts=receipts)


async def get_delivery(registry: Registry, key: DeliveryKey) -> DeliveryOfEvent:
    """Raises DeliveryNotFound."""
    found = await registry.deliveries.list(event_key=key.event_key, subscription_id=key.subscription_id, limit=1)
    events = await registry.events.by_keys([key.event_key])
    if not found or key.event_key not in events:
        raise DeliveryNotFound
    return DeliveryOfEvent(event=events[key.event_key], delivery=found[0])


async def show_delivery(registry: Registry, key: DeliveryKey) -> tuple[Event, DeliveryDetails]:
    """The delivery's event, and the delivery with its attempts. Raises DeliveryNotFound."""
    found = await get_delivery(registry, key)
    (details,) = await details_of(registry, [found.delivery])
    return found.event, details


async def find_delivery(
    registry: Registry, *, event_id: str, source: str | None, subscription_id: str
) -> DeliveryOfEvent:
    """The delivery of an event for a subscription. Raises EventNotFound, DeliveryNotFound, InputInvalid."""
    event_key = (await get_event(registry, event_id, source)).event.key
    return await get_delivery(registry, DeliveryKey(event_key=event_key, subscription_id=subscription_id))


async def retry_delivery(
    client: Client, registry: Registry, found: DeliveryOfEvent, *, end_pause: bool = False, tenant: str | None = None
) -> str:
    """Attempt a delivery now: an attempt of one that waits, or a settled one again with a new schedule.

    A paused delivery is attempted only with `end_pause`. `tenant` is that of the caller, for the audit log. Returns the
    workflow id of the run that attempts it. Raises DeliveryNotFound, DeliveryPaused, TemporalUnavailable.
    """
    target = (found.event.source, found.event.id)
    workflow_id = await client.retry(target, found.delivery.subscription_id, end_pause=end_pause)
    await registry.audit_log.record("delivery.redelivered", found.delivery.id, tenant=tenant)
    return workflow_id
