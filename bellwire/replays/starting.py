"""Starts the replays that the registry holds and whose workflow was not started, while a worker runs.

A replay is stored in one transaction with its subscription, and its workflow is started after that. What a crash or an outage
keeps from starting is started here. Several workers may start the same one: its workflow id makes it one.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client

from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.replays.workflows import start_replay

log = structlog.get_logger("bellwire")

#: Seconds between two polls, and the longest delay while the registry or Temporal is unavailable.
POLL_SECONDS, MAX_DELAY = 5.0, 60.0
#: How long the operation that stored a replay has to start it.
GRACE = timedelta(seconds=2)


@asynccontextmanager
async def starting_replays(registry: Registry, client: Client, *, every: float = POLL_SECONDS) -> AsyncIterator[None]:
    """Start replays while the body runs; look for new ones every `every` seconds."""
    task = asyncio.create_task(_start_forever(registry, client, every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _start_forever(registry: Registry, client: Client, every: float) -> None:
    failures = 0
    while True:
        try:
            await start_recorded(registry, client, before=datetime.now(UTC) - GRACE)
            failures = 0
        except Exception as error:
            # Usually an outage. The replays stay in the registry, and no error may end the loop while the worker runs.
            failures += 1
            expected = isinstance(error, BellwireError)
            log.warning("replays.delayed", error=type(error).__name__, exc_info=None if expected else error)
        # Jitter, so that workers do not poll at the same time.
        await asyncio.sleep(min(every * 2 ** min(failures, 10), max(every, MAX_DELAY)) * random.uniform(0.9, 1.1))  # noqa: S311


async def start_recorded(registry: Registry, client: Client, *, before: datetime) -> int:
    """Start the replays that were stored before this time, and return their number. Raises what `registry` and `client` raise."""
    found = await registry.replays.not_started(before=before)
    for replay in found:
        await start_replay(client, replay)
        log.info("replay.started", replay=replay.id, subscription=replay.subscription_id, tenant=replay.tenant)
    return len(found)
