"""Metrics that are read from the registry at an interval, while a worker runs: backlog and disabled endpoints.

Every process that runs workflows reports the same numbers, so take the maximum over processes and not the sum.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog
from temporalio.common import MetricMeter

from bellwire.errors import BellwireError
from bellwire.registry import Registry

log = structlog.get_logger("bellwire")

#: Seconds between two reads.
READ_SECONDS = 30.0


@asynccontextmanager
async def measuring_registry(
    registry: Registry, meter: MetricMeter | None, *, every: float = READ_SECONDS
) -> AsyncIterator[None]:
    """Read the registry every `every` seconds while the body runs. Without a meter, nothing is read."""
    task = asyncio.create_task(_measure_forever(registry, meter, every)) if meter else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _measure_forever(registry: Registry, meter: MetricMeter, every: float) -> None:
    while True:
        try:
            await measure(registry, meter)
        except Exception as error:
            # The gauges keep their last values. No error may end the loop while the worker runs.
            expected = isinstance(error, BellwireError)
            log.warning("backlog.not_read", error=type(error).__name__, exc_info=None if expected else error)
        await asyncio.sleep(every)


async def measure(registry: Registry, meter: MetricMeter) -> None:
    """Read the backlog of every channel once, and set the gauges. Raises what `registry` raises."""
    unsettled = meter.create_gauge("bellwire_deliveries_unsettled", "Deliveries that are not settled, by the registry")
    oldest = meter.create_gauge_float(
        "bellwire_oldest_unsettled_age_seconds", "Age of the oldest delivery that is not settled; 0 without one"
    )
    disabled = meter.create_gauge("bellwire_endpoints_disabled", "Subscriptions that are disabled")
    now = datetime.now(UTC)
    for channel, backlog in (await registry.backlog.read()).items():
        unsettled.set(backlog.unsettled, {"channel": str(channel)})
        age = (now - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        oldest.set(max(age, 0.0), {"channel": str(channel)})
        disabled.set(backlog.disabled, {"channel": str(channel)})
