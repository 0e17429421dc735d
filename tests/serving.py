"""The gateway's application, served by this process."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.gateway.app import application


@asynccontextmanager
async def serving(settings: Settings, registry: Registry) -> AsyncIterator[str]:
    """Its URL. It does not open what needs Temporal."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application(settings, registry), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
