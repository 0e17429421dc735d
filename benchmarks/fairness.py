"""Fairness: the latency of a quiet tenant's events beside a loud tenant, against alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, takewhile

from bellwire.deliveries import delivery_id
from benchmarks.figures import CRITERIA, Result, quantile
from benchmarks.rig import Rig, event, rate, running_rig, subscription_id
from benchmarks.sizes import Sizes

#: Events of the loud tenant for each event of the quiet one.
TIMES = 50
#: Events in one publication of the loud tenant: so few that each queue has many tasks.
BATCH = 10
#: Publications of the loud tenant in flight at any time: a backlog that the system never finishes.
IN_FLIGHT = 100
#: Seconds until they are spread out, since they all start at once.
SETTLING = 3.0
LOUD, QUIET = "loud", "quiet"
#: The server is fair within a partition of a queue. The default is four partitions; one suffices for a small fleet.
ONE_PARTITION = ("matching.numTaskqueueReadPartitions=1", "matching.numTaskqueueWritePartitions=1")


async def fair(sizes: Sizes) -> Result:
    """The quiet tenant's p99 from publish to arrival, with the server's fairness on, and off for comparison."""
    raw: dict[str, list[float]] = {}
    ratios = {}
    for label, enabled, repeats in (("on", "true", sizes.repeats), ("off", "false", 1)):
        options = dynamic_config(f"matching.enableFairness={enabled}", *ONE_PARTITION)
        async with running_rig(server_options=options) as rig:
            for quantity, value in (await _waits(rig, sizes, repeats)).items():
                raw[f"fairness {label}: {quantity}"] = value
        alone, beside = (raw[f"fairness {label}: {situation}, ms"] for situation in ("alone", "beside"))
        ratios[label] = quantile(beside, 0.99) / quantile(alone, 0.99)
    p99s = (
        f"{situation} {quantile(raw[f'fairness on: {situation}, ms'], 0.99):,.0f} ms"
        for situation in ("alone", "beside")
    )
    return Result(
        criterion=CRITERIA["fair"],
        ratio=ratios["on"],
        raw=raw,
        notes=[
            f"p99 with fairness on: {', '.join(p99s)}; the ratio with fairness off: {ratios['off']:.3g}",
            f"{sizes.repeats} times {sizes.fair:g} s alone and beside, in turn",
            f"the loud tenant has {IN_FLIGHT} publications of {BATCH} events in flight all the time",
        ],
    )


def dynamic_config(*values: str) -> list[str]:
    return [part for value in values for part in ("--dynamic-config-value", value)]


async def _waits(rig: Rig, sizes: Sizes, repeats: int) -> dict[str, list[float]]:
    loud = await rig.subscribe(LOUD, 1, tenant=LOUD)
    quiet = await rig.subscribe(QUIET, 1, tenant=QUIET)

    async def publish_and_wait(_: int) -> None:
        await rig.ended(await rig.client.publish_many([event(loud, tenant=LOUD) for _ in range(BATCH)]))

    await rate(publish_and_wait, IN_FLIGHT, concurrency=IN_FLIGHT)
    published = BATCH * await rate(publish_and_wait, sizes.fair_tried, concurrency=IN_FLIGHT)
    alone, beside, others = list[float](), list[float](), list[float]()
    for _ in range(repeats):
        alone += (await _quiet_latencies(rig, quiet, often=published / TIMES, seconds=sizes.fair))[0]
        async with _noise(publish_and_wait):
            await asyncio.sleep(SETTLING)
            waits, loud_ones = await _quiet_latencies(rig, quiet, often=published / TIMES, seconds=sizes.fair)
        beside += waits
        others.append(loud_ones)
    return {"alone, ms": alone, "beside, ms": beside, "events/s of the loud tenant": others}


@asynccontextmanager
async def _noise(work: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
    """Repeat `work`, IN_FLIGHT at a time, until the body ends."""
    over = False

    async def repeat() -> None:
        while not over:
            await work(0)

    async with asyncio.TaskGroup() as noise:
        for _ in range(IN_FLIGHT):
            noise.create_task(repeat())
        yield
        over = True


async def _quiet_latencies(rig: Rig, kind: str, *, often: float, seconds: float) -> tuple[list[float], float]:
    """Milliseconds from publish to arrival of the quiet tenant's events, and the rate at which others arrived meanwhile."""
    began: dict[str, float] = {}

    async def publish() -> None:
        published = event(kind, tenant=QUIET)
        began[delivery_id(published.key, subscription_id(QUIET, QUIET, 0))] = time.monotonic()
        await rig.ended([await rig.client.publish(published)])

    await rig.sink.arrivals()
    start = time.monotonic()
    await steadily(publish, often=often, seconds=seconds)
    took = time.monotonic() - start
    arrived = await rig.sink.arrivals()
    return [(arrived[name] - moment) * 1000 for name, moment in began.items()], (len(arrived) - len(began)) / took


async def steadily(work: Callable[[], Awaitable[object]], *, often: float, seconds: float) -> None:
    """Start `work` `often` times a second for `seconds`, without waiting for earlier starts; then wait for all."""
    start = time.monotonic()
    async with asyncio.TaskGroup() as began:
        for moment in takewhile(lambda moment: moment < seconds, count(0.0, 1 / often)):
            await asyncio.sleep(start + moment - time.monotonic())
            began.create_task(_awaited(work))


async def _awaited(work: Callable[[], Awaitable[object]]) -> None:
    await work()
