"""The whole system, each part of which a test can break: a server on a file, a registry, workers and receivers."""

import asyncio
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from bellwire import Client
from bellwire.errors import TemporalUnavailable
from bellwire.registry import Registry
from bellwire.temporal.connection import connect
from starter.checkout import CHECKOUT, program
from starter.local.processes import Process, ProcessFailed, environment_without, free_port
from starter.local.receivers.mailbox import Mail, Mailbox
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.local.stack import NAMESPACE, START_TIMEOUT
from starter.operations.platform.setup import register_search_attributes

#: Concurrent send activities of a worker for each channel, and concurrent attempts of each.
ACTIVITIES, CONCURRENCY = 4, 4
#: Maximum bytes of a file while the disk is full.
FULL = 0
#: Seconds that a worker has to stop after SIGTERM; more than its own grace, so a worker that is killed has hung.
STOP_TIMEOUT = 15.0


class Breakable:
    """Temporal, a registry and `workers`. `random` makes every choice of a scenario."""

    def __init__(self, folder: Path, registry: Registry, *, seed: int, variables: dict[str, str]) -> None:
        self.registry, self.seed, self.random = registry, seed, random.Random(seed)
        self.hooks, self.twilio = WebhookReceiver(), FakeTwilio()
        self.mailbox = Mailbox()
        #: Mails that earlier mail servers accepted.
        self.mails_before: list[Mail] = []
        self.workers: list[Process] = []
        self.client: Client
        self._folder, self._variables = folder, variables
        self._port, self._ui_port = free_port(), free_port()
        self._server: Process
        self._started = 0

    @property
    def mails(self) -> list[Mail]:
        return [*self.mails_before, *self.mailbox.mails]

    @property
    def arrived(self) -> int:
        """Requests that any receiver has received so far, accepted or refused."""
        return len(self.hooks.received) + len(self.mails) + self.twilio.posts

    async def start_server(self) -> None:
        """Start Temporal on its file, always at the same address."""
        options = {
            "--ip": "127.0.0.1",
            "--port": self._port,
            "--ui-port": self._ui_port,
            "--namespace": NAMESPACE,
            "--log-level": "error",
            "--db-filename": self._folder / "temporal.db",
        }
        command = [
            program("temporal"),
            "server",
            "start-dev",
            *(str(part) for pair in options.items() for part in pair),
        ]
        self._server = await self._process("temporal", command, {})
        await self._server.until(self._connects, timeout=START_TIMEOUT)

    async def kill_server(self) -> None:
        await kill(self._server)

    async def start_worker(self) -> Process:
        """Start another worker and wait until it polls."""
        health = f"127.0.0.1:{free_port()}"
        variables = {**self._variables, **self._addresses(), "BELLWIRE_HEALTH_ADDRESS": health}
        worker = await self._process("worker", (sys.executable, str(CHECKOUT / "worker.py")), variables)
        self.workers.append(worker)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def ready() -> bool:
                try:
                    async with session.get(f"http://{health}/ready") as response:
                        return response.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    return False

            await worker.until(ready, timeout=START_TIMEOUT)
        return worker

    async def kill_worker(self, worker: Process) -> None:
        self.workers.remove(worker)
        await kill(worker)

    async def stop_worker(self, worker: Process) -> None:
        """Stop a worker as a rolling restart does: SIGTERM, and time to finish."""
        self.workers.remove(worker)
        await worker.stop(grace=STOP_TIMEOUT)

    async def stop_workers(self) -> None:
        """Stop all workers at once. Each must stop by itself, without a kill."""
        stopping = list(self.workers)
        await asyncio.gather(*map(self.stop_worker, stopping))
        for worker in stopping:
            assert "worker.stopped" in worker.log.read_text(), f"a worker had to be killed: see {worker.log}"

    def fill_disk(self) -> None:
        """Make every write of a worker fail from now on: to an SQLite registry and to its own log."""
        for worker in self.workers:
            _, maximum = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (FULL, maximum))

    def free_disk(self) -> None:
        for worker in self.workers:
            _, maximum = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (maximum, maximum))

    async def restart_mailbox(self) -> None:
        """Close every connection of the mail server, and open it again at the same address."""
        old = self.mailbox
        await old.__aexit__(None, None, None)
        self.mails_before += old.mails
        self.mailbox = await Mailbox(port=old.port).__aenter__()

    async def open(self) -> None:
        """Start everything. After an error, `close` stops what has been started."""
        await self.hooks.__aenter__()
        await self.twilio.__aenter__()
        await self.mailbox.__aenter__()
        await self.registry.migrate()
        try:
            await self.start_server()
        except ProcessFailed:  # another program uses the port since it was free
            self._port, self._ui_port = free_port(), free_port()
            await self.start_server()
        await register_search_attributes(self.client.temporal)
        for _ in range(2):
            await self.start_worker()

    async def close(self) -> None:
        for worker in list(self.workers):
            await self.stop_worker(worker)
        if hasattr(self, "_server"):
            await self._server.stop(grace=STOP_TIMEOUT)
        for receiver in (self.hooks, self.twilio):
            await receiver.__aexit__(None, None, None)
        await self.mailbox.__aexit__(None, None, None)

    async def _process(self, name: str, command: tuple[str, ...] | list[str], variables: dict[str, str]) -> Process:
        self._started += 1
        environment = {**environment_without("BELLWIRE_", "TEMPORAL_"), **variables}
        return await Process.start(
            name, command, environment=environment, log=self._folder / f"{name}-{self._started}.log"
        )

    async def _connects(self) -> bool:
        try:
            temporal = await connect(
                target_host=f"127.0.0.1:{self._port}", namespace=NAMESPACE, tls=False, api_key=None
            )
        except TemporalUnavailable:
            return False
        self.client = Client(temporal)
        return True

    def _addresses(self) -> dict[str, str]:
        return {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self._port}",
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "BELLWIRE_SMTP_HOST": self.mailbox.host,
            "BELLWIRE_SMTP_PORT": str(self.mailbox.port),
            "BELLWIRE_TWILIO_URL": self.twilio.url,
            "BELLWIRE_TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "BELLWIRE_TWILIO_AUTH_TOKEN": self.twilio.auth_token,
        }


@asynccontextmanager
async def breakable(folder: Path, registry_url: str, *, seed: int, **settings: str) -> AsyncIterator[Breakable]:
    """A running system. Few attempts run at a time, so that a fault hits work in every stage."""
    variables = {
        "BELLWIRE_REGISTRY_URL": registry_url,
        "BELLWIRE_TWILIO_SENDER": "+14155550100",
        "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
        "BELLWIRE_WEBHOOK_PORTS": "*",
        "BELLWIRE_WEBHOOK_TIMEOUT": "10",
        "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8",
        "BELLWIRE_EGRESS_DETAILS": "true",
        "BELLWIRE_SMS_RECONCILE_AFTER": "2",
        "BELLWIRE_MAX_ACTIVITIES": str(ACTIVITIES),
        "BELLWIRE_SEND_CONCURRENCY": str(CONCURRENCY),
        "BELLWIRE_SHUTDOWN_GRACE": "5",
        "BELLWIRE_LOG_FORMAT": "json",
        **settings,
    }
    async with AsyncExitStack() as cleanup:
        registry = await Registry.open(registry_url)
        cleanup.push_async_callback(registry.close)
        system = Breakable(folder, registry, seed=seed, variables=variables)
        cleanup.push_async_callback(system.close)
        await system.open()
        yield system


async def kill(process: Process) -> None:
    """SIGKILL, and wait until the process has ended."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    with suppress(ProcessFailed):
        await process.ended()
