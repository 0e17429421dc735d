"""Reading deliveries, and attempting one again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bellwire.client import Client
from bellwire.deliveries import Delivery, DeliveryState
from bellwire.errors import DeliveryNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.sms.receipts import SmsReceipt
from bellwire.targets import Channel
from starter.operations.delivery.events import DeliveryDetails, details_of, get_event
from starter.operations.problems import InputInvalid

_DELIVERY_ID = re.compile(r"dlv_([a-z2-7]{26})_([A-Za-z0-9][A-Za-z0-9_-]{0,62})")


@dataclass(frozen=True, kw_only=True)
class DeliveryKey:
    """What a delivery's id consists of."""

    event_key: str
    subscription_id: str

    @classmethod
    def parse(cls, delivery_id: str, *, field: str = "delivery_id") -> "DeliveryKey":
        """Raises InputInvalid, which names the field."""
        found = _DELIVERY_ID.fullmatch(delivery_id)
        if not found:
            raise InputInvalid(
                f"{delivery_id} is not a valid delivery id",
                field=field,
                remedy="write it as dlv_<event key>_<subscription id>",
            )
        return cls(event_key=found[1], subscription_id=found[2])


@dataclass(frozen=True, kw_only=True)
class DeliveryPage:
    """Deliveries in order, with the delivery receipts of those that are SMS, by delivery id."""

    deliveries: Sequence[Delivery]
    receipts: Mapping[str, SmsReceipt]


@dataclass(frozen=True, kw_only=True)
class DeliveryOfEvent:
    """A delivery and the event that it delivers."""

    event: Event
    delivery: Delivery


async def list_deliveries(
    registry: Registry,
    *,
    event_id: str | None = None,
    source: str | None = None,
    subscription_id: str | None = None,
    tenant: str | None = None,
    state: DeliveryState | None = None,
    channel: Channel | None = None,
    after: str = "",
    limit: int = 100,
) -> DeliveryPage:
    """Deliveries that match every filter given. Raises EventNotFound, InputInvalid."""
    if after:
        DeliveryKey.parse(after, field="after")
    if source is not None and event_id is None:
        raise InputInvalid("needs an event id as well", field="source")
    found = await registry.deliveries.list(
        event_key=None if event_id is None else (await get_event(registry, event_id, source)).event.key,
        subscription_id=subscription_id,
        tenant=tenant,
        state=state,
        channel=channel,
        after=after,
        limit=limit,
    )
    return DeliveryPage(deliveries=found, receipts=await registry.sms_receipts.of_deliveries(found))


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


async def retry_delivery(client: Client, found: DeliveryOfEvent) -> str:
    """Attempt a delivery now: the next attempt of one that waits, or a settled one again with a new schedule.

    Returns the workflow id of the run that attempts it. Raises DeliveryNotFound, TemporalUnavailable.
    """
    return await client.retry((found.event.source, found.event.id), found.delivery.subscription_id)
