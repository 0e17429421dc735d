"""The gateway's ASGI application: the HTTP API, and HTTP for providers, recipients and Temporal's UI."""

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from bellwire.client import Client
from bellwire.registry import Registry
from bellwire.service.readiness import health_route, ready_route
from bellwire.service.settings import Settings
from starter.gateway import provider_callbacks, sms_reports, unsubscribe
from starter.gateway.api.application import api
from starter.gateway.codec_server import codec_routes
from starter.gateway.wechat.callbacks import routes as wechat_routes


def application(settings: Settings, registry: Registry, client: Client | None = None) -> Starlette:
    """The application over an open registry, which the caller closes. The API is served if there is a client."""

    routes: list[BaseRoute] = [
        health_route(),
        ready_route(registry.ping),
        *codec_routes(settings),
        *provider_callbacks.routes(settings, registry),
        *wechat_routes(settings, registry),
        *sms_reports.routes(settings, registry),
    ]
    if keys := settings.link_keys:
        routes += unsubscribe.routes(keys, registry)
    if client is None:
        return Starlette(routes=routes)
    app = api(settings, registry, client)
    app.router.routes.extend(routes)
    return app
