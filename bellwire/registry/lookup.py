"""Locating: what the registry knows of an event and of one of its deliveries, for those who have no database."""

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import LookupResult
from bellwire.errors import DeliveryNotFound
from bellwire.registry import deliveries, events, settling


async def lookup(connection: AsyncConnection, source: str, event_id: str, subscription_id: str | None) -> LookupResult:
    """Raises EventNotFound or DeliveryNotFound."""
    stored = await events.stored(connection, source, event_id)
    located = LookupResult(
        event_key=stored.event.key,
        workflow_id=stored.workflow_id,
        digest=stored.digest,
        accepted_at=stored.accepted_at,
        counts=stored.counts,
    )
    if subscription_id is None:
        return located
    found = await deliveries.by_pairs(connection, [(stored.event.key, subscription_id)])
    if not found:
        raise DeliveryNotFound
    (delivery,) = found.values()
    return located.model_copy(
        update={
            "delivery": settling.grouped([delivery])[0],
            "delivery_state": delivery.state,
            "delivery_workflow_id": delivery.workflow_id,
        }
    )
