"""Announcing: publishes what tenants are to be told about their subscriptions, which the registry holds until it is.

Several workers may publish the same announcement: its id makes it one event.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from bellwire.client import Client
from bellwire.errors import BellwireError, EventConflict
from bellwire.registry import Registry

log = structlog.get_logger("bellwire")

#: Seconds between two looks, and the longest pause while registry or Temporal is away.
LOOK_SECONDS, MAX_PAUSE = 5.0, 60.0
#: Announcements that one look reads.
AT_A_TIME = 100


@asynccontextmanager
async def publishing_operational_events(
    registry: Registry, client: Client, *, every: float = LOOK_SECONDS
) -> AsyncIterator[None]:
    """Publish announcements while the body runs, looking for new ones every `every` seconds."""
    task = asyncio.create_task(_announce(registry, client, every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _announce(registry: Registry, client: Client, every: float) -> None:
    failures = 0
    while True:
        try:
            while await claim_attempt(registry, client) == AT_A_TIME:
                pass
            failures = 0
        except Exception as error:
            # An outage, mostly. They stay in the registry; no fault may end the loop while the worker goes on.
            failures += 1
            expected = isinstance(error, BellwireError)
            log.warning("announcements.delayed", error=type(error).__name__, exc_info=None if expected else error)
        # Not all workers at the same moment.
        await asyncio.sleep(min(every * 2 ** min(failures, 10), max(every, MAX_PAUSE)) * random.uniform(0.9, 1.1))  # noqa: S311


async def claim_attempt(registry: Registry, client: Client) -> int:
    """Publish the first announcements and forget them; how many they were. Raises what either raises, having lost nothing."""
    events = await registry.operational_events.list(limit=AT_A_TIME)
    for event in events:
        try:
            receipt = await client.publish(event)
        except EventConflict:
            # Somebody else has used its source and id for something else; it will never go.
            log.error("announcement.in_conflict", event_id=event.id)  # noqa: TRY400 - the message has it all
        else:
            log.info("announcement.published", event_id=event.id, event_type=event.type, workflow=receipt.workflow_id)
        await registry.operational_events.remove([event.id])
    return len(events)
