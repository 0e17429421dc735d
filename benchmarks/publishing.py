"""Publishing: single `publish` calls by many callers at a time, and a sparse stream of them."""

import asyncio
import time

from bellwire import Client, Event
from bellwire.deliveries import parse_delivery_id
from bellwire.events import uuid7
from benchmarks import bare
from benchmarks.figures import CRITERIA, Result, median_ratio, quantile
from benchmarks.rig import TIMEOUT, Rig, event, rate, running_rig
from benchmarks.sizes import Sizes
from benchmarks.throughput import IN_FLIGHT, PROCESSES, TENANTS, publish_many, tenants

#: Callers of `concurrent`, and of `crowd`. Each publishes one event after another.
CALLERS, CROWD = 32, 500
#: Events a second of `sparse`.
SPARSE_RATE = 50.0


async def concurrent(sizes: Sizes) -> Result:
    """Events by single calls of 32 callers, from the first call to the last arrival, against empty workflows."""
    published, empty, latencies = list[float](), list[float](), list[float]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await tenants(rig)
        await _by_callers(rig, kind, CALLERS * 2, CALLERS)
        for _ in range(sizes.repeats):
            events_per_second, since_call = await _by_callers(rig, kind, sizes.concurrent, CALLERS)
            published.append(events_per_second)
            latencies.append(quantile(since_call, 0.5))
            empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=IN_FLIGHT))
    return Result(
        criterion=CRITERIA["concurrent"],
        ratio=median_ratio(published, empty),
        raw={"events/s": published, "empty workflows/s": empty, "call to arrival, p50, ms": latencies},
        notes=[f"{sizes.concurrent:,} events by {CALLERS} callers, one subscriber each, of {TENANTS} tenants in turn"],
    )


async def crowd(sizes: Sizes) -> Result:
    """Events by single calls of 500 callers against the same number by publish_many, each to its last arrival."""
    single, many = list[float](), list[float]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await tenants(rig)
        await _by_callers(rig, kind, CALLERS * 2, CALLERS)
        for _ in range(sizes.repeats):
            single.append((await _by_callers(rig, kind, sizes.concurrent, CROWD))[0])
            many.append(await publish_many(rig, _events(kind, sizes.concurrent)))
    return Result(
        criterion=CRITERIA["crowd"],
        ratio=median_ratio(single, many),
        raw={"events/s by publish": single, "events/s by publish_many": many},
        notes=[f"{sizes.concurrent:,} events by {CROWD} callers"],
    )


async def sparse(sizes: Sizes) -> Result:
    """The latency of a stream of single events, against lone bare workflows with one activity that posts."""
    streams, bares = list[float](), list[float]()
    async with running_rig() as rig:
        kind = await tenants(rig)
        await _stream(rig, kind, 20)
        for _ in range(max(1, sizes.repeats // 2)):
            streams.append(quantile(await _stream(rig, kind, sizes.sparse), 0.99))
            bares.append(quantile([await _bare(rig) for _ in range(sizes.latency)], 0.5))
    return Result(
        criterion=CRITERIA["sparse"],
        ratio=median_ratio(streams, bares),
        raw={"call to arrival, p99, ms": streams, "idle bare workflow to arrival, p50, ms": bares},
        notes=[f"{sizes.sparse:,} events, {SPARSE_RATE:g} a second"],
    )


def _events(kind: str, number: int) -> list[Event]:
    return [event(kind, tenant=f"tenant-{index % TENANTS}") for index in range(number)]


async def _by_callers(rig: Rig, kind: str, number: int, callers: int) -> tuple[float, list[float]]:
    """Publish `number` events, `callers` at a time; events/s until the last arrived, and ms from each call to arrival."""
    client, events, called = Client(rig.client.temporal), _events(kind, number), dict[str, float]()

    async def publish(index: int) -> None:
        called[events[index].key] = time.monotonic()
        await client.publish(events[index])

    await rig.sink.arrivals()
    began = time.monotonic()
    await rate(publish, number, concurrency=callers)
    arrived = await _arrivals(rig, number)
    latencies = sorted((arrived[key] - moment) * 1000 for key, moment in called.items())
    return number / (max(arrived.values()) - began), latencies


async def _stream(rig: Rig, kind: str, number: int) -> list[float]:
    """Publish `number` events at SPARSE_RATE, each by a call of its own; ms from each call to its arrival."""
    events, called, calls = _events(kind, number), dict[str, float](), list[asyncio.Task[object]]()
    await rig.sink.arrivals()
    start = time.monotonic()
    for index, each in enumerate(events):
        await asyncio.sleep(max(0.0, start + index / SPARSE_RATE - time.monotonic()))
        called[each.key] = time.monotonic()
        calls.append(asyncio.create_task(rig.client.publish(each)))
    await asyncio.gather(*calls)
    arrived = await _arrivals(rig, number)
    return [(arrived[key] - moment) * 1000 for key, moment in called.items()]


async def _bare(rig: Rig) -> float:
    """Milliseconds from the start of a bare workflow to the arrival of its post."""
    name, body = f"bare-{uuid7()}", event("bench.bare").model_dump_json()
    await rig.sink.arrivals()
    began = time.monotonic()
    await rig.client.temporal.execute_workflow(
        bare.PostOnce.run, args=[f"{rig.sink.url}/accept/bare/0", name, body], id=name, task_queue=bare.QUEUE
    )
    (arrived,) = (await rig.sink.arrivals()).values()
    return (arrived - began) * 1000


async def _arrivals(rig: Rig, number: int) -> dict[str, float]:
    """When each of `number` events with one subscriber first arrived, by event key."""
    arrived: dict[str, float] = {}
    async with asyncio.timeout(TIMEOUT):
        while len(arrived) < number:
            await asyncio.sleep(0.02)
            for name, moment in (await rig.sink.arrivals()).items():
                key = parse_delivery_id(name)
                assert key, name
                arrived.setdefault(key.event_key, moment)
    return arrived
