"""`gateway`: serves HTTP until it is stopped."""

from typing import Annotated

import typer

from bellwire.client import Client
from bellwire.service.settings import LogFormat, Settings
from bellwire.service.telemetry import configure_logs
from bellwire.temporal.connection import connect
from starter.cli.terminal import command, note, opened_registry


@command
async def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
) -> None:
    """Serve the HTTP API, provider callbacks, unsubscribe links and the codec server, until it is stopped."""
    # No other command needs the HTTP libraries.
    from starter.gateway.app import application
    from starter.gateway.server import serve

    settings = Settings.read()
    async with opened_registry(settings) as registry:
        configure_logs(settings.log_format, settings.log_level)
        if settings.log_format is LogFormat.CONSOLE:
            note(f"listening on http://{host}:{port}; Ctrl-C stops it")
        # Lazy, so that callbacks and unsubscribe links work while Temporal is away.
        client = Client(await connect(keys=settings.ring, lazy=True), lookup=registry.events.known)
        await serve(application(settings, registry, client), host=host, port=port)
