"""The outbox: events that a service inserts in transactions of its own, published by a relay."""

import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from bellwire import Event
from bellwire.outbox import create_table_async, insert_async
from benchmarks import publishing
from benchmarks.figures import CRITERIA, Result, median_ratio
from benchmarks.meters import cpu_seconds
from benchmarks.rig import Rig, event, rate, running_rig
from benchmarks.sizes import Sizes
from benchmarks.throughput import IN_FLIGHT, PROCESSES, TENANTS, tenants
from starter.checkout import CHECKOUT
from starter.local.postgres import running_postgres
from starter.local.processes import Process, environment_without

#: Connections of the service, and events of one of its transactions.
CONNECTIONS, PER_TRANSACTION = 8, 10
#: Subjects of the events. Those of one are published in order.
SUBJECTS = 500


async def outbox(sizes: Sizes) -> Result:
    """Events that a service inserts into PostgreSQL, from the first insert to the last arrival, against empty workflows."""
    published, inserted, empty, cpu = list[float](), list[float](), list[float](), list[float]()
    with running_postgres() as postgres:
        url = postgres.url()
        async with (
            running_rig(processes=PROCESSES) as rig,
            asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool,
        ):
            async with pool.acquire() as connection:
                await create_table_async(connection)
            kind = await tenants(rig)
            async with _relay(rig, url) as relay:
                await _publish(rig, pool, _events(kind, min(200, sizes.outbox)))
                for _ in range(sizes.repeats):
                    spent = cpu_seconds([relay.pid])
                    inserts, arrivals = await _publish(rig, pool, _events(kind, sizes.outbox))
                    cpu.append((cpu_seconds([relay.pid]) - spent) / sizes.outbox * 1000)
                    inserted.append(inserts)
                    published.append(arrivals)
                    empty.append(await rate(rig.empty_workflow, sizes.single, concurrency=IN_FLIGHT))
    return Result(
        criterion=CRITERIA["outbox"],
        ratio=median_ratio(published, empty),
        raw={
            "events/s": published,
            "empty workflows/s": empty,
            "inserted events/s": inserted,
            "CPU ms per event: relay": cpu,
        },
        notes=[
            f"{sizes.outbox:,} events, {PER_TRANSACTION} a transaction, {CONNECTIONS} connections, {SUBJECTS} subjects; one relay"
        ],
    )


def _events(kind: str, number: int) -> list[Event]:
    return [
        event(kind, tenant=f"tenant-{index % TENANTS}", subject=f"order-{index % SUBJECTS}") for index in range(number)
    ]


@asynccontextmanager
async def _relay(rig: Rig, url: str) -> AsyncIterator[Process]:
    """A relay that publishes the outbox at `url`."""
    process = await Process.start(
        "relay",
        (sys.executable, "-m", "starter", "relay", "--url", url),
        environment={
            **environment_without("BELLWIRE_", "TEMPORAL_"),
            **rig.stack.variables,
            "BELLWIRE_LOG_FORMAT": "json",
            "PYTHONPATH": str(CHECKOUT),
        },
        log=rig.stack.processes[0].log.parent / "relay.log",
    )
    try:
        yield process
    finally:
        await process.stop(grace=30)


async def _publish(rig: Rig, pool: asyncpg.Pool, events: Sequence[Event]) -> tuple[float, float]:
    """Insert events, and wait until all have arrived; inserted events/s, and events/s to the last arrival."""
    parts = [events[start : start + PER_TRANSACTION] for start in range(0, len(events), PER_TRANSACTION)]

    async def insert(index: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await insert_async(connection, *parts[index])

    await rig.sink.arrivals()
    began = time.monotonic()
    await rate(insert, len(parts), concurrency=CONNECTIONS)
    inserted = time.monotonic()
    arrived = await publishing.arrivals(rig, len(events))
    return len(events) / (inserted - began), len(events) / (max(arrived.values()) - began)
