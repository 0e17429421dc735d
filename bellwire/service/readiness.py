"""Readiness: GET /ready, by which orchestrators and load balancers find out whether a process works.

A client learns only that. What is wrong may name hosts and files, so it goes to the log.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.client import Client
from temporalio.worker import Worker

from bellwire.registry import Registry
from bellwire.service.http_server import serving_http
from bellwire.service.settings import SettingsInvalid

log = structlog.get_logger("bellwire")

#: Seconds that everything has to respond, and for which a result is used again: anybody may ask at any rate.
CHECK_SECONDS, CACHE_SECONDS = 5.0, 1.0


class Readiness:
    """Whether `check`, which raises if something is wrong, succeeds. Logs each change."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._checking = asyncio.Lock()
        self._ready, self._reason = True, ""
        self._checked_at = float("-inf")

    async def is_ready(self) -> bool:
        async with self._checking:
            if time.monotonic() - self._checked_at > CACHE_SECONDS:
                await self._update()
                self._checked_at = time.monotonic()
        return self._ready

    async def _update(self) -> None:
        before = self._reason
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._check()
        except TimeoutError:
            self._reason = f"no response within {CHECK_SECONDS:g} s"
        except Exception as error:
            self._reason = str(error)[:200] or type(error).__name__
        else:
            self._reason = ""
        self._ready = not self._reason
        if self._reason != before:
            if self._ready:
                log.info("readiness.restored")
            else:
                log.warning("readiness.lost", reason=self._reason)


def ready_route(check: Callable[[], Awaitable[None]]) -> Route:
    """GET /ready: 200 or 503, and nothing else."""
    readiness = Readiness(check)

    async def ready(_: Request) -> Response:
        is_ready = await readiness.is_ready()
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    return Route("/ready", ready)


def health_route() -> Route:
    """GET /health: 200 while the process responds at all, whatever it depends on."""

    async def health(_: Request) -> Response:
        return JSONResponse({"healthy": True})

    return Route("/health", health)


@asynccontextmanager
async def serving_readiness(
    address: str | None,
    client: Client,
    registry: Registry,
    workers: Sequence[Worker],
    *,
    also: Callable[[], None] = lambda: None,
) -> AsyncIterator[None]:
    """Serve GET /ready on host:port: 200 while the workers poll and registry and Temporal respond, otherwise 503.

    `also` raises if something else is wrong.
    """
    if not address:
        yield
        return

    async def check() -> None:
        await registry.ping()
        await client.service_client.check_health()
        if not all(worker.is_running for worker in workers):
            raise RuntimeError("a worker has stopped polling")
        also()

    host, _, port = address.rpartition(":")
    application = Starlette(routes=[ready_route(check)])
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving_http(application, host=host.strip("[]"), port=int(port)))
        except OSError as error:
            raise SettingsInvalid(f"BELLWIRE_HEALTH_ADDRESS: cannot listen on {address}: {error.strerror}") from error
        yield
