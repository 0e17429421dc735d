"""The rig: a whole Bellwire with a sink and the bare worker beside it, each a process of its own, and what is done with it."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire import Client, Event, Receipt, Subscription
from bellwire.events import uuid7
from bellwire.registry import subscriptions
from bellwire.registry.db import tables
from bellwire.registry.db.engine import Database
from benchmarks import bare
from benchmarks.figures import SERVER, WORKER
from benchmarks.meters import family
from benchmarks.sink import Sink
from starter.checkout import CHECKOUT
from starter.local.processes import Process, environment_without, free_port
from starter.local.stack import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    Stack,
    running_stack,
)

#: What every rig's worker is told: receivers are on this machine, logs go to a file as a collector would have them.
SETTINGS = {
    "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
    "BELLWIRE_WEBHOOK_PORTS": "*",
    "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8",
    "BELLWIRE_EGRESS_DETAILS": "true",
    "BELLWIRE_LOG_FORMAT": "json",
    # Threads are called what they do, so that their CPU time can be told apart.
    "PYTHONPATH": str(Path(__file__).parent / "naming"),
}
#: Subscriptions in one transaction.
SUBSCRIBED_AT_ONCE = 10_000
#: Seconds that one measured piece of work may take, and deliveries a second below which something is wrong.
PATIENCE, SLOWEST = 300.0, 100.0
#: About 300 bytes of event, as a service would publish.
DATA = {
    "order": "42",
    "total": "19.90 EUR",
    "lines": [{"sku": f"A-{number}", "quantity": number} for number in range(4)],
}


@dataclass(frozen=True)
class Rig:
    """What a benchmark works with."""

    stack: Stack
    sink: Sink
    #: The client of the bare loop, with as many connections as it wants.
    session: aiohttp.ClientSession
    sink_pid: int
    #: How many subscribers a type has that was subscribed to last.
    subscribers: dict[str, int] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return self.stack.client

    @property
    def server_pids(self) -> tuple[int, ...]:
        return family(self.stack.processes[0].pid)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The worker, and its processes where it has several."""
        return family(self.stack.processes[1].pid)

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The processes that take part in an event, by what they are."""
        return {
            SERVER: self.server_pids,
            WORKER: self.worker_pids,
            "receiver": (self.sink_pid,),
            "publisher": (os.getpid(),),
        }

    @property
    def pids(self) -> tuple[int, ...]:
        """Of all that take part in an event."""
        return tuple(pid for pids in self.parts.values() for pid in pids)

    async def subscribe(
        self,
        label: str,
        number: int,
        *,
        answer: Callable[[int], str] = lambda _: "accept",
        tenant: str = "bench",
        schedule: Sequence[float] | None = None,
    ) -> str:
        """Subscribe `number` webhooks to a type of their own, which is returned; `answer` says how the sink treats each."""
        kind = f"bench.{label}"
        wish = Subscription.model_validate(
            {
                "id": subscription_id(tenant, label, 0),
                "tenant": tenant,
                "types": [kind],
                "target": {"channel": "webhook", "url": self._url(label, 0, answer)},
                "retry_schedule": schedule,
            }
        )
        database = Database.at(self.stack.registry_url, pool=1)
        try:
            await database.write(subscriptions.create, wish, secret=None)
            for start in range(1, number, SUBSCRIBED_AT_ONCE):
                copies = {
                    subscription_id(tenant, label, index): self._url(label, index, answer)
                    for index in range(start, min(start + SUBSCRIBED_AT_ONCE, number))
                }
                await database.write(copy_subscription, wish.id, copies)
        finally:
            await database.close()
        self.subscribers[kind] = number
        return kind

    def _url(self, label: str, index: int, answer: Callable[[int], str]) -> str:
        return f"{self.sink.url}/{answer(index)}/{label}/{index}"

    async def fan_out(self, kind: str) -> tuple[Receipt, float]:
        """Publish one event and wait until its run has ended, all outcomes on record; seconds that took."""
        begun = time.perf_counter()
        receipt = await self.client.publish(event(kind))
        await self.ended([receipt], disable_policy=PATIENCE + self.subscribers[kind] / SLOWEST)
        return receipt, time.perf_counter() - begun

    async def ended(self, receipts: Iterable[Receipt], *, disable_policy: float = PATIENCE) -> None:
        """Wait until the runs have ended, for at most `patience` seconds."""
        runs = dict.fromkeys(receipt.workflow_id for receipt in receipts)
        async with asyncio.timeout(disable_policy):
            await asyncio.gather(*(self.client.temporal.get_workflow_handle(run).result() for run in runs))

    async def empty_workflow(self, _: int = 0) -> None:
        """One workflow that does nothing, from start to result."""
        await self.client.temporal.execute_workflow(bare.Empty.run, id=f"empty-{uuid7()}", task_queue=bare.QUEUE)

    async def bare_posts(self, number: int, *, concurrency: int) -> float:
        """Post the body of an event `number` times, `concurrency` at a time, and no more than that; posts/s."""
        body = event("bench.bare").model_dump_json().encode()
        headers = {"content-type": "application/cloudevents+json; charset=utf-8"}

        async def post(index: int) -> None:
            url = f"{self.sink.url}/accept/bare/{index}"
            async with self.session.post(url, data=body, headers=headers) as response:
                await response.read()

        return await rate(post, number, concurrency=concurrency)


def subscription_id(tenant: str, label: str, index: int) -> str:
    """The id of one of those that `Rig.subscribe` made."""
    return f"{tenant}-{label}-{index:06}"


async def copy_subscription(connection: AsyncConnection, original: str, copies: Mapping[str, str]) -> None:
    """Store copies of a webhook's subscription, each with an id and a URL of its own: 100,000 in a few seconds."""
    for table, column in ((tables.subscriptions, "id"), (tables.subscription_types, "subscription_id")):
        found = await connection.execute(select(table).where(table.c[column] == original))
        for row in found.mappings().all():
            rows = [{**row, column: name} for name in copies]
            if "target" in row:
                target = json.loads(row["target"])
                for each in rows:
                    each["target"] = json.dumps({**target, "url": copies[each[column]]})
            await connection.execute(table.insert(), rows)


