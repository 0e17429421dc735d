"""Controlling the deliveries of one event while it runs: pause, resume and cancel."""

from dataclasses import dataclass

from bellwire.client import Client
from bellwire.contract import Action
from bellwire.errors import DeliveryNotFound
from bellwire.registry import Registry, StoredEvent
from starter.operations.delivery.events import get_event


@dataclass(frozen=True, kw_only=True)
class EventChange:
    """What an action on an event has changed."""

    stored: StoredEvent
    #: Deliveries that it changed; None for a cancellation of the whole event, which goes on in the background.
    deliveries: int | None
    #: Pages of a large event that it was forwarded to; their deliveries are not counted.
    pages: int = 0


async def find_event(
    registry: Registry, event_id: str, *, source: str | None, subscription_id: str | None
) -> tuple[StoredEvent, list[str | None]]:
    """The event, and which subscriptions an action must name: None is the event's own workflow, with all its pages.

    Deliveries that were redelivered have workflows of their own. Raises EventNotFound, InputInvalid.
    """
    stored = await get_event(registry, event_id, source)
    if subscription_id is not None:
        return stored, [subscription_id]
    return stored, [None, *await registry.deliveries.redelivering(stored.event.key)]


#: Entries of the audit log.
_AUDITED = {Action.PAUSE: "event.paused", Action.RESUME: "event.resumed", Action.CANCEL: "event.cancelled"}


async def control(
    client: Client, registry: Registry, action: Action, stored: StoredEvent, subscription_ids: list[str | None]
) -> EventChange:
    """Pause, resume or cancel. Raises DeliveryNotFound if the named subscription has no open delivery; TemporalUnavailable."""
    reference = (stored.event.source, stored.event.id)
    act = {Action.PAUSE: client.pause, Action.RESUME: client.resume}
    deliveries: int | None = 0
    pages = 0
    for subscription_id in subscription_ids:
        try:
            if action is Action.CANCEL:
                await client.cancel(reference, subscription_id)
                deliveries = None
            else:
                result = await act[action](reference, subscription_id)
                deliveries, pages = (deliveries or 0) + result.deliveries, pages + result.forwarded
        except DeliveryNotFound:
            if len(subscription_ids) == 1:
                raise
            # A redelivery that has settled meanwhile.
    await registry.audit_log.record(_AUDITED[action], stored.event.key, tenant=stored.event.tenant)
    return EventChange(stored=stored, deliveries=deliveries, pages=pages)
