"""Readiness: GET /ready, by which orchestrators find out whether a worker works."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from temporalio.client import Client
from temporalio.worker import Worker

from bellwire.registry import Registry
from bellwire.service.settings import SettingsInvalid


@asynccontextmanager
async def serving_readiness(
    address: str | None, client: Client, registry: Registry, workers: Sequence[Worker]
) -> AsyncIterator[None]:
    """Serve GET /ready on host:port: 200 while the workers poll and registry and Temporal respond, otherwise 503 and why."""
    if not address:
        yield
        return

    async def ready(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(5):
                await registry.ping()
                await client.service_client.check_health()
        except Exception as error:
            return web.json_response({"ready": False, "reason": str(error)[:200]}, status=503)
        if not all(worker.is_running for worker in workers):
            return web.json_response({"ready": False, "reason": "a worker has stopped polling"}, status=503)
        return web.json_response({"ready": True})

    app = web.Application()
    app.router.add_get("/ready", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host, int(port)).start()
        except OSError as error:
            raise SettingsInvalid(f"BELLWIRE_HEALTH_ADDRESS: cannot listen on {address}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
