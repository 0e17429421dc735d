"""FakeProvider: what the fakes of providers share. They accept messages over HTTP, send nothing, and can misbehave."""

import asyncio
import json
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a request is answered. `Answer(accept=True, reset=True)` accepts the message and loses the response."""

    status: int = 200
    #: JSON, or a text as it is; None: the provider's usual answer.
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the message is accepted.
    accept: bool = False
    #: Seconds before the response.
    delay: float = 0
    #: The connection is reset instead of a response.
    reset: bool = False
    #: No response until the server closes.
    never: bool = False


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The usual answer.
ACCEPT = Answer(accept=True)


@dataclass(frozen=True, kw_only=True)
class Received:
    """A message that was accepted."""

    #: Whom it is for, as the request says it.
    recipient: str
    content: Any
    #: How often it was changed.
    edits: int = 0
    #: By what the provider could tell that it is a repetition; empty if there is nothing.
    key: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    #: When, by the monotonic clock.
    at: float = field(default_factory=time.monotonic)
    #: Whether it was taken back.
    recalled: bool = False


@dataclass
class FakeTokens:
    """Access tokens that are issued and expire. `life` is in seconds."""

    life: float = 7200.0
    #: Whether a new token ends those before it.
    single: bool = False
    issued: list[str] = field(default_factory=list)
    #: Requests for a token, and how the next ones are answered; later ones get a token.
    requests: int = 0
    script: deque[Answer] = field(default_factory=deque)
    _valid_until: dict[str, float] = field(default_factory=dict)

    def issue(self) -> str:
        """A new token."""
        if self.single:
            self.revoke()
        token = secrets.token_hex(24)
        self.issued.append(token)
        self._valid_until[token] = time.monotonic() + self.life
        return token

    def revoke(self) -> None:
        """No token that was issued is valid any more."""
        self._valid_until.clear()

    def is_valid(self, token: str) -> bool:
        return time.monotonic() < self._valid_until.get(token, 0.0)


class FakeProvider:
    """An async context manager. A subclass adds routes to `app` in `add_routes`, which answer by `answer`."""

    #: How a request without a valid token is answered.
    unauthorized: ClassVar[Answer]

    def __init__(self) -> None:
        self.url = ""
        self.tokens = FakeTokens()
        #: Accepted messages, oldest first.
        self.accepted: list[Received] = []
        #: Requests to send, accepted or not.
        self.requests = 0
        #: Answers by recipient, whenever a message for it comes.
        self.by_recipient: dict[str, Answer] = {}
        #: Seconds before each answer that has no delay of its own.
        self.latency = 0.0
        #: Ids of messages that cannot be changed or taken back any more.
        self.too_old: set[str] = set()
        self._scripts: dict[str, deque[Answer]] = defaultdict(deque)
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()

    def add_routes(self, app: web.Application) -> None:
        """Add what the provider serves."""
        raise NotImplementedError

    def is_authorized(self, request: web.Request) -> bool:
        """Whether the request has a token that is valid, as a parameter or in a header."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.tokens.is_valid(request.query.get("access_token", bearer))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    def script(self, *answers: Answer, recipient: str = "") -> None:
        """Give these answers in turn to requests for this recipient, or for any; later requests are accepted."""
        self._scripts[recipient].extend(answers)

    def contents(self, recipient: str) -> list[Any]:
        """What the recipient got, oldest first."""
        return [each.content for each in self.accepted if each.recipient == recipient]

    @property
    def duplicates(self) -> int:
        """Accepted messages that repeat the key of an earlier one."""
        keys = [each.key for each in self.accepted if each.key]
        return len(keys) - len(set(keys))

    def shown(self, recipient: str) -> list[Any]:
        """What the recipient sees: without what was taken back."""
        return [each.content for each in self.accepted if each.recipient == recipient and not each.recalled]

    def find(self, message_id: str) -> Received | None:
        """The message with this id that was not taken back."""
        return next((each for each in self.accepted if each.id == message_id and not each.recalled), None)

    def alter(self, message: Received, **fields: Any) -> None:
        """Change an accepted message."""
        self.accepted[self.accepted.index(message)] = replace(message, **fields)

    async def arrived(self, number: int, *, timeout: float = 30.0) -> list[Received]:
        """Wait until so many messages have been accepted, and return them. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(self.accepted) >= number)
        return list(self.accepted)

    def issuing(self, handler: Handler) -> Handler:
        """The handler of requests for tokens: they are counted, and answered by the script of `tokens` first."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.tokens.requests += 1
            answer = self.tokens.script.popleft() if self.tokens.script else ACCEPT
            await self._hold(request, answer)
            return await handler(request) if answer.accept else _response(answer)

        return handle

    def authorized(self, handler: Handler) -> Handler:
        """The handler of requests that need a token."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request) if self.is_authorized(request) else _response(self.unauthorized)

        return handle

    async def answer(
        self, request: web.Request, message: Received, usual: Callable[[Received], Any]
    ) -> web.StreamResponse:
        """Accept or refuse a message by the scripts. `usual` makes the body of the provider's answer to an accepted one."""
        return await self.respond(request, message, usual, accept=self.accepted.append)

    async def answer_change(
        self, request: web.Request, message: Received, usual: Callable[[Received], Any], **fields: Any
    ) -> web.StreamResponse:
        """Change an accepted message, or refuse to, by the scripts."""
        return await self.respond(request, message, usual, accept=lambda sent: self.alter(sent, **fields))

    async def respond(
        self,
        request: web.Request,
        message: Received,
        usual: Callable[[Received], Any],
        *,
        accept: Callable[[Received], None],
    ) -> web.StreamResponse:
        """Do what is asked about a message, or refuse it, by the scripts of its recipient."""
        self.requests += 1
        script = self._scripts[message.recipient] or self._scripts[""]
        answer = script.popleft() if script else self.by_recipient.get(message.recipient, ACCEPT)
        if answer.accept:
            async with self._changed:
                accept(message)
                self._changed.notify_all()
        await self._hold(request, answer)
        if answer.body is None and answer.accept:
            answer = replace(answer, body=usual(message))
        return _response(answer)

    async def _hold(self, request: web.Request, answer: Answer) -> None:
        """Do what comes before the response."""
        if delay := answer.delay or self.latency:
            await asyncio.sleep(delay)
        if answer.reset and request.transport is not None:
            request.transport.abort()
        if answer.never:
            await self._closing.wait()


def _response(answer: Answer) -> web.Response:
    body = answer.body
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    kind = "text/plain" if isinstance(body, str) else "application/json"
    return web.Response(status=answer.status, text=text, content_type=kind, headers=dict(answer.headers))
