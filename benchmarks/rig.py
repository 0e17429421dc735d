"""The rig: a whole Bellwire with a sink and the bare worker beside it, each a process of its own, and what is done with it."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bellwire import Client, Event, Receipt, Subscription
from bellwire.events import uuid7
from bellwire.registry import subscriptions
from bellwire.registry.database import Database
from benchmarks import bare
from benchmarks.sink import Sink
from starter.processes import CHECKOUT, Process, environment_without, free_port
from starter.stack import START_TIMEOUT, STOP_TIMEOUT, Stack, running_stack

#: What every rig's worker is told: receivers are on this machine, logs go to a file as a collector would have them.
SETTINGS = {
    "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
    "BELLWIRE_WEBHOOK_PORTS": "*",
    "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8",
    "BELLWIRE_LOG_FORMAT": "json",
}
#: Subscriptions in one transaction. One by one they take 2 ms each.
SUBSCRIBED_AT_ONCE = 1_000
#: Seconds that one measured piece of work may take.
PATIENCE = 300.0
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
    #: Of all processes that take part: server, worker, sink, bare worker and this one.
    pids: tuple[int, ...]

    @property
    def client(self) -> Client:
        return self.stack.client

    @property
    def worker_pid(self) -> int:
        return self.stack.processes[1].pid

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
        database = Database.at(self.stack.registry_url, pool=1)
        try:
            for start in range(0, number, SUBSCRIBED_AT_ONCE):
                async with database.writing() as connection:
                    for index in range(start, min(start + SUBSCRIBED_AT_ONCE, number)):
                        url = f"{self.sink.url}/{answer(index)}/{label}/{index}"
                        wish = Subscription.model_validate(
                            {
                                "id": f"{tenant}-{label}-{index:06}",
                                "tenant": tenant,
                                "types": [kind],
                                "target": {"channel": "webhook", "url": url},
                                "retry_schedule": schedule,
                            }
                        )
                        await subscriptions.subscribe(connection, wish, secret=None)
        finally:
            await database.close()
        return kind

    async def fan_out(self, kind: str) -> tuple[Receipt, float]:
        """Publish one event and wait until its run has ended, all outcomes on record; seconds that took."""
        begun = time.perf_counter()
        receipt = await self.client.publish(event(kind))
        await self.ended([receipt])
        return receipt, time.perf_counter() - begun

    async def ended(self, receipts: Iterable[Receipt]) -> None:
        """Wait until the runs have ended."""
        runs = dict.fromkeys(receipt.workflow_id for receipt in receipts)
        async with asyncio.timeout(PATIENCE):
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
async def running_rig(**settings: str) -> AsyncIterator[Rig]:
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
            running_stack(folder, port=free_port(), ui_port=free_port(), settings={**SETTINGS, **settings})
        )
        bare_worker = await start("bare_worker", stack.address)
        pids = (*(process.pid for process in (*stack.processes, receiving, bare_worker)), os.getpid())
        rig = Rig(stack, sink, session, pids)
        async with asyncio.timeout(START_TIMEOUT):
            await asyncio.gather(*(rig.empty_workflow() for _ in range(20)))
        yield rig
