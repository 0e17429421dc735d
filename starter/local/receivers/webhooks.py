"""WebhookReceiver: a real HTTP server that receives webhooks, with scripted responses.

It verifies signatures with the library `standardwebhooks`, which is independent of Bellwire. The demo and tests use it.
"""

import asyncio
import json
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


class Behaviour(StrEnum):
    """How a response is sent."""

    NORMAL = "normal"
    #: No response until the receiver closes.
    HANG = "hang"
    #: The connection is reset (TCP RST).
    RESET = "reset"
    #: Bytes that are not HTTP.
    GARBAGE = "garbage"
    #: The status, and less of the body than its Content-Length.
    INCOMPLETE = "incomplete"
    #: An endless body, as fast as the client reads.
    HUGE = "huge"
    #: An endless body, a byte every 20 ms.
    DRIP = "drip"


@dataclass(frozen=True, kw_only=True)
class WebhookResponse:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Seconds before the response.
    delay: float = 0.0
    behaviour: Behaviour = Behaviour.NORMAL


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request that arrived, and the status of its response."""

    path: str
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes
    #: The body as a JSON object; empty if it is not one.
    event: dict[str, Any]
    #: Whether the signature is valid; False at paths without a secret.
    verified: bool
    at: datetime
    status: int
    #: The sender's address and port: requests over one connection share it.
    peer: tuple[str, int]
    method: str = "POST"


class WebhookReceiver:
    """An async context manager; `url(path)` is its address. Without a script it responds 204."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.received: list[Received] = []
        #: Seconds before each response that has no delay of its own.
        self.latency = 0.0
        #: Requests without a response yet, and the maximum at one time.
        self.open = self.max_open = 0
        self._host = host
        self._port = port
        self._verifiers: dict[str, Webhook] = {}
        self._scripts: dict[str, deque[WebhookResponse]] = defaultdict(deque)
        self._repeated: dict[str, WebhookResponse] = {}
        self._options_scripts: dict[str, deque[WebhookResponse]] = {}
        self._arrival = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        return self._port

    def url(self, path: str = "/") -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}{path}"

    def expect(self, path: str, secret: str) -> None:
        """Verify each request at the path with the secret; one that fails is recorded and gets 401."""
        self._verifiers[path] = Webhook(secret)

    def script(self, path: str, *responses: int | WebhookResponse, repeat: bool = False) -> None:
        """Send these responses in turn at the path (a number is a status); then 204, or with `repeat` the last one."""
        scripted = [
            WebhookResponse(status=response) if isinstance(response, int) else response for response in responses
        ]
        self._scripts[path].extend(scripted)
        if repeat:
            self._repeated[path] = scripted[-1]
        else:
            self._repeated.pop(path, None)

    def script_options(self, path: str, *responses: WebhookResponse) -> None:
        """Send these responses in turn to OPTIONS at the path, then repeat the last one."""
        self._options_scripts[path] = deque(responses)

    def received_at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]

    async def arrived(self, n: int, path: str | None = None, *, timeout: float = 30.0) -> list[Received]:
        """The requests at the path, or at any path, once there are `n`. Raises TimeoutError after `timeout` seconds."""

        def so_far() -> list[Received]:
            return [one for one in self.received if path in {None, one.path}]

        try:
            async with asyncio.timeout(timeout), self._arrival:
                await self._arrival.wait_for(lambda: len(so_far()) >= n)
        except TimeoutError:
            raise TimeoutError(f"{len(so_far())} of {n} webhooks arrived within {timeout:g} s") from None
        return so_far()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        verifier = self._verifiers.get(request.path)
        verified = verifier is not None and _verifies(verifier, body, headers)
        scripted = self._options_scripts.get(request.path) if request.method == "OPTIONS" else None
        if scripted:
            response = scripted.popleft() if len(scripted) > 1 else scripted[0]
        else:
            response = self._next(request.path) if verified or verifier is None else WebhookResponse(status=401)
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        async with self._arrival:
            self.received.append(
                Received(
                    path=request.path,
                    headers=headers,
                    body=body,
                    event=_object(body),
                    verified=verified,
                    at=datetime.now(UTC),
                    status=response.status,
                    peer=(peer[0], peer[1]),
                    method=request.method,
                )
            )
            self._arrival.notify_all()
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        try:
            if delay := response.delay or self.latency:
                await self._pause(delay)
            return await self._respond(request, response)
        finally:
            self.open -= 1

    def _next(self, path: str) -> WebhookResponse:
        script = self._scripts[path]
        return script.popleft() if script else self._repeated.get(path, WebhookResponse())

    async def _respond(self, request: web.Request, response: WebhookResponse) -> web.StreamResponse:
        match response.behaviour:
            case Behaviour.NORMAL:
                return web.Response(status=response.status, headers=response.headers, body=response.body)
            case Behaviour.HUGE | Behaviour.DRIP:
                return await self._stream(request, response)
            case Behaviour.HANG:
                await self._closing.wait()
            case Behaviour.RESET:
                _reset(request)
            case Behaviour.GARBAGE:
                _write_raw(request, b"\x16\x03\x01 this is not HTTP \xff\r\n\r\n")
            case Behaviour.INCOMPLETE:
                head = f"HTTP/1.1 {response.status} Cut\r\nContent-Length: {len(response.body) + 100}\r\n\r\n"
                _write_raw(request, head.encode() + response.body)
        return web.Response(status=response.status)

    async def _stream(self, request: web.Request, response: WebhookResponse) -> web.StreamResponse:
        stream = web.StreamResponse(status=response.status, headers=response.headers)
        drip = response.behaviour is Behaviour.DRIP
        with _until_hang_up():
            await stream.prepare(request)
            while not self._closing.is_set():
                await stream.write(b"." if drip else b"." * 65536)
                await self._pause(0.02 if drip else 0.0)
        return stream

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until the receiver closes."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _verifies(verifier: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        verifier.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: a malformed signature or body
        return False
    return True


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        # Lingering for zero seconds turns the close into a reset.
        raw: socket.socket = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _write_raw(request: web.Request, text: bytes) -> None:
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.write(text)
        request.transport.close()


@contextmanager
def _until_hang_up() -> Iterator[None]:
    """Run the body of the `with` until the client hangs up."""
    try:
        yield
    except ConnectionResetError:
        return
