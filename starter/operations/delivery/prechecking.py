"""Prechecking: how many subscriptions would match an event, without publishing it."""

from bellwire.events import Event
from bellwire.registry import Registry

#: Subscriptions that one read returns, and candidate rows that it examines, at most.
PAGE, SCAN = 1_000, 50_000
#: Matches after which counting stops. A publisher asks whether anybody listens, or roughly how many.
MAX_COUNTED = 100_000


async def count_matches(registry: Registry, event: Event) -> int:
    """The number of active subscriptions that match now, counted up to MAX_COUNTED."""
    counted, after = 0, ""
    while counted < MAX_COUNTED:
        match = await registry.matching.match(event, after=after, limit=PAGE, scan=SCAN)
        counted += len(match.found)
        if match.reached is None:
            break
        after = match.reached
    return min(counted, MAX_COUNTED)
