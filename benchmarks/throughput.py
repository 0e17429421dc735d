"""How much a second: one event to many, many events in few calls, and events one by one."""

import time
from collections.abc import Sequence

from bellwire import Event
from benchmarks.figures import CRITERIA, Result, median_ratio
from benchmarks.rig import Rig, event, rate, running_rig
from benchmarks.sizes import Sizes

#: Posts of the bare loop at a time: as many as a worker makes with the default settings, 20 activities of 50 attempts.
BARE_CONCURRENCY = 1_000
#: Workflows, or events one by one, that are under way at a time.
UNDER_WAY = 50
#: Tenants that the events are addressed to in turn; each has the one subscription that wants them.
TENANTS = 20


async def fanout(sizes: Sizes) -> Result:
    """One event with many subscribers, from publish until its run has ended, against posting the same bodies."""
    deliveries, posts = list[float](), list[float]()
    async with running_rig() as rig:
        kind = await rig.subscribe("fanout", sizes.fanout)
        await rig.fan_out(kind)
        await rig.bare_posts(sizes.fanout, concurrency=BARE_CONCURRENCY)
        for _ in range(sizes.repeats):
            _, seconds = await rig.fan_out(kind)
            deliveries.append(sizes.fanout / seconds)
            posts.append(await rig.bare_posts(sizes.fanout, concurrency=BARE_CONCURRENCY))
    return Result(
        criterion=CRITERIA["fanout"],
        ratio=median_ratio(deliveries, posts),
        raw={"deliveries/s": deliveries, "bare posts/s": posts},
        remarks=[f"{sizes.fanout:,} subscribers; {BARE_CONCURRENCY:,} bare posts at a time"],
    )


async def bulk(sizes: Sizes) -> Result:
    """Events by publish_many, 100 a run, from the call until all runs have ended."""
    published, empty = list[float](), list[float]()
    async with running_rig() as rig:
        kind = await _tenants(rig)
        await _publish_many(rig, _addressed(kind, 200))
        for _ in range(sizes.repeats):
            published.append(await _publish_many(rig, _addressed(kind, sizes.bulk)))
            empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=UNDER_WAY))
    return Result(
        criterion=CRITERIA["bulk"],
        ratio=median_ratio(published, empty),
        raw={"events/s": published, "empty workflows/s": empty},
        remarks=[f"{sizes.bulk:,} events, one subscriber each, of {TENANTS} tenants in turn"],
    )


async def single(sizes: Sizes) -> Result:
    """Events by publish, a run each, from the call until the run has ended; both sides with as many under way."""
    published, empty = list[float](), list[float]()
    async with running_rig() as rig:
        kind = await _tenants(rig)

        async def publish(index: int) -> None:
            await rig.ended([await rig.client.publish(event(kind, tenant=f"tenant-{index % TENANTS}"))])

        await rate(publish, UNDER_WAY, concurrency=UNDER_WAY)
        for _ in range(sizes.repeats):
            published.append(await rate(publish, sizes.single, concurrency=UNDER_WAY))
            empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=UNDER_WAY))
    return Result(
        criterion=CRITERIA["single"],
        ratio=median_ratio(published, empty),
        raw={"events/s": published, "empty workflows/s": empty},
        remarks=[f"{sizes.single:,} events, one subscriber each, {UNDER_WAY} under way"],
    )


async def _tenants(rig: Rig) -> str:
    kind = ""
    for number in range(TENANTS):
        kind = await rig.subscribe("one", 1, tenant=f"tenant-{number}")
    return kind


def _addressed(kind: str, number: int) -> list[Event]:
    return [event(kind, tenant=f"tenant-{index % TENANTS}") for index in range(number)]


async def _publish_many(rig: Rig, events: Sequence[Event]) -> float:
    begun = time.perf_counter()
    await rig.ended(await rig.client.publish_many(events))
    return len(events) / (time.perf_counter() - begun)
