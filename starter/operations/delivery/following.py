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


async def cancel_event(client: Client, source: str, event_id: str) -> Status:
    """Cancel what is unsettled, and return the status right after. Raises EventNotFound, TemporalUnavailable."""
    await client.cancel((source, event_id))
    return await client.status((source, event_id))
