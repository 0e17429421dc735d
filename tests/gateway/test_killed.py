"""A gateway that is killed loses no event that it has acknowledged."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bellwire.keys.api_keys import Scope
from starter.checkout import CHECKOUT
from starter.local.processes import Process, environment_without, free_port
from tests.acceptance.conftest import System, running_system

CONNECTIONS, EVENTS = 200, 5
#: Events that are acknowledged before each kill: the process is killed while most connections have a request in progress.
KILLS = (100, 300, 500, 700)
HEADERS = {"content-type": "application/cloudevents+json"}


class Publishers:
    """Connections that publish one event after the other, each until it is acknowledged."""

    def __init__(self, url: str, key: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = f"{url}/v1/events", session
        self._headers = {**HEADERS, "authorization": f"Bearer {key}"}
        self.acknowledged = set[str]()
        #: Requests that were in progress when the gateway was killed.
        self.interrupted = 0
        self.progress = asyncio.Condition()

    async def run(self, connection: int) -> None:
        for number in range(EVENTS):
            await self._publish(f"{connection}-{number}")

    async def reached(self, number: int) -> None:
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.acknowledged) >= number)

    async def _publish(self, event_id: str) -> None:
        event = {"specversion": "1.0", "id": event_id, "source": "/killed", "type": "killed.event", "tenant": "acme"}
        while True:
            try:
                async with self._session.post(self._url, json=event, headers=self._headers) as response:
                    # 503 while the gateway restarts and has not reached Temporal.
                    assert response.status in {202, 503}, await response.text()
                    if response.status == 202:
                        break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)  # until the gateway listens again
            except aiohttp.ClientError:
                self.interrupted += 1
        async with self.progress:
            self.acknowledged.add(event_id)
            self.progress.notify_all()


@asynccontextmanager
async def started(system: System, folder: Path, port: int, number: int) -> AsyncIterator[Process]:
    """A gateway process, which may be killed."""
    process = await Process.start(
        f"gateway-{number}",
        (sys.executable, "-m", "starter", "gateway", "--port", str(port)),
        environment={
            **environment_without("BELLWIRE_", "TEMPORAL_"),
            **system.variables,
            "PYTHONPATH": str(CHECKOUT),
            "BELLWIRE_PUBLISH_RATE": "0",
        },
        log=folder / f"gateway-{number}.log",
    )
    try:
        yield process
    finally:
        await process.stop(grace=10)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_acknowledged_event_is_lost_when_the_gateway_is_killed(tmp_path: Path) -> None:
    port = free_port()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with running_system(tmp_path) as system, aiohttp.ClientSession(connector=connector) as session:
        await system.hook("/killed", "killed.event", tenant="acme")
        key = (await system.registry.api_keys.create(Scope.parse("publish"))).key
        publishers = Publishers(f"http://127.0.0.1:{port}", key, session)
        async with asyncio.timeout(200), asyncio.TaskGroup() as running:
            tasks = [running.create_task(publishers.run(number)) for number in range(CONNECTIONS)]
            for number, acknowledged in enumerate(KILLS):
                async with started(system, tmp_path, port, number) as process:
                    await publishers.reached(acknowledged)
                    os.kill(process.pid, signal.SIGKILL)
                    await process.stop(grace=0)
            async with started(system, tmp_path, port, len(KILLS)):
                await asyncio.gather(*tasks)
        expected = {f"{connection}-{number}" for connection in range(CONNECTIONS) for number in range(EVENTS)}
        assert publishers.acknowledged == expected
        assert publishers.interrupted >= len(KILLS) * CONNECTIONS // 4, "the kills came too late to prove anything"
        async with asyncio.timeout(100):
            while (arrived := {each.event["id"] for each in system.hooks.received_at("/killed")}) != expected:
                assert arrived < expected
                await asyncio.sleep(0.1)
