"""The gateway under uvicorn. `starter.gateway.app.application` runs under any other ASGI server too."""

import signal

import uvicorn
from starlette.applications import Starlette

from starter.operations.problems import OperationError


async def serve(application: Starlette, *, host: str, port: int) -> None:
    """Serve the application until SIGINT or SIGTERM. Raises OperationError if it cannot listen."""
    server = uvicorn.Server(
        uvicorn.Config(application, host=host, port=port, log_config=None, access_log=False, lifespan="off")
    )
    # uvicorn raises the signal that stopped it again at the end; without a handler, the exit status would be bad.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise OperationError(f"cannot listen on {host}:{port}", remedy="check that no other program uses it") from error
