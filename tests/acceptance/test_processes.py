"""`worker.py --processes`: several processes that start and stop together."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bellwire import Event
from bellwire.registry import Registry
from benchmarks.meters import family
from starter.checkout import CHECKOUT
from starter.local.processes import Process, ProcessFailed, environment_without, free_port, free_ports
from tests.acceptance.conftest import System


@dataclass
class Several:
    """A worker of several processes."""

    process: Process
    #: Their ports of GET /ready.
    health: list[int]
    #: Their process ids, in order.
    pids: list[int]

    @property
    def log(self) -> str:
        return self.process.log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event."""
        return [json.loads(line) for line in self.log.splitlines() if f'"{event}"' in line and line.endswith("}")]

    async def end(self, by: signal.Signals, pid: int | None = None) -> str:
        """Send a signal to the supervisor, or to `pid`, and wait until the supervisor has ended; its error."""
        os.kill(pid or self.process.pid, by)
        async with asyncio.timeout(30):
            with pytest.raises(ProcessFailed) as failed:
                await self.process.ended()
        return str(failed.value).splitlines()[0]

    async def all_ended(self) -> None:
        """Wait until every process has ended."""
        async with asyncio.timeout(30):
            while any(map(_exists, self.pids)):
                await asyncio.sleep(0.01)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def variables(system: System, **more: str) -> dict[str, str]:
    ambient = environment_without("BELLWIRE_", "TEMPORAL_")
    return {**ambient, **system.variables, "BELLWIRE_SHUTDOWN_GRACE": "5", **more}


@asynccontextmanager
async def several(system: System, folder: Path, number: int = 2) -> AsyncIterator[Several]:
    health = free_ports(number)
    process = await Process.start(
        "several",
        (sys.executable, str(CHECKOUT / "worker.py"), "--processes", str(number)),
        environment=variables(system, BELLWIRE_HEALTH_ADDRESS=f"127.0.0.1:{health}"),
        log=folder / "several.log",
    )
    try:
        async with aiohttp.ClientSession() as session:

            async def ready() -> bool:
                statuses = []
                for nth in range(number):
                    try:
                        async with session.get(f"http://127.0.0.1:{health + nth}/ready") as response:
                            statuses.append(response.status == 200)
                    except aiohttp.ClientError:
                        return False
                return all(statuses)

            await process.until(ready, timeout=60)
        yield Several(process, [health + nth for nth in range(number)], sorted(family(process.pid)[1:]))
    finally:
        await process.stop(grace=20)


@pytest.mark.slow
async def test_both_of_two_processes_deliver(system: System, tmp_path: Path) -> None:
    for number in range(10):
        await system.hook(f"/several/{number}", "several.now")
    async with several(system, tmp_path) as two:
        assert len(two.pids) == 2
        delivering = set[int]()
        async with asyncio.timeout(60):
            # The worker of the shared system polls the same queues.
            while delivering != {0, 1}:
                receipts = [
                    await system.client.publish(Event(source="/tests", type="several.now", data={})) for _ in range(5)
                ]
                for receipt in receipts:
                    status = await system.client.wait(receipt, timeout=30)
                    assert status.counts.delivered == status.counts.matched == 10
                delivering = {fact["process"] for fact in two.logged("delivery.attempted")}


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
@pytest.mark.slow
async def test_a_signal_stops_all_processes_in_order(system: System, tmp_path: Path, by: signal.Signals) -> None:
    async with several(system, tmp_path) as two:
        assert "(exit status 0)" in await two.end(by)
        await two.all_ended()
        assert two.log.count("worker.stopped") == 2
        assert "Traceback" not in two.log


@pytest.mark.slow
async def test_a_killed_process_stops_the_others_and_is_named(system: System, tmp_path: Path) -> None:
    async with several(system, tmp_path, 3) as three:
        assert "(exit status 1)" in await three.end(signal.SIGKILL, three.pids[1])
        await three.all_ended()
        (ended,) = three.logged("process.ended")
        assert (ended["pid"], ended["status"]) == (three.pids[1], "SIGKILL")
        assert three.log.count("worker.stopped") == 2


@pytest.mark.slow
async def test_a_process_that_stops_by_itself_stops_the_others(system: System, tmp_path: Path) -> None:
    async with several(system, tmp_path) as two:
        assert "(exit status 1)" in await two.end(signal.SIGTERM, two.pids[0])
        assert [fact["status"] for fact in two.logged("process.ended")] == ["0"]
        await two.all_ended()


@pytest.mark.slow
async def test_no_process_outlives_the_supervisor(system: System, tmp_path: Path) -> None:
    async with several(system, tmp_path) as two:
        assert "(exit status -9)" in await two.end(signal.SIGKILL)
        await two.all_ended()
        assert two.log.count("worker.stopped") == 2


@pytest.mark.slow
async def test_an_error_that_stops_all_processes_is_printed_once(system: System, tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    registry = await Registry.open(empty)
    await registry.close()
    for changed, message in (
        ({"BELLWIRE_REGISTRY_URL": empty}, "python -m starter setup"),
        ({"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}, "TEMPORAL_ADDRESS"),
        ({"BELLWIRE_SMTP_PORT": "many"}, "BELLWIRE_SMTP_PORT"),
        ({"BELLWIRE_HEALTH_ADDRESS": "127.0.0.1:65534"}, "BELLWIRE_HEALTH_ADDRESS"),
    ):
        command = [sys.executable, "worker.py", "--processes", "3"]
        end = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=CHECKOUT,
            env=variables(system, BELLWIRE_LOG_FORMAT="console", **changed),
            capture_output=True,
            text=True,
            check=False,
        )
        assert end.returncode == 1
        (line,) = end.stderr.splitlines()
        assert line.startswith("worker: ")
        assert message in line