def event(kind: str, **fields: Any) -> Event:
    return Event(**{"source": "/bench", "type": kind, "data": DATA, **fields})


async def rate(work: Callable[[int], Awaitable[object]], number: int, *, concurrency: int) -> float:
    """How often a second `work` was done, of `number` times, `concurrency` at a time."""
    numbers = iter(range(number))

    async def go_on() -> None:
        for index in numbers:
            await work(index)

    begun = time.perf_counter()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(go_on() for _ in range(min(concurrency, number))))
    return number / (time.perf_counter() - begun)


@asynccontextmanager
async def running_rig(*, processes: int = 1, server_options: Sequence[str] = (), **settings: str) -> AsyncIterator[Rig]:
    """A rig with fresh files, its worker with these settings beside SETTINGS, warmed up by a few bare workflows."""
    async with AsyncExitStack() as cleaning:
        folder = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="bellwire-bench-")))
        environment = {**environment_without("BELLWIRE_", "TEMPORAL_"), "PYTHONPATH": str(CHECKOUT)}
        environment["TEMPORAL_CONFIG_FILE"] = os.devnull
        session = await cleaning.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
        )

        async def start(name: str, *arguments: str) -> Process:
            command = (sys.executable, "-m", f"benchmarks.{name}", *arguments)
            process = await Process.start(name, command, environment=environment, log=folder / f"{name}.log")
            cleaning.push_async_callback(process.stop, grace=STOP_TIMEOUT)
            return process

        port = free_port()
        sink, receiving = Sink(f"http://127.0.0.1:{port}", session), await start("sink", str(port))
        await receiving.until(sink.answers, timeout=START_TIMEOUT)
        stack = await cleaning.enter_async_context(
            running_stack(
                folder,
                port=free_port(),
                ui_port=free_port(),
                settings={**SETTINGS, **settings},
                processes=processes,
                server_options=server_options,
            )
        )
        await start("bare_worker", stack.address)
        rig = Rig(stack, sink, session, receiving.pid)
        async with asyncio.timeout(START_TIMEOUT):
            await asyncio.gather(*(rig.empty_workflow() for _ in range(20)))
        yield rig
