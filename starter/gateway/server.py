"""Serves the gateway. `starter.gateway.app.application` runs under any other ASGI server too, behind a proxy with deadlines."""

from collections.abc import Callable

from starlette.types import ASGIApp

from bellwire.service.http_server import Deadlines, serving_http
from bellwire.service.processes import stop_on_signals
from starter.gateway.api.problems import problem_of_parsing
from starter.operations.problems import OperationError


async def serve(
    application: ASGIApp,
    *,
    host: str,
    port: int,
    grace: float,
    listening: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve the application until SIGINT or SIGTERM; requests in progress have `grace` seconds more, and no others begin.

    `listening` is called once requests are taken, and `stopping` before the end, to end requests that wait.
    Raises OperationError if it cannot listen.
    """
    stop = stop_on_signals()
    try:
        deadlines = Deadlines(stop=grace)
        async with serving_http(application, host=host, port=port, deadlines=deadlines, refuse=problem_of_parsing):
            listening()
            await stop.wait()
            stopping()
    except OSError as error:
        raise OperationError(f"cannot listen on {host}:{port}", remedy="check that no other program uses it") from error
