"""`gateway`: the HTTP side, which others call: providers with what became of a delivery, recipients who want no more.

An application of ASGI, to run under any server; `python -m starter gateway` runs it under uvicorn.
"""

import signal
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.cli.terminal import (
    CommandFailed,
    command,
    note,
    opened_registry,
)
from starter.gateway import provider_callbacks, unsubscribe
from starter.gateway.codec_server import codec_routes


def application(settings: Settings, registry: Registry) -> Starlette:
    """The application over an open registry, which stays the caller's."""

    async def ready(_: Request) -> Response:
        try:
            await registry.ping()
        except BellwireError as error:
            return JSONResponse({"ready": False, "reason": str(error)[:200]}, status_code=503)
        return JSONResponse({"ready": True})

    routes: list[BaseRoute] = [
        Route("/ready", ready),
        *codec_routes(settings),
        *provider_callbacks.routes(settings, registry),
    ]
    if keys := settings.link_keys:
        routes += unsubscribe.routes(keys, registry)
    return Starlette(routes=routes)


@command
async def gateway(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8100,
) -> None:
    """Answer providers and recipients over HTTP, until it is stopped."""
    settings = Settings.read()
    async with opened_registry(settings) as registry:
        server = uvicorn.Server(
            uvicorn.Config(
                application(settings, registry), host=host, port=port, log_config=None, access_log=False, lifespan="off"
            )
        )
        # uvicorn raises the signal that stopped it once more when it is done, which is no reason to end badly.
        signal.signal(signal.SIGTERM, lambda *_: None)
        note(f"listening on http://{host}:{port}; {signal.SIGINT.name} stops it")
        try:
            await server.serve()
        except SystemExit as error:  # uvicorn's way to say that it cannot listen
            raise CommandFailed(f"cannot listen on {host}:{port}; is something else there?") from error
