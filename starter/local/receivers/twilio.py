"""FakeTwilio: a server on this machine with Twilio's message API, for tests and the demo. It sends nothing."""

import asyncio
import base64
import secrets
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Self
from urllib.parse import urlencode

from aiohttp import ClientSession, web
from twilio.request_validator import RequestValidator

from bellwire.targets.sms_segments import segments

#: Twilio's error code for a status. A response with another status and no code is HTML, as from a proxy.
_CODES = {401: 20003, 404: 20404, 429: 20429, 500: 20500, 503: 20503}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A message that was accepted."""

    sid: str
    to: str
    #: A number, or the SID of a messaging service (MG…).
    sender: str
    body: str
    created_at: datetime
    status: str = "queued"
    error_code: int | None = None
    #: URL of the status callback; None: no callback.
    callback: str | None = None
    #: The price in USD, once it is known.
    price: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmsResponse:
    """How a request is handled. `SmsResponse(accept=True, never=True)` accepts the message and never responds."""

    status: int = 201
    #: Twilio's error code; None: that of the status.
    code: int | None = None
    message: str = "scripted"
    retry_after: int | str | None = None
    #: Whether the message is accepted; None: if the status is below 300.
    accept: bool | None = None
    #: Seconds before the response.
    delay: float = 0
    #: No response until the server closes.
    never: bool = False
    #: The connection is reset instead of a response.
    reset: bool = False


@dataclass(eq=False)
class FakeTwilio:
    """An async context manager. Serves POST and GET of Messages.json and GET of one message, with basic authentication.

    `send_status_callback` and `send_inbound` send callbacks, signed as Twilio's are.
    """

    host: str = "127.0.0.1"
    #: 0: any free port.
    port: int = 0
    account_sid: str = "AC" + "0" * 32
    auth_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    #: Local base URLs by public ones, as a reverse proxy maps them.
    local_urls: dict[str, str] = field(default_factory=dict, init=False)
    #: Accepted messages, oldest first.
    messages: list[Sent] = field(default_factory=list, init=False)
    #: Requests to send, accepted or not, and requests to list.
    posts: int = field(default=0, init=False)
    lists: int = field(default=0, init=False)
    #: Seconds before each response that has no delay of its own.
    latency: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._scripts: dict[str, deque[SmsResponse]] = defaultdict(deque)
        self._list_script: deque[SmsResponse] = deque()
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        path = "/2010-04-01/Accounts/{account}/Messages"
        app.router.add_post(f"{path}.json", self._create)
        app.router.add_get(f"{path}.json", self._list)
        app.router.add_get(f"{path}/{{sid}}.json", self._fetch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def script(self, to: str, *responses: SmsResponse) -> None:
        """Send these responses in turn to requests to send to this number; later requests are accepted."""
        self._scripts[to].extend(responses)

    def script_list(self, *responses: SmsResponse) -> None:
        """Send these responses in turn to requests to list; a status below 300 means the usual page."""
        self._list_script.extend(responses)

    def add_message(
        self, to: str, sender: str, body: str, *, created_at: datetime | None = None, callback: str | None = None
    ) -> Sent:
        """Add an accepted message, without a request."""
        created_at = created_at or datetime.now(UTC)
        sid = f"SM{secrets.token_hex(16)}"
        sent = Sent(sid=sid, to=to, sender=sender, body=body, created_at=created_at, callback=callback)
        self.messages.append(sent)
        return sent

    def set_status(self, sid: str, status: str, error_code: int | None = None, *, price: str | None = None) -> None:
        """Set the status of a message."""
        self.messages[:] = [
            replace(sent, status=status, error_code=error_code, price=price) if sent.sid == sid else sent
            for sent in self.messages
        ]

    async def send_status_callback(self, sent: Sent, status: str, **fields: str) -> int:
        """Call the status callback of a message; the response's status."""
        assert sent.callback is not None
        service = {"MessagingServiceSid": sent.sender} if sent.sender.startswith("MG") else {"From": sent.sender}
        about = {"MessageSid": sent.sid, "MessageStatus": status, "To": sent.to, **service}
        return await self.post(sent.callback, {**about, "AccountSid": self.account_sid, **fields})

    async def send_inbound(self, url: str, body: str, **fields: str) -> int:
        """Call the webhook for an SMS that a recipient sent; the response's status."""
        return await self.post(url, {"Body": body, "AccountSid": self.account_sid, **fields})

    async def post(self, url: str, fields: dict[str, str], *, signature: str | None = None) -> int:
        """POST to a URL, signed unless a `signature` is given; the response's status."""
        sent_signature = (
            RequestValidator(self.auth_token).compute_signature(url, fields) if signature is None else signature
        )
        local = next(
            (f"{base}{url[len(public) :]}" for public, base in self.local_urls.items() if url.startswith(public)), url
        )
        async with (
            ClientSession() as session,
            session.post(local, data=fields, headers={"X-Twilio-Signature": sent_signature}) as response,
        ):
            return response.status

    async def arrived(self, number: int) -> None:
        """Wait until this many messages are accepted."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.messages) >= number)

    async def requested(self, number: int) -> None:
        """Wait until this many requests to send have arrived, accepted or not."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.posts >= number)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        form = await request.post()
        to, body = str(form.get("To", "")), str(form.get("Body", ""))
        sender = str(form.get("From") or form.get("MessagingServiceSid") or "")
        for value, code, name in (
            (to, 21604, "'To' phone number"),
            (body, 21602, "Message body"),
            (sender, 21603, "'From'"),
        ):
            if not value:
                return _refusal(SmsResponse(status=400, code=code, message=f"{name} is required."))
        response = self._scripts[to].popleft() if self._scripts[to] else SmsResponse()
        accepted = response.accept if response.accept is not None else response.status < 300
        callback = str(form["StatusCallback"]) if "StatusCallback" in form else None
        sent = self.add_message(to, sender, body, callback=callback) if accepted else None
        async with self._changed:
            self.posts += 1
            self._changed.notify_all()
        await self._hold(request, response)
        if sent is None or response.status >= 300:
            return _refusal(response)
        return web.json_response(self._resource(sent), status=response.status)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        self.lists += 1
        response = self._list_script.popleft() if self._list_script else SmsResponse()
        await self._hold(request, response)
        if response.status >= 300:
            return _refusal(response)
        query = request.query
        found = [sent for sent in reversed(self.messages) if _matches(sent, query)]
        size, page = min(int(query.get("PageSize", 50)), 1000), int(query.get("Page", 0))
        shown = found[page * size : (page + 1) * size]

        def uri(number: int) -> str:
            return (
                f"{request.path}?{urlencode({**query, 'PageSize': size, 'Page': number, 'PageToken': f'PA{number}'})}"
            )

        return web.json_response(
            {
                "messages": [self._resource(sent) for sent in shown],
                "page": page,
                "page_size": size,
                "start": page * size,
                "end": max(page * size + len(shown) - 1, 0),
                "uri": request.path_qs,
                "first_page_uri": uri(0),
                "previous_page_uri": uri(page - 1) if page else None,
                "next_page_uri": uri(page + 1) if (page + 1) * size < len(found) else None,
            }
        )

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        for sent in self.messages:
            if sent.sid == request.match_info["sid"]:
                return web.json_response(self._resource(sent))
        return _refusal(SmsResponse(status=404, message="The requested resource was not found"))

    async def _hold(self, request: web.Request, response: SmsResponse) -> None:
        if delay := response.delay or self.latency:
            await asyncio.sleep(delay)
        if response.reset and request.transport is not None:
            request.transport.abort()
        if response.never:
            await self._closing.wait()

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        expected = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return _refusal(SmsResponse(status=401, message="Authenticate"))
        if request.match_info["account"] != self.account_sid:
            return _refusal(SmsResponse(status=404, message="The requested resource was not found"))
        return None

    def _resource(self, sent: Sent) -> dict[str, Any]:
        service = sent.sender if sent.sender.startswith("MG") else None
        date = format_datetime(sent.created_at.astimezone(UTC))
        return {
            "sid": sent.sid,
            "account_sid": self.account_sid,
            "messaging_service_sid": service,
            "from": None if service else sent.sender,
            "to": sent.to,
            "body": sent.body,
            "status": sent.status,
            "error_code": sent.error_code,
            "error_message": None,
            "direction": "outbound-api",
            "date_created": date,
            "date_updated": date,
            "date_sent": date if _was_sent(sent) else None,
            # A messaging service has not chosen the sender yet.
            "num_segments": "0" if service and not _was_sent(sent) else str(segments(sent.body).count),
            "num_media": "0",
            "price": sent.price,
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Messages/{sent.sid}.json",
            "subresource_uris": {},
        }


def _was_sent(sent: Sent) -> bool:
    return sent.status not in {"queued", "accepted", "scheduled", "canceled"}


def _matches(sent: Sent, query: Any) -> bool:
    """Whether a message matches the filters of a list. A message that is not sent yet has no DateSent, so no date matches."""
    day = sent.created_at.date().isoformat() if _was_sent(sent) else ""
    return (
        query.get("To") in {None, sent.to}
        and query.get("From") in {None, sent.sender}
        and ("DateSent" not in query or day == query["DateSent"][:10])
        and ("DateSent<" not in query or "" < day <= query["DateSent<"][:10])
        and ("DateSent>" not in query or day >= query["DateSent>"][:10])
    )


def _refusal(response: SmsResponse) -> web.Response:
    headers = {} if response.retry_after is None else {"Retry-After": str(response.retry_after)}
    code = response.code or _CODES.get(response.status)
    if code is None:
        return web.Response(
            status=response.status, text=f"<h1>{response.status}</h1>", content_type="text/html", headers=headers
        )
    more = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": response.message, "more_info": more, "status": response.status}
    return web.json_response(body, status=response.status, headers=headers)
