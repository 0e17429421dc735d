"""The embedded stack: Temporal's dev server, a registry that is set up, a worker and the gateway, all on this machine."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from bellwire.client import Client
from bellwire.errors import TemporalUnavailable
from bellwire.keys.keyring import KeyRing, ring_of
from bellwire.registry import Registry
from bellwire.temporal.connection import connect
from starter.checkout import CHECKOUT, program
from starter.local.processes import Process, environment_without, free_port, free_ports
from starter.operations.platform.setup import migrate, register_search_attributes

#: Seconds that each process has to start; it takes about one.
START_TIMEOUT = 30.0
#: Seconds that they have to stop before they are killed.
STOP_TIMEOUT = 10.0

NAMESPACE = "default"

#: What a developer's machine allows and production does not; variables that are set win.
DEV_SETTINGS = {
    "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
    "BELLWIRE_WEBHOOK_PORTS": "*",
    "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
    "BELLWIRE_EGRESS_DETAILS": "true",
}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack."""

    #: host:port of Temporal.
    address: str
    #: The Temporal UI.
    ui: str
    client: Client
    registry: Registry
    registry_url: str
    #: host:port of the worker's GET /ready, or of its first process.
    health: str
    #: The URL of the gateway; empty without one.
    gateway: str
    #: What a command in another terminal needs in its environment to talk to this stack.
    variables: Mapping[str, str]
    processes: tuple[Process, ...]

    async def broken(self) -> None:
        """Wait until a process ends unexpectedly, and raise ProcessFailed."""
        waiting = [asyncio.ensure_future(process.ended()) for process in self.processes]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


@asynccontextmanager
async def running_stack(
    folder: Path,
    *,
    port: int,
    ui_port: int,
    settings: Mapping[str, str],
    database: Path | None = None,
    processes: int = 1,
    gateway_port: int | None = None,
    server_options: Sequence[str] = (),
) -> AsyncIterator[Stack]:
    """A stack whose files are in `folder`. `settings` are all of the worker's BELLWIRE_* variables.

    With `database`, a file, Temporal keeps its runs for the next start. `processes` is the worker's option of that name, and
    `server_options` are further options of Temporal's `server start-dev`. With `gateway_port`, the gateway is a part of the
    stack. Raises ProcessFailed, RegistryUnavailable.
    """
    settings = {
        "BELLWIRE_REGISTRY_URL": f"sqlite:///{folder / 'registry.db'}",
        "BELLWIRE_HEALTH_ADDRESS": f"127.0.0.1:{free_ports(processes)}",
        "BELLWIRE_SHUTDOWN_GRACE": "5",
        **settings,
    }
    address = f"127.0.0.1:{port}"
    # An API key or certificate for another server, in variables or in Temporal's own file, must not be used for this one.
    temporal = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": NAMESPACE, "TEMPORAL_CONFIG_FILE": os.devnull}
    ambient = environment_without("BELLWIRE_", "TEMPORAL_")
    async with AsyncExitStack() as cleanup:
        server = await Process.start(
            "temporal",
            [*_server(port, ui_port, database), *server_options],
            environment=ambient,
            log=folder / "temporal.log",
        )
        cleanup.push_async_callback(server.stop, grace=STOP_TIMEOUT)
        ring = ring_of(settings.get("BELLWIRE_ENCRYPTION_KEYS"))
        registry = await Registry.open(settings["BELLWIRE_REGISTRY_URL"], ring=ring)
        cleanup.push_async_callback(registry.close)
        await migrate(registry)
        client = await _connected(server, address, ring)
        await register_search_attributes(client.temporal)
        worker = await Process.start(
            "worker",
            (sys.executable, str(CHECKOUT / "worker.py"), *(("--processes", str(processes)) if processes > 1 else ())),
            environment={**ambient, **settings, **temporal},
            log=folder / "worker.log",
        )
        cleanup.push_async_callback(worker.stop, grace=STOP_TIMEOUT)
        parts, url = [server, worker], ""
        if gateway_port is not None:
            url = f"http://127.0.0.1:{gateway_port}"
            gateway = await Process.start(
                "gateway",
                (sys.executable, "-m", "starter", "gateway", "--port", str(gateway_port)),
                environment={**ambient, **settings, **temporal, "PYTHONPATH": str(CHECKOUT)},
                log=folder / "gateway.log",
            )
            cleanup.push_async_callback(gateway.stop, grace=STOP_TIMEOUT)
            parts.append(gateway)
        health = settings["BELLWIRE_HEALTH_ADDRESS"]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for each in _health_addresses(health, processes):
                await worker.until(partial(_responds, session, f"http://{each}/ready"), timeout=START_TIMEOUT)
            if url:
                await gateway.until(partial(_responds, session, f"{url}/ready"), timeout=START_TIMEOUT)
        yield Stack(
            address=address,
            ui=f"http://127.0.0.1:{ui_port}/namespaces/{NAMESPACE}/workflows",
            client=client,
            registry=registry,
            registry_url=settings["BELLWIRE_REGISTRY_URL"],
            health=health,
            gateway=url,
            variables={**temporal, "BELLWIRE_REGISTRY_URL": settings["BELLWIRE_REGISTRY_URL"]},
            processes=tuple(parts),
        )


def _health_addresses(first: str, number: int) -> list[str]:
    """host:port of each process of the worker."""
    host, _, port = first.rpartition(":")
    return [f"{host}:{int(port) + nth}" for nth in range(number)]


def _server(port: int, ui_port: int, database: Path | None) -> list[str]:
    options = {
        "--ip": "127.0.0.1",
        "--port": port,
        "--ui-port": ui_port,
        # By default it chooses free ports itself, which another program may have taken when it uses them.
        "--http-port": free_port(),
        "--metrics-port": free_port(),
        "--namespace": NAMESPACE,
        "--log-level": "error",
        # By default the server reads its task queue 20 times a second, so a task that follows another waits for up to 50 ms.
        "--dynamic-config-value": "history.transferProcessorMaxPollRPS=1000",
        **({"--db-filename": database} if database else {}),
    }
    return [program("temporal"), "server", "start-dev", *(str(part) for option in options.items() for part in option)]


async def _connected(server: Process, address: str, ring: KeyRing | None) -> Client:
    clients: list[Client] = []

    async def reachable() -> bool:
        try:
            temporal = await connect(keys=ring, target_host=address, namespace=NAMESPACE, tls=False, api_key=None)
        except TemporalUnavailable:
            return False
        clients.append(Client(temporal))
        return True

    await server.until(reachable, timeout=START_TIMEOUT)
    return clients[0]


async def _responds(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
