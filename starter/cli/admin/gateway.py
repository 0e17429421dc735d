"""`gateway`: serves HTTP until it is stopped."""

from typing import Annotated

import typer

from bellwire.client import Client
from bellwire.service.settings import LogFormat, Settings
from bellwire.service.telemetry import configure_logs, runtime
from bellwire.temporal.connection import connect
from starter.cli.terminal import command, note, opened_registry
from starter.local.processes import free_port


@command
async def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
) -> None:
    """Serve the HTTP API, provider callbacks, unsubscribe links and the codec server, until it is stopped."""
    # No other command needs the HTTP libraries.
    from starter.gateway.app import application
    from starter.gateway.metrics import RequestMetrics, metrics_route
    from starter.gateway.server import serve

    settings = Settings.read()
    async with opened_registry(settings) as registry:
        configure_logs(settings.log_format, settings.log_level)
        # Of its own, since a worker on this machine may have that of the settings.
        metrics = f"127.0.0.1:{free_port()}"
        temporal_runtime = runtime(metrics)
        # Lazy, so that callbacks and unsubscribe links work while Temporal is away.
        temporal = await connect(keys=settings.ring, runtime=temporal_runtime, lazy=True)
        client = Client(temporal, lookup=registry.events.known)
        app = application(settings, registry, client)
        app.router.routes.append(metrics_route(metrics))
        measured = RequestMetrics(app, temporal_runtime.metric_meter)

        def listening() -> None:
            if settings.log_format is LogFormat.CONSOLE:
                note(f"listening on http://{host}:{port}; Ctrl-C stops it")

        await serve(
            measured,
            host=host,
            port=port,
            grace=settings.shutdown_grace,
            listening=listening,
            stopping=app.state.feeds.stop,
        )
