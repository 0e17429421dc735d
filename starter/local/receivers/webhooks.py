"""WebhookReceiver: a real HTTP server that receives webhooks, answers as told, and checks signatures with another's
library.

The demo shows it to people; tests make it misbehave.
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
    """How an answer is given."""

    NORMAL = "normal"
    #: None is, until the receiver closes.
    HANG = "hang"
    #: The connection is reset (TCP RST).
    RESET = "reset"
    #: Bytes that are not HTTP.
    GARBAGE = "garbage"
    #: The status and less of the body than was announced.
    INCOMPLETE = "incomplete"
    #: A body without end, as fast as it is taken.
    HUGE = "huge"
    #: A body without end, a byte every 20 ms.
    DRIP = "drip"


@dataclass(frozen=True, kw_only=True)
class WebhookResponse:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Seconds to wait before answering.
    delay: float = 0.0
    behaviour: Behaviour = Behaviour.NORMAL


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as it arrived, and what it was answered."""

    path: str
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes
    #: The body as a JSON object; empty if it is none.
    event: dict[str, Any]
    #: Whether the signature was checked and found good; False at paths where no secret is expected.
    verified: bool
    at: datetime
    status: int
    #: The sender's address and port: requests over one connection share it.
    peer: tuple[str, int]
    method: str = "POST"


class WebhookReceiver:
    """Use as an async context manager; then `url(path)` is where it listens. Answers 204 unless told otherwise."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.received: list[Received] = []
        #: Requests that have no answer yet, and the most at one time.
        self.open = self.max_open = 0
        self._host = host
        self._port = port
        self._verifiers: dict[str, Webhook] = {}
        self._scripts: dict[str, deque[WebhookResponse]] = defaultdict(deque)
        self._repeated: dict[str, WebhookResponse] = {}
        self._welcomes: dict[str, deque[WebhookResponse]] = {}
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
        """Check each request at the path against the secret; one that fails is recorded and answered 401."""
        self._verifiers[path] = Webhook(secret)

    def script(self, path: str, *answers: int | WebhookResponse, repeat: bool = False) -> None:
        """Give these answers in turn at the path, a number being a status; then 204, or with `repeat` the last one."""
        given = [WebhookResponse(status=answer) if isinstance(answer, int) else answer for answer in answers]
        self._scripts[path].extend(given)
        if repeat:
            self._repeated[path] = given[-1]
        else:
            self._repeated.pop(path, None)

    def script_options(self, path: str, *answers: WebhookResponse) -> None:
        """Give these answers in turn to OPTIONS at the path, then the last one again and again."""
        self._welcomes[path] = deque(answers)

    def received_at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]

    async def arrived(self, n: int, path: str | None = None, *, timeout: float = 30.0) -> list[Received]:
        """The requests at the path, or at any, once there are `n`. Raises TimeoutError after `timeout` seconds."""

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
        welcomes = self._welcomes.get(request.path) if request.method == "OPTIONS" else None
        if welcomes:
            answer = welcomes.popleft() if len(welcomes) > 1 else welcomes[0]
        else:
            answer = self._next(request.path) if verified or verifier is None else WebhookResponse(status=401)
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
                    status=answer.status,
                    peer=(peer[0], peer[1]),
                    method=request.method,
                )
            )
            self._arrival.notify_all()
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        try:
            if answer.delay:
                await self._pause(answer.delay)
            return await self._answer(request, answer)
        finally:
            self.open -= 1

    def _next(self, path: str) -> WebhookResponse:
        script = self._scripts[path]
        return script.popleft() if script else self._repeated.get(path, WebhookResponse())

    async def _answer(self, request: web.Request, answer: WebhookResponse) -> web.StreamResponse:
        match answer.behaviour:
            case Behaviour.NORMAL:
                return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
            case Behaviour.HUGE | Behaviour.DRIP:
                return await self._stream(request, answer)
            case Behaviour.HANG:
                await self._closing.wait()
            case Behaviour.RESET:
                _reset(request)
            case Behaviour.GARBAGE:
                _write_raw(request, b"\x16\x03\x01 this is not HTTP \xff\r\n\r\n")
            case Behaviour.INCOMPLETE:
                head = f"HTTP/1.1 {answer.status} Cut\r\nContent-Length: {len(answer.body) + 100}\r\n\r\n"
                _write_raw(request, head.encode() + answer.body)
        return web.Response(status=answer.status)

    async def _stream(self, request: web.Request, answer: WebhookResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        drip = answer.behaviour is Behaviour.DRIP
        with _until_gone():
            await response.prepare(request)
            while not self._closing.is_set():
                await response.write(b"." if drip else b"." * 65536)
                await self._pause(0.02 if drip else 0.0)
        return response

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the receiver is open."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _verifies(verifier: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        verifier.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # it raises ValueError for a malformed signature or body
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
        # Lingering for zero seconds makes the close a reset.
        raw: socket.socket = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _write_raw(request: web.Request, text: bytes) -> None:
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.write(text)
        request.transport.close()


@contextmanager
def _until_gone() -> Iterator[None]:
    """The body of the `with`, until the client hangs up."""
    try:
        yield
    except ConnectionResetError:
        return
