"""Metrics of the gateway: GET /metrics, and the number and duration of its requests.

They are recorded as the worker's are, by the runtime of Temporal's SDK, which serves them at an address of its own. The route
passes on what is there, to programs of the same machine and to who has an `admin` key: the port is one that everybody reaches.
"""

import ipaddress
import time

import aiohttp
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from temporalio.common import MetricMeter

from starter.gateway.api.callers import KeyVerifier
from starter.gateway.api.problems import ApiProblem, ProblemType

#: Seconds that the runtime has to respond; it takes milliseconds.
TIMEOUT = 5.0
#: The route or method of a request that has none of the gateway's: labels must not have as many values as clients send.
OTHER = "other"

#: Header fields of proxies.
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_METHODS = {"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"}


def metrics_route(address: str) -> Route:
    """GET /metrics: what the runtime serves at host:port. Raises ApiProblem without an `admin` key, unless `is_local`."""

    async def metrics(request: Request) -> Response:
        if not is_local(request):
            verifier: KeyVerifier = request.app.state.verifier
            caller = await verifier.caller(request)
            if not caller.scope.is_admin:
                detail = f"needs a key with the scope admin; this one has {caller.scope}"
                raise ApiProblem(ProblemType.FORBIDDEN, detail)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://{address}/metrics") as response,
            ):
                return PlainTextResponse(await response.read(), response.status)
        except (aiohttp.ClientError, TimeoutError):
            return PlainTextResponse("the metrics cannot be read\n", 503)

    return Route("/metrics", metrics)


def is_local(request: Request) -> bool:
    """Whether a request is from a program of this machine, and not passed on by a proxy that says so."""
    if request.client is None or any(name in request.headers for name in _PROXIED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


class RequestMetrics:
    """Around the whole application: counts requests, and measures how long they take."""

    def __init__(self, app: ASGIApp, meter: MetricMeter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def follow(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, follow)
        finally:
            # 0: the client hung up before the response.
            self._record(scope, status, time.monotonic() - began)

    def _record(self, scope: Scope, status: int, duration: float) -> None:
        labels = {"method": _method(scope), "route": _route(scope), "status": str(status)}
        self._meter.create_counter("bellwire_http_requests", "Requests to the gateway").add(1, labels)
        self._meter.create_histogram_float(
            "bellwire_http_request_duration_seconds", "Time until a request to the gateway was responded to"
        ).record(duration, labels)


def _route(scope: Scope) -> str:
    """The path with the names of its parameters, whose values may be secrets."""
    if route := scope.get("route"):
        return str(route.path)
    return OTHER if "endpoint" not in scope or scope.get("path_params") else str(scope["path"])


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else OTHER
