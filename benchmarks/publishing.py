"""Publishing: single `publish` calls by many callers at a time, over Temporal and over HTTP, and a sparse stream of them."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bellwire import Client, Event
from bellwire.deliveries import parse_delivery_id
from bellwire.events import uuid7
from bellwire.http.client import HttpClient
from bellwire.keys.api_keys import Scope
from benchmarks import bare
from benchmarks.figures import CRITERIA, Result, median_ratio, quantile
from benchmarks.rig import TIMEOUT, Rig, event, rate, running_rig
from benchmarks.sizes import Sizes
from benchmarks.throughput import IN_FLIGHT, PROCESSES, TENANTS, publish_many, tenants

#: Callers of `concurrent`, and of `crowd`. Each publishes one event after another.
CALLERS, CROWD = 32, 500
#: Events a second of `sparse`.
SPARSE_RATE = 50.0

#: Publishes one event.
Publish = Callable[[Event], Awaitable[object]]


async def concurrent(sizes: Sizes) -> Result:
    """Events by single calls of 32 callers, from the first call to the last arrival, against empty workflows."""
    published, empty, latencies = list[float](), list[float](), list[float]()
    async with running_rig(processes=PROCESSES) as rig:
        kind = await tenants(rig)
        publish = Client(rig.client.temporal).publish
        await _by_callers(rig, kind, publish, CALLERS * 2, CALLERS)
        for _ in range(sizes.repeats):
            events_per_second, since_call = await _by_callers(rig, kind, publish, sizes.concurrent, CALLERS)
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
        publish = Client(rig.client.temporal).publish
        await _by_callers(rig, kind, publish, CALLERS * 2, CALLERS)
        for _ in range(sizes.repeats):
            single.append((await _by_callers(rig, kind, publish, sizes.concurrent, CROWD))[0])
            many.append(await publish_many(rig, _events(kind, sizes.concurrent)))
    return Result(
        criterion=CRITERIA["crowd"],
        ratio=median_ratio(single, many),
        raw={"events/s by publish": single, "events/s by publish_many": many},
        notes=[f"{sizes.concurrent:,} events by {CROWD} callers"],
    )


async def gateway(sizes: Sizes) -> Result:
    """Events by POST from 32 keep-alive connections against as many by `publish` of 32 callers, each to the last arrival."""
    posted, published = list[float](), list[float]()
    async with running_rig(processes=PROCESSES, gateway=True, BELLWIRE_PUBLISH_RATE="0") as rig, _http(rig) as http:
        kind = await tenants(rig)
        publish = Client(rig.client.temporal).publish
        for each in (http.publish, publish):
            await _by_callers(rig, kind, each, CALLERS * 2, CALLERS)
        for _ in range(sizes.repeats):
            posted.append((await _by_callers(rig, kind, http.publish, sizes.concurrent, CALLERS))[0])
            published.append((await _by_callers(rig, kind, publish, sizes.concurrent, CALLERS))[0])
    return Result(
        criterion=CRITERIA["gateway"],
        ratio=median_ratio(posted, published),
        raw={"events/s by POST": posted, "events/s by publish": published},
        notes=[f"{sizes.concurrent:,} events from {CALLERS} connections; the gateway is one process"],
    )


async def gateway_latency(sizes: Sizes) -> Result:
    """Lone events by POST and by `publish` in turn, on an idle system."""
    posted, published = list[float](), list[float]()
    async with running_rig(gateway=True) as rig, _http(rig) as http:
        kind = await tenants(rig)
        for _ in range(3):
            await _lone(rig, kind, http.publish)
            await _lone(rig, kind, rig.client.publish)
        for _ in range(sizes.latency):
            posted.append(await _lone(rig, kind, http.publish))
            published.append(await _lone(rig, kind, rig.client.publish))
    return Result(
        criterion=CRITERIA["gateway-latency"],
        ratio=statistics.median(posted) / statistics.median(published),
        raw={"POST to arrival, ms": posted, "publish to arrival, ms": published},
        notes=[f"p99: {quantile(posted, 0.99):.0f} ms, by publish {quantile(published, 0.99):.0f} ms"],
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


@asynccontextmanager
async def _http(rig: Rig) -> AsyncIterator[HttpClient]:
    """A client of the rig's gateway, with a key of its own."""
    key = (await rig.stack.registry.api_keys.create(Scope.parse("publish"))).key
    async with await Client.connect(url=rig.stack.gateway, key=key) as client:
        yield client


async def _by_callers(rig: Rig, kind: str, publish: Publish, number: int, callers: int) -> tuple[float, list[float]]:
    """Publish `number` events, `callers` at a time; events/s until the last arrived, and ms from each call to arrival."""
    events, called = _events(kind, number), dict[str, float]()

    async def call(index: int) -> None:
        called[events[index].key] = time.monotonic()
        await publish(events[index])

    await rig.sink.arrivals()
    began = time.monotonic()
    await rate(call, number, concurrency=callers)
    arrived = await arrivals(rig, number)
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
    arrived = await arrivals(rig, number)
    return [(arrived[key] - moment) * 1000 for key, moment in called.items()]


async def _lone(rig: Rig, kind: str, publish: Publish) -> float:
    """Milliseconds from the call to the arrival of one event."""
    (lone,) = _events(kind, 1)
    await rig.sink.arrivals()
    called = time.monotonic()
    await publish(lone)
    return ((await arrivals(rig, 1))[lone.key] - called) * 1000


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


async def arrivals(rig: Rig, number: int) -> dict[str, float]:
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
