"""Latency from publish to arrival: of a single event, and of healthy receivers beside others that hang."""

import asyncio
import statistics
import time

from bellwire.deliveries import delivery_id
from bellwire.events import uuid7
from benchmarks import bare
from benchmarks.figures import CRITERIA, Result, median_ratio, quantile
from benchmarks.rig import Rig, event, running_rig, subscription_id
from benchmarks.sizes import Sizes

#: One receiver of 20 hangs: 5%.
HANGING_EVERY = 20
#: Timeout of a request in seconds; with the default of 20, the benchmark only takes longer.
TIMEOUT = 5
#: Events a second of the stream, and subscribers of each event, of which one hangs.
STREAM_RATE, STREAM_FAN = 10.0, HANGING_EVERY


async def latency(sizes: Sizes) -> Result:
    """Single events on an idle system, and single bare workflows with one activity that posts, in turn."""
    bellwires, bares = list[float](), list[float]()
    async with running_rig() as rig:
        kind = await rig.subscribe("lone", 1)
        for _ in range(3):
            await _lone_event(rig, kind)
            await _lone_workflow(rig)
        for _ in range(sizes.latency):
            bellwires.append(await _lone_event(rig, kind))
            bares.append(await _lone_workflow(rig))
    return Result(
        criterion=CRITERIA["latency"],
        ratio=statistics.median(bellwires) / statistics.median(bares),
        raw={"publish to arrival, ms": bellwires, "bare workflow to arrival, ms": bares},
        notes=[f"p99: {quantile(bellwires, 0.99):.0f} ms, bare {quantile(bares, 0.99):.0f} ms"],
    )


async def _lone_event(rig: Rig, kind: str) -> float:
    began = time.monotonic()
    await rig.ended([await rig.client.publish(event(kind))])
    (arrived,) = (await rig.sink.arrivals()).values()
    return (arrived - began) * 1000


async def _lone_workflow(rig: Rig) -> float:
    name, body = f"bare-{uuid7()}", event("bench.bare").model_dump_json()
    began = time.monotonic()
    await rig.client.temporal.execute_workflow(
        bare.PostOnce.run, args=[f"{rig.sink.url}/accept/bare/0", name, body], id=name, task_queue=bare.QUEUE
    )
    (arrived,) = (await rig.sink.arrivals()).values()
    return (arrived - began) * 1000


async def slow(sizes: Sizes) -> Result:
    """The latency of healthy receivers, for an event with many subscribers and for a stream, when one of 20 hangs.

    The ratio is the worse of the two: a hanging receiver delays others in its chunk, or, by occupying the worker, later
    events.
    """
    raw: dict[str, list[float]] = {}
    repeats = max(1, sizes.repeats // 2)
    async with running_rig(BELLWIRE_WEBHOOK_TIMEOUT=str(TIMEOUT)) as rig:
        kinds = {}
        for label, treatment in {"none": _accept, "hanging": _hang_one_in_twenty}.items():
            kinds[label] = await rig.subscribe(f"many-{label}", sizes.slow, treatment=treatment, schedule=())
            kinds[f"stream-{label}"] = await rig.subscribe(
                f"stream-{label}", STREAM_FAN, treatment=treatment, schedule=()
            )
        await rig.fan_out(kinds["none"])
        await rig.sink.arrivals()
        for _ in range(repeats):
            for label in ("none", "hanging"):
                many = await _latencies(rig, kinds[label], 1, sizes.slow)
                raw.setdefault(f"one event, {label}: p99, ms", []).append(quantile(many, 0.99))
                stream = await _latencies(rig, kinds[f"stream-{label}"], sizes.stream, STREAM_FAN)
                raw.setdefault(f"stream, {label}: p99, ms", []).append(quantile(stream, 0.99))
    of_one = median_ratio(raw["one event, hanging: p99, ms"], raw["one event, none: p99, ms"])
    of_stream = median_ratio(raw["stream, hanging: p99, ms"], raw["stream, none: p99, ms"])
    return Result(
        criterion=CRITERIA["slow"],
        ratio=max(of_one, of_stream),
        raw=raw,
        notes=[
            f"one event of {sizes.slow:,}: {of_one:.3g}; a stream of {sizes.stream} events: {of_stream:.3g}",
            f"the stream: {STREAM_RATE:g} events a second to {STREAM_FAN} each; timeout {TIMEOUT} s",
        ],
    )


def _accept(_: int) -> str:
    return "accept"


def _hang_one_in_twenty(index: int) -> str:
    return "hang" if index % HANGING_EVERY == HANGING_EVERY // 2 else "accept"


async def _latencies(rig: Rig, kind: str, number: int, fan: int) -> list[float]:
    """Milliseconds until each healthy delivery arrived, for `number` events published at a steady rate."""
    began: dict[str, float] = {}
    receipts = []
    start = time.monotonic()
    for index in range(number):
        await asyncio.sleep(max(0.0, start + index / STREAM_RATE - time.monotonic()))
        published = event(kind)
        began[published.key] = time.monotonic()
        receipts.append(await rig.client.publish(published))
    await rig.ended(receipts)
    tenant, label = "bench", kind.removeprefix("bench.")
    arrived = await rig.sink.arrivals()
    ids = {
        delivery_id(key, subscription_id(tenant, label, index)): moment
        for key, moment in began.items()
        for index in range(fan)
    }
    return [(moment - ids[name]) * 1000 for name, moment in arrived.items()]
