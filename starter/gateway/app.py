"""The gateway's ASGI application: HTTP for providers, recipients and Temporal's UI."""

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from bellwire.registry import Registry
from bellwire.service.readiness import ready_route
from bellwire.service.settings import Settings
from starter.gateway import provider_callbacks, unsubscribe
from starter.gateway.codec_server import codec_routes


def application(settings: Settings, registry: Registry) -> Starlette:
    """The application over an open registry, which the caller closes."""

    routes: list[BaseRoute] = [
        ready_route(registry.ping),
        *codec_routes(settings),
        *provider_callbacks.routes(settings, registry),
    ]
    if keys := settings.link_keys:
        routes += unsubscribe.routes(keys, registry)
    return Starlette(routes=routes)
