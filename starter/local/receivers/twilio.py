"""FakeTwilio: a server on this machine that speaks Twilio's message API, for tests and the demo. It sends nothing."""

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

#: Codes that Twilio's own refusals carry. Other statuses without a code are answered in HTML, as gateways do.
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
    #: Where the sender wants to be told what becomes of it; None: nowhere.
    callback: str | None = None
    #: What it costs, in USD, once that is known.
    price: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmsResponse:
    """What a request comes to. `SmsResponse(accept=True, never=True)` accepts the message and never answers."""

    status: int = 201
    #: Twilio's code; left out, the one that belongs to the status.
    code: int | None = None
    message: str = "scripted"
    retry_after: int | str | None = None
    #: Whether the message exists afterwards; None: if the status says so.
    accept: bool | None = None
    #: Seconds before the answer.
    delay: float = 0
    #: No answer until the double closes.
    never: bool = False
    #: The connection is reset instead of an answer.
    reset: bool = False


@dataclass(eq=False)
class FakeTwilio:
    """An async context manager. Speaks POST and GET of Messages.json and GET of one message, with basic auth.

    `call_back` and `receive` call whoever it was told to, signed as Twilio does.
    """

    host: str = "127.0.0.1"
    #: 0: any free port.
    port: int = 0
    account_sid: str = "AC" + "0" * 32
    auth_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    #: Where URLs that begin like this are on this machine, as a proxy would know.
    local_urls: dict[str, str] = field(default_factory=dict, init=False)
    #: Accepted messages, oldest first.
    messages: list[Sent] = field(default_factory=list, init=False)
    #: Requests to send, accepted or not, and requests to list.
    posts: int = field(default=0, init=False)
    lists: int = field(default=0, init=False)

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

    def script(self, to: str, *replies: SmsResponse) -> None:
        """Answer the next requests to send to this number so, in turn; later ones are accepted."""
        self._scripts[to].extend(replies)

    def script_list(self, *replies: SmsResponse) -> None:
        """Answer the next requests to list so, in turn; replies below 400 mean the usual page."""
        self._list_script.extend(replies)

    def add_message(
        self, to: str, sender: str, body: str, *, created_at: datetime | None = None, callback: str | None = None
    ) -> Sent:
        """A message that was accepted without a request that this double saw."""
        created_at = created_at or datetime.now(UTC)
        sid = f"SM{secrets.token_hex(16)}"
        sent = Sent(sid=sid, to=to, sender=sender, body=body, created_at=created_at, callback=callback)
        self.messages.append(sent)
        return sent

    def set_status(self, sid: str, status: str, error_code: int | None = None, *, price: str | None = None) -> None:
        """Let a message have this status from now on."""
        self.messages[:] = [
            replace(sent, status=status, error_code=error_code, price=price) if sent.sid == sid else sent
            for sent in self.messages
        ]

    async def send_status_callback(self, sent: Sent, status: str, **fields: str) -> int:
        """Tell the sender that a message has this status; the answer's status."""
        assert sent.callback is not None
        service = {"MessagingServiceSid": sent.sender} if sent.sender.startswith("MG") else {"From": sent.sender}
        about = {"MessageSid": sent.sid, "MessageStatus": status, "To": sent.to, **service}
        return await self.post(sent.callback, {**about, "AccountSid": self.account_sid, **fields})

    async def send_inbound(self, url: str, body: str, **fields: str) -> int:
        """Pass on an SMS that somebody wrote to a number of the account; the answer's status."""
        return await self.post(url, {"Body": body, "AccountSid": self.account_sid, **fields})

    async def post(self, url: str, fields: dict[str, str], *, signature: str | None = None) -> int:
        """Call a URL, signed over it unless there is a `signature`; the answer's status."""
        signed = RequestValidator(self.auth_token).compute_signature(url, fields) if signature is None else signature
        found = next(
            (f"{at}{url[len(public) :]}" for public, at in self.local_urls.items() if url.startswith(public)), url
        )
        async with (
            ClientSession() as session,
            session.post(found, data=fields, headers={"X-Twilio-Signature": signed}) as answer,
        ):
            return answer.status

    async def arrived(self, number: int) -> None:
        """Wait until this many messages were accepted."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.messages) >= number)

    async def requested(self, number: int) -> None:
        """Wait until this many requests to send came, accepted or not."""
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
        reply = self._scripts[to].popleft() if self._scripts[to] else SmsResponse()
        accepted = reply.accept if reply.accept is not None else reply.status < 300
        callback = str(form["StatusCallback"]) if "StatusCallback" in form else None
        sent = self.add_message(to, sender, body, callback=callback) if accepted else None
        async with self._changed:
            self.posts += 1
            self._changed.notify_all()
        await self._hold(request, reply)
        if sent is None or reply.status >= 300:
            return _refusal(reply)
        return web.json_response(self._resource(sent), status=reply.status)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._unauthorized(request):
            return refusal
        self.lists += 1
        reply = self._list_script.popleft() if self._list_script else SmsResponse()
        await self._hold(request, reply)
        if reply.status >= 300:
            return _refusal(reply)
        query = request.query
        found = [sent for sent in reversed(self.messages) if _wanted(sent, query)]
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

    async def _hold(self, request: web.Request, reply: SmsResponse) -> None:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.reset and request.transport is not None:
            request.transport.abort()
        if reply.never:
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
            # A messaging service has not chosen yet how to send it.
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


def _wanted(sent: Sent, query: Any) -> bool:
    """Whether a message passes the filters of a list. One that is not sent yet has no DateSent: no date matches it."""
    day = sent.created_at.date().isoformat() if _was_sent(sent) else ""
    return (
        query.get("To") in {None, sent.to}
        and query.get("From") in {None, sent.sender}
        and ("DateSent" not in query or day == query["DateSent"][:10])
        and ("DateSent<" not in query or "" < day <= query["DateSent<"][:10])
        and ("DateSent>" not in query or day >= query["DateSent>"][:10])
    )


def _refusal(reply: SmsResponse) -> web.Response:
    headers = {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)}
    code = reply.code or _CODES.get(reply.status)
    if code is None:
        return web.Response(
            status=reply.status, text=f"<h1>{reply.status}</h1>", content_type="text/html", headers=headers
        )
    more = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": reply.message, "more_info": more, "status": reply.status}
    return web.json_response(body, status=reply.status, headers=headers)
