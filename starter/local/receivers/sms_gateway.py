"""FakeSmsGateway: a server on this machine that takes SMS over plain HTTP, as many providers do. It sends nothing."""

import asyncio
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from starter.local.receivers.twilio import SmsResponse


@dataclass(frozen=True, kw_only=True)
class AcceptedSms:
    """An SMS that was accepted."""

    id: str
    to: str
    text: str
    sender: str
    reference: str


@dataclass(eq=False)
class FakeSmsGateway:
    """An async context manager. POST /messages takes {to, from, text, ref} as JSON or a form, with a bearer token.

    A second POST under one Idempotency-Key is answered with the first one's id. GET /messages?ref= finds what was taken.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    #: Accepted SMS, oldest first.
    accepted: list[AcceptedSms] = field(default_factory=list, init=False)
    #: Headers of each request to send, accepted or not; and how often it was asked what it has.
    posts: list[dict[str, str]] = field(default_factory=list, init=False)
    lookups: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._script: deque[tuple[SmsResponse, Any]] = deque()
        self._look_up_script: deque[SmsResponse] = deque()
        self._by_key: dict[str, AcceptedSms] = {}
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/messages", self._create)
        app.router.add_get("/messages", self._find)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    def script(self, *replies: SmsResponse, body: Any = None) -> None:
        """Answer the next requests to send so, in turn, with this body if there is one; later ones are accepted."""
        self._script.extend((reply, body) for reply in replies)

    def script_lookup(self, *replies: SmsResponse) -> None:
        """Answer the next requests to find so, in turn; those below 300 as usual."""
        self._look_up_script.extend(replies)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        self.posts.append(dict(request.headers))
        if refusal := self._unauthorized(request):
            return refusal
        given = await request.json() if request.content_type == "application/json" else dict(await request.post())
        reply, body = self._script.popleft() if self._script else (SmsResponse(status=202), None)
        accepted = reply.accept if reply.accept is not None else reply.status < 300
        key = request.headers.get("Idempotency-Key", "")
        taken = self._take(given, key) if accepted else None
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.reset and request.transport is not None:
            request.transport.abort()
        if reply.never:
            await self._closing.wait()
        headers = {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)}
        if body is None:
            body = {"message": {"id": taken.id}} if taken else {"error": {"code": reply.code, "text": reply.message}}
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=reply.status, text=text, content_type="application/json", headers=headers)

    async def _find(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        self.lookups += 1
        reply = self._look_up_script.popleft() if self._look_up_script else SmsResponse(status=200)
        if reply.reset and request.transport is not None:
            request.transport.abort()
        if reply.status >= 300:
            return web.json_response({}, status=reply.status)
        found = [{"id": taken.id} for taken in self.accepted if taken.reference == request.query.get("ref")]
        return web.json_response({"messages": found})

    def _take(self, given: dict[str, Any], key: str) -> AcceptedSms:
        if key in self._by_key:
            return self._by_key[key]
        values = {name: str(given.get(wire, "")) for name, wire in _WIRE.items()}
        taken = AcceptedSms(id=f"msg-{secrets.token_hex(8)}", **values)
        self.accepted.append(taken)
        if key:
            self._by_key[key] = taken
        return taken

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": {"code": "bad_token"}}, status=401)
        return None


_WIRE = {"to": "to", "text": "text", "sender": "from", "reference": "ref"}
