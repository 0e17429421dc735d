"""Presence of handlers: a worker looks which services poll for their handlers, and reports those that do not."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog
from temporalio.client import Client as Temporal

from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.targets.handler import handler_queue
from bellwire.temporal.workers import last_poll

log = structlog.get_logger("bellwire")

#: Seconds between two looks.
LOOK_SECONDS = 30.0


@asynccontextmanager
async def watching_handlers(
    registry: Registry, temporal: Temporal, *, every: float = LOOK_SECONDS
) -> AsyncIterator[None]:
    """Look every `every` seconds while the body runs."""
    task = asyncio.create_task(_watch(registry, temporal, every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(registry: Registry, temporal: Temporal, every: float) -> None:
    while True:
        try:
            await look(registry, temporal)
        except Exception as error:
            # Usually an outage. No error may end the loop while the worker runs.
            expected = isinstance(error, BellwireError)
            log.warning("handlers.unchecked", error=type(error).__name__, exc_info=None if expected else error)
        await asyncio.sleep(every * random.uniform(0.9, 1.1))  # noqa: S311 - so that workers do not look at the same time


async def look(registry: Registry, temporal: Temporal) -> None:
    """Record when each service polled last, and add an operational event for each that no longer does."""
    for service in await registry.handlers.services():
        if polled := await last_poll(temporal, handler_queue(service.service)):
            await registry.handlers.record_seen(service.service, polled)
        now = datetime.now(UTC)
        if await registry.handlers.report_absent(service.service, now=now):
            log.warning("handlers.absent", service=service.service, last_seen=service.last_seen.isoformat())
