"""Throughput: one event to many subscribers, many events in few calls, and events one by one."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bellwire import Client, Event
from benchmarks.figures import CRITERIA, WORKER, Result, median_ratio
from benchmarks.meters import cost_by_part, peak_memory
from benchmarks.rig import Rig, event, rate, running_rig
from benchmarks.sizes import Sizes
from starter.local.postgres import running_postgres

#: Concurrent posts of the bare loop: about as many as a worker has in flight for `fanout`, 50 of each of 25 chunks.
BARE_CONCURRENCY = 1_000
#: Workflows, or single events, in flight at a time.
IN_FLIGHT = 50
#: Processes of the worker: one for each processor, as in production. `processes` compares one and two.
PROCESSES = os.cpu_count() or 1
#: Tenants that the events are addressed to in turn; each has one matching subscription.
TENANTS = 20


async def fanout(sizes: Sizes) -> Result:
    """One event with many subscribers, from publish until its run has ended, against posting the same bodies."""
    deliveries, posts, shares = list[float](), list[float](), dict[str, list[float]]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await rig.subscribe("fanout", sizes.fanout)
        await rig.fan_out(kind)
        await rig.bare_posts(sizes.fanout, concurrency=BARE_CONCURRENCY)
        for _ in range(sizes.repeats):
            with _cpu_shares(rig, shares, sizes.fanout, "delivery"):
                _, seconds = await rig.fan_out(kind)
            deliveries.append(sizes.fanout / seconds)
            posts.append(await rig.bare_posts(sizes.fanout, concurrency=BARE_CONCURRENCY))
    return Result(
        criterion=CRITERIA["fanout"],
        ratio=median_ratio(deliveries, posts),
        raw={"deliveries/s": deliveries, "bare posts/s": posts, **shares},
        notes=[
            f"{sizes.fanout:,} subscribers; {BARE_CONCURRENCY:,} bare posts at a time; {PROCESSES} worker processes"
        ],
    )


async def bulk(sizes: Sizes) -> Result:
    """Events by publish_many, 100 a run, from the call until all runs have ended."""
    published, empty, shares = list[float](), list[float](), dict[str, list[float]]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await tenants(rig)
        await publish_many(rig, _addressed(kind, 200))
        for _ in range(sizes.repeats):
            with _cpu_shares(rig, shares, sizes.bulk, "event"):
                published.append(await publish_many(rig, _addressed(kind, sizes.bulk)))
            empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=IN_FLIGHT))
    return Result(
        criterion=CRITERIA["bulk"],
        ratio=median_ratio(published, empty),
        raw={"events/s": published, "empty workflows/s": empty, **shares},
        notes=[f"{sizes.bulk:,} events, one subscriber each, of {TENANTS} tenants in turn"],
    )


async def single(sizes: Sizes) -> Result:
    """Events by publish, a run each, from the call until the run has ended; with as many in flight on both sides."""
    published, empty, shares = list[float](), list[float](), dict[str, list[float]]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await tenants(rig)
        client = Client(rig.client.temporal, batching=False)

        async def publish(index: int) -> None:
            await rig.ended([await client.publish(event(kind, tenant=f"tenant-{index % TENANTS}"))])

        await rate(publish, IN_FLIGHT, concurrency=IN_FLIGHT)
        for _ in range(sizes.repeats):
            with _cpu_shares(rig, shares, sizes.single, "event"):
                published.append(await rate(publish, sizes.single, concurrency=IN_FLIGHT))
            empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=IN_FLIGHT))
    return Result(
        criterion=CRITERIA["single"],
        ratio=median_ratio(published, empty),
        raw={"events/s": published, "empty workflows/s": empty, **shares},
        notes=[f"{sizes.single:,} events, one subscriber each, {IN_FLIGHT} in flight"],
    )


async def processes(sizes: Sizes) -> Result:
    """One event to many, and many events in few calls, by a worker of two processes against one; the lower ratio.

    On PostgreSQL, which is recommended for several processes; once on SQLite, which allows one writer, for comparison.
    """
    raw: dict[str, list[float]] = {}
    for _ in range(max(1, sizes.repeats // 2)):
        for number in (1, 2):
            with running_postgres() as postgres:
                await _by_processes(raw, sizes, number, "PostgreSQL", BELLWIRE_REGISTRY_URL=postgres.url())
    for number in (1, 2):
        await _by_processes(raw, sizes, number, "SQLite")
    ratios = {
        (registry, load): median_ratio(*(raw[f"{registry}, {load}, {number}: deliveries/s"] for number in (2, 1)))
        for registry in ("PostgreSQL", "SQLite")
        for load in ("one event", "many events")
    }
    return Result(
        criterion=CRITERIA["processes"],
        ratio=min(ratio for (registry, _), ratio in ratios.items() if registry == "PostgreSQL"),
        raw=raw,
        notes=[
            "; ".join(f"{registry}, {load}: {ratio:.3g}" for (registry, load), ratio in ratios.items()),
            f"{sizes.processes:,} subscribers of one event; {sizes.processes:,} events of one subscriber each",
            "Temporal, the registry, receiver and publisher share the processors with the worker's processes",
        ],
    )


async def _by_processes(raw: dict[str, list[float]], sizes: Sizes, number: int, registry: str, **settings: str) -> None:
    """Measure a worker of `number` processes and add the figures to `raw`."""
    async with running_rig(processes=number, gateway=False, **settings) as rig:
        many, one = await rig.subscribe("many", sizes.processes), await tenants(rig)
        await rig.fan_out(many)
        await publish_many(rig, _addressed(one, 200))
        for _ in range(2):
            _, seconds = await rig.fan_out(many)
            raw.setdefault(f"{registry}, one event, {number}: deliveries/s", []).append(sizes.processes / seconds)
            published = await publish_many(rig, _addressed(one, sizes.processes))
            raw.setdefault(f"{registry}, many events, {number}: deliveries/s", []).append(published)
        raw.setdefault(f"{registry}, {number}: memory of all, MB", []).append(peak_memory(rig.worker_pids))


@contextmanager
def _cpu_shares(rig: Rig, shares: dict[str, list[float]], number: int, unit: str) -> Iterator[None]:
    """Add to `shares` the CPU time of each part during the body, in ms for each of its `number` units."""
    with cost_by_part(rig.parts, of_threads=WORKER) as spent:
        yield
    for part, seconds in spent.items():
        shares.setdefault(f"CPU ms per {unit}: {part}", []).append(seconds / number * 1000)


async def tenants(rig: Rig) -> str:
    """Subscribe a webhook of each of TENANTS tenants to one event type, which is returned."""
    kind = ""
    for number in range(TENANTS):
        kind = await rig.subscribe("one", 1, tenant=f"tenant-{number}")
    return kind


def _addressed(kind: str, number: int) -> list[Event]:
    return [event(kind, tenant=f"tenant-{index % TENANTS}") for index in range(number)]


async def publish_many(rig: Rig, events: Sequence[Event]) -> float:
    """Publish events and wait until their runs have ended; events/s."""
    began = time.perf_counter()
    await rig.ended(await rig.client.publish_many(events))
    return len(events) / (time.perf_counter() - began)
