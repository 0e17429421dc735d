"""FakeSmsGateway: a server on this machine that accepts SMS over plain HTTP, as many providers do. It sends nothing."""

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
    idempotency_key: str


@dataclass(eq=False)
class FakeSmsGateway:
    """An async context manager. POST /messages accepts {to, from, text, ref} as JSON or a form, with a bearer token.

    A second POST with the same Idempotency-Key gets the first one's id. GET /messages?ref= finds accepted SMS.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    #: Accepted SMS, oldest first.
    accepted: list[AcceptedSms] = field(default_factory=list, init=False)
    #: Headers of each request to send, accepted or not; and the number of requests to find.
    posts: list[dict[str, str]] = field(default_factory=list, init=False)
    lookups: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._script: deque[tuple[SmsResponse, Any]] = deque()
        self._lookup_script: deque[SmsResponse] = deque()
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

    def script(self, *responses: SmsResponse, body: Any = None) -> None:
        """Send these responses in turn to requests to send, with this body if given; later requests are accepted."""
        self._script.extend((response, body) for response in responses)

    def script_lookup(self, *responses: SmsResponse) -> None:
        """Send these responses in turn to requests to find; a status below 300 means the usual response."""
        self._lookup_script.extend(responses)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        self.posts.append(dict(request.headers))
        if refusal := self._unauthorized(request):
            return refusal
        given = await request.json() if request.content_type == "application/json" else dict(await request.post())
        response, body = self._script.popleft() if self._script else (SmsResponse(status=202), None)
        accept = response.accept if response.accept is not None else response.status < 300
        key = request.headers.get("Idempotency-Key", "")
        sms = self._accept(given, key) if accept else None
        if response.delay:
            await asyncio.sleep(response.delay)
        if response.reset and request.transport is not None:
            request.transport.abort()
        if response.never:
            await self._closing.wait()
        headers = {} if response.retry_after is None else {"Retry-After": str(response.retry_after)}
        if body is None:
            body = {"message": {"id": sms.id}} if sms else {"error": {"code": response.code, "text": response.message}}
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=response.status, text=text, content_type="application/json", headers=headers)

    async def _find(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        self.lookups += 1
        response = self._lookup_script.popleft() if self._lookup_script else SmsResponse(status=200)
        if response.reset and request.transport is not None:
            request.transport.abort()
        if response.status >= 300:
            return web.json_response({}, status=response.status)
        found = [{"id": sms.id} for sms in self.accepted if sms.idempotency_key == request.query.get("ref")]
        return web.json_response({"messages": found})

    def _accept(self, given: dict[str, Any], key: str) -> AcceptedSms:
        if key in self._by_key:
            return self._by_key[key]
        values = {name: str(given.get(parameter, "")) for name, parameter in _FIELDS.items()}
        sms = AcceptedSms(id=f"msg-{secrets.token_hex(8)}", **values)
        self.accepted.append(sms)
        if key:
            self._by_key[key] = sms
        return sms

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": {"code": "bad_token"}}, status=401)
        return None


_FIELDS = {"to": "to", "text": "text", "sender": "from", "idempotency_key": "ref"}
