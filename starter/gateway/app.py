"""The gateway's ASGI application: HTTP for providers, recipients and Temporal's UI."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.gateway import provider_callbacks, unsubscribe
from starter.gateway.codec_server import codec_routes


def application(settings: Settings, registry: Registry) -> Starlette:
    """The application over an open registry, which the caller closes."""

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
