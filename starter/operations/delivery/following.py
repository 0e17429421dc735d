"""Following published events: their status, waiting until they settle, and cancelling them."""

from bellwire.client import Client
from bellwire.errors import WaitTimeout
from bellwire.receipts import Status


async def status_of(client: Client, source: str, event_id: str, *, wait: float = 0) -> Status:
    """The event's status once it has settled, or after `wait` seconds. Raises EventNotFound, EventConflict,
    TemporalUnavailable."""
    if wait:
        try:
            return await client.wait((source, event_id), timeout=wait)
        except WaitTimeout:
            pass
    return await client.status((source, event_id))


async def cancel_event(client: Client, source: str, event_id: str, subscription_id: str | None = None) -> Status:
    """Cancel what is unsettled, of one subscription or of all, and return the status right after. Raises EventNotFound,
    DeliveryNotFound, TemporalUnavailable."""
    await client.cancel((source, event_id), subscription_id)
    return await client.status((source, event_id))
