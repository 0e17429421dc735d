"""Serves the gateway. `starter.gateway.app.application` runs under any other ASGI server too, behind a proxy with deadlines."""

from starlette.applications import Starlette

from bellwire.service.http_server import serving_http
from bellwire.service.processes import stop_on_signals
from starter.operations.problems import OperationError


async def serve(application: Starlette, *, host: str, port: int) -> None:
    """Serve the application until SIGINT or SIGTERM. Raises OperationError if it cannot listen."""
    stop = stop_on_signals()
    try:
        async with serving_http(application, host=host, port=port):
            await stop.wait()
    except OSError as error:
        raise OperationError(f"cannot listen on {host}:{port}", remedy="check that no other program uses it") from error
