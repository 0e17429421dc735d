"""The HTTP API as an application: the routes, and what all of them share."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from bellwire.client import Client
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.gateway.api.callers import KeyVerifier
from starter.gateway.api.explanations import explaining, simulating
from starter.gateway.api.idempotency import IdempotencyKeys
from starter.gateway.api.openapi import describe
from starter.gateway.api.problems import handle_problems
from starter.gateway.api.publishing import Publishing
from starter.gateway.api.rate_limits import RateLimits
from starter.gateway.api.replays import routes
from starter.gateway.api.requests import ResponseHeaders
from starter.gateway.api.resources import (
    api_keys,
    audit_log,
    channels,
    deliveries,
    event_types,
    events,
    limits,
    polling,
    subscriptions,
    suppressions,
    templates,
    tenants,
)
from starter.gateway.bodies import WholeBodies
from starter.gateway.well_formed import WellFormed
from starter.operations.catalog.checking import PublishedTypes
from starter.operations.delivery.polling import FeedWatcher

ROUTERS = (
    events.router,
    explaining.router,
    event_types.router,
    subscriptions.router,
    simulating.router,
    polling.router,
    routes.router,
    deliveries.router,
    suppressions.router,
    templates.router,
    channels.router,
    tenants.router,
    limits.router,
    api_keys.router,
    audit_log.router,
)

#: What pages of other origins may send and read, where BELLWIRE_API_ORIGINS allows them.
REQUEST_HEADERS = (
    *("authorization", "content-type", "idempotency-key", "if-match", "prefer", "x-request-id"),
    *("ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time", "ce-dataschema", "ce-tenant"),
)
RESPONSE_HEADERS = (
    *("etag", "link", "location", "preference-applied", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"),
    "idempotency-replayed",
)


def api(settings: Settings, registry: Registry, client: Client) -> FastAPI:
    """The API. `client` publishes, and controls what is published."""
    app = FastAPI(
        title="Bellwire",
        version="1",
        description="Publish events, subscribe to them, and follow their deliveries.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.registry, app.state.client = settings, registry, client
    app.state.verifier = verifier = KeyVerifier(registry)
    types = PublishedTypes(registry, refuse_unknown=settings.unknown_types == "refuse")
    app.state.feeds = FeedWatcher(registry)
    app.state.limits = limits = RateLimits.of(settings)
    app.router.routes.extend(Publishing(client, verifier, limits, types).routes())
    for router in ROUTERS:
        app.include_router(router)
    app.state.paths = [*app.router.routes, *(route for router in ROUTERS for route in router.routes)]
    handle_problems(app)
    describe(app)
    # The last one added is the outermost.
    app.add_middleware(IdempotencyKeys, registry=registry, verifier=verifier)
    app.add_middleware(WellFormed, verifier=verifier)
    if settings.api_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
        )
    app.add_middleware(ResponseHeaders)
    app.add_middleware(WholeBodies)
    return app
