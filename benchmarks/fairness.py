"""Whether a loud tenant holds up a quiet one: how long the quiet one's events take beside it, against alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, takewhile

from bellwire.deliveries import delivery_id
from benchmarks.figures import CRITERIA, Result, quantile
from benchmarks.rig import Rig, event, rate, running_rig, subscription_id
from benchmarks.sizes import Sizes

#: How many events the loud tenant publishes for each of the quiet one.
TIMES = 50
#: Its events in one publication: so few that each queue has many tasks to hand out.
BATCH = 10
#: Its publications that are under way at any time: a backlog that the system never gets to the end of.
UNDER_WAY = 100
#: Seconds until they have spread, since they all begin at once.
SETTLING = 3.0
LOUD, QUIET = "loud", "quiet"
#: The server is fair within a partition of a queue, of which it makes four unless told otherwise; one does for a small fleet.
ONE_PARTITION = ("matching.numTaskqueueReadPartitions=1", "matching.numTaskqueueWritePartitions=1")


async def fair(sizes: Sizes) -> Result:
    """The quiet tenant's p99 from publish to arrival, with the server's fairness on; and off, to compare."""
    raw: dict[str, list[float]] = {}
    ratios = {}
    for label, enabled, repeats in (("on", "true", sizes.repeats), ("off", "false", 1)):
        options = _dynamic(f"matching.enableFairness={enabled}", *ONE_PARTITION)
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
        remarks=[
            f"p99 with fairness on: {', '.join(p99s)}; the ratio with fairness off: {ratios['off']:.3g}",
            f"{sizes.repeats} times {sizes.fair:g} s alone and beside, in turn",
            f"the loud tenant has {UNDER_WAY} publications of {BATCH} events under way all the time",
        ],
    )


def _dynamic(*values: str) -> list[str]:
    return [part for value in values for part in ("--dynamic-config-value", value)]


async def _waits(rig: Rig, sizes: Sizes, repeats: int) -> dict[str, list[float]]:
    loud = await rig.subscribe(LOUD, 1, tenant=LOUD)
    quiet = await rig.subscribe(QUIET, 1, tenant=QUIET)

    async def publish_and_wait(_: int) -> None:
        await rig.ended(await rig.client.publish_many([event(loud, tenant=LOUD) for _ in range(BATCH)]))

    await rate(publish_and_wait, UNDER_WAY, concurrency=UNDER_WAY)
    published = BATCH * await rate(publish_and_wait, sizes.fair_tried, concurrency=UNDER_WAY)
    alone, beside, others = list[float](), list[float](), list[float]()
    for _ in range(repeats):
        alone += (await _rate_limited_task(rig, quiet, often=published / TIMES, seconds=sizes.fair))[0]
        async with _going_on(publish_and_wait):
            await asyncio.sleep(SETTLING)
            waits, loud_ones = await _rate_limited_task(rig, quiet, often=published / TIMES, seconds=sizes.fair)
        beside += waits
        others.append(loud_ones)
    return {"alone, ms": alone, "beside, ms": beside, "events/s of the loud one": others}


@asynccontextmanager
async def _going_on(work: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
    """UNDER_WAY of it at a time all through the body, and none any more after it."""
    over = False

    async def go_on() -> None:
        while not over:
            await work(0)

    async with asyncio.TaskGroup() as noise:
        for _ in range(UNDER_WAY):
            noise.create_task(go_on())
        yield
        over = True


async def _rate_limited_task(rig: Rig, kind: str, *, often: float, seconds: float) -> tuple[list[float], float]:
    """Milliseconds from publish to arrival of the quiet tenant's events, and how many others arrived a second meanwhile."""
    begun: dict[str, float] = {}

    async def publish() -> None:
        happened = event(kind, tenant=QUIET)
        begun[delivery_id(happened.key, subscription_id(QUIET, QUIET, 0))] = time.monotonic()
        await rig.ended([await rig.client.publish(happened)])

    await rig.sink.arrivals()
    start = time.monotonic()
    await _steadily(publish, often=often, seconds=seconds)
    took = time.monotonic() - start
    arrived = await rig.sink.arrivals()
    return [(arrived[name] - moment) * 1000 for name, moment in begun.items()], (len(arrived) - len(begun)) / took


async def _steadily(work: Callable[[], Awaitable[object]], *, often: float, seconds: float) -> None:
    """Begin `work` so often a second for so long, whether what began earlier is done or not; wait for all of it."""
    start = time.monotonic()
    async with asyncio.TaskGroup() as begun:
        for moment in takewhile(lambda moment: moment < seconds, count(0.0, 1 / often)):
            await asyncio.sleep(start + moment - time.monotonic())
            begun.create_task(_awaited(work))


async def _awaited(work: Callable[[], Awaitable[object]]) -> None:
    await work()
