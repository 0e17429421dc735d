"""The rig: a whole Bellwire, a sink and the bare worker, each a process, and the operations of benchmarks on them."""

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
from bellwire.tenants import ALL_TENANTS
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

#: Settings of every rig's worker: receivers are on this machine, and logs are JSON as for a collector.
SETTINGS = {
    "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
    "BELLWIRE_WEBHOOK_PORTS": "*",
    "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8",
    "BELLWIRE_EGRESS_DETAILS": "true",
    "BELLWIRE_LOG_FORMAT": "json",
    # Names threads by what they do, so that their CPU time can be distinguished, and resolves the names of benchmarks.
    "PYTHONPATH": str(Path(__file__).parent / "naming"),
}
#: Subscriptions in one transaction.
BATCH = 10_000
#: Maximum seconds of one measured piece of work, and the lowest plausible number of deliveries a second.
TIMEOUT, MIN_RATE = 300.0, 100.0
#: The data of an event of about 300 bytes.
DATA = {
    "order": "42",
    "total": "19.90 EUR",
    "lines": [{"sku": f"A-{number}", "quantity": number} for number in range(4)],
}


@dataclass(frozen=True)
class Rig:
    """The parts that a benchmark uses."""

    stack: Stack
    sink: Sink
    #: The client of the bare loop, with unlimited connections.
    session: aiohttp.ClientSession
    sink_pid: int
    #: The number of subscribers by event type.
    subscribers: dict[str, int] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return self.stack.client

    @property
    def server_pids(self) -> tuple[int, ...]:
        return family(self.stack.processes[0].pid)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The worker and its processes."""
        return family(self.stack.processes[1].pid)

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The processes that handle an event, by part."""
        return {
            SERVER: self.server_pids,
            WORKER: self.worker_pids,
            "receiver": (self.sink_pid,),
            "publisher": (os.getpid(),),
        }

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes that handle an event."""
        return tuple(pid for pids in self.parts.values() for pid in pids)

    async def subscribe(
        self,
        label: str,
        number: int,
        *,
        treatment: Callable[[int], str] = lambda _: "accept",
        tenant: str = "bench",
        schedule: Sequence[float] | None = None,
    ) -> str:
        """Subscribe `number` webhooks to a new event type, which is returned. `treatment` is the sink's path for each."""
        kind = f"bench.{label}"
        original = Subscription.model_validate(
            {
                "id": subscription_id(tenant, label, 0),
                "tenant": tenant,
                "types": [kind],
                "target": {"channel": "webhook", "url": self._url(label, 0, treatment)},
                "retry_schedule": schedule,
            }
        )
        database = Database.at(self.stack.registry_url, pool=1)
        try:
            await database.write(subscriptions.create, original, secret=None)
            for start in range(1, number, BATCH):
                copies = {
                    subscription_id(tenant, label, index): self._url(label, index, treatment)
                    for index in range(start, min(start + BATCH, number))
                }
                await database.write(copy_subscription, original.id, copies)
        finally:
            await database.close()
        self.subscribers[kind] = number
        return kind

    def _url(self, label: str, index: int, treatment: Callable[[int], str]) -> str:
        return f"{self.sink.url}/{treatment(index)}/{label}/{index}"

    async def fan_out(self, kind: str) -> tuple[Receipt, float]:
        """Publish one event and wait until its run has ended and all outcomes are recorded; the seconds that took."""
        began = time.perf_counter()
        receipt = await self.client.publish(event(kind))
        await self.ended([receipt], timeout=TIMEOUT + self.subscribers[kind] / MIN_RATE)
        return receipt, time.perf_counter() - began

    async def ended(self, receipts: Iterable[Receipt], *, timeout: float = TIMEOUT) -> None:
        """Wait until the runs have ended, at most `timeout` seconds."""
        runs = dict.fromkeys(receipt.workflow_id for receipt in receipts)
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(self.client.temporal.get_workflow_handle(run).result() for run in runs))

    async def empty_workflow(self, _: int = 0) -> None:
        """Run one empty workflow, from start to result."""
        await self.client.temporal.execute_workflow(bare.Empty.run, id=f"empty-{uuid7()}", task_queue=bare.QUEUE)

    async def bare_posts(self, number: int, *, concurrency: int) -> float:
        """Post the body of an event `number` times, `concurrency` at a time; posts/s."""
        body = event("bench.bare").model_dump_json().encode()
        headers = {"content-type": "application/cloudevents+json; charset=utf-8"}

        async def post(index: int) -> None:
            url = f"{self.sink.url}/accept/bare/{index}"
            async with self.session.post(url, data=body, headers=headers) as response:
                await response.read()

        return await rate(post, number, concurrency=concurrency)


def subscription_id(tenant: str, label: str, index: int) -> str:
    """The id of a subscription that `Rig.subscribe` stores."""
    return f"{tenant}-{label}-{index:06}"


async def copy_subscription(connection: AsyncConnection, original: str, copies: Mapping[str, str]) -> None:
    """Store copies of a webhook's subscription with other ids and URLs: 100,000 in a few seconds."""
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
    return Event(**{"source": "/bench", "type": kind, "tenant": ALL_TENANTS, "data": DATA, **fields})


async def rate(work: Callable[[int], Awaitable[object]], number: int, *, concurrency: int) -> float:
    """Run `work` `number` times, `concurrency` at a time; times per second."""
    numbers = iter(range(number))

    async def repeat() -> None:
        for index in numbers:
            await work(index)

    began = time.perf_counter()
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*(repeat() for _ in range(min(concurrency, number))))
    return number / (time.perf_counter() - began)


@asynccontextmanager
async def running_rig(
    *, processes: int = 1, gateway: bool = False, server_options: Sequence[str] = (), **settings: str
) -> AsyncIterator[Rig]:
    """A rig with new files and a worker, and a gateway, with SETTINGS and these settings, warmed up by a few bare workflows."""
    async with AsyncExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bellwire-bench-")))
        environment = {**environment_without("BELLWIRE_", "TEMPORAL_"), "PYTHONPATH": str(CHECKOUT)}
        environment["TEMPORAL_CONFIG_FILE"] = os.devnull
        session = await cleanup.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
        )

        async def start(name: str, *arguments: str) -> Process:
            command = (sys.executable, "-m", f"benchmarks.{name}", *arguments)
            process = await Process.start(name, command, environment=environment, log=folder / f"{name}.log")
            cleanup.push_async_callback(process.stop, grace=STOP_TIMEOUT)
            return process

        port, mail_port = free_port(), free_port()
        sink = Sink(f"http://127.0.0.1:{port}", session)
        receiving = await start("sink", str(port), str(mail_port))
        await receiving.until(sink.ready, timeout=START_TIMEOUT)
        stack = await cleanup.enter_async_context(
            running_stack(
                folder,
                port=free_port(),
                ui_port=free_port(),
                settings={
                    **SETTINGS,
                    "BELLWIRE_SMTP_HOST": "127.0.0.1",
                    "BELLWIRE_SMTP_PORT": str(mail_port),
                    **settings,
                },
                processes=processes,
                gateway_port=free_port() if gateway else None,
                server_options=server_options,
            )
        )
        await start("bare_worker", stack.address)
        rig = Rig(stack, sink, session, receiving.pid)
        async with asyncio.timeout(START_TIMEOUT):
            await asyncio.gather(*(rig.empty_workflow() for _ in range(20)))
        yield rig
