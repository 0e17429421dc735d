"""An HTTP server for the gateway and for readiness, which slow or broken clients cannot occupy.

It is uvicorn's HTTP/1.1 protocol with deadlines, which uvicorn leaves to a proxy in front of it: for the head of a request, for
its body, and for the client to take the response. Connections are limited. When all are taken, the one that has waited longest
for its client gives way, so that a client that sends its request at once is served beside any number that do not.
"""

import asyncio
import errno
import logging
import resource
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = structlog.get_logger("bellwire")

#: Maximum connections, and the file descriptors that are left for everything else.
MAX_CONNECTIONS, OTHER_FILES = 1000, 160
#: Connections that the system keeps until they are accepted, and that are accepted in one go.
BACKLOG = 64
#: Seconds between two log lines about connections that could not be accepted.
REFUSED_SECONDS = 60.0
#: Maximum bytes of the head of a request.
MAX_HEAD = 16_384
#: Close with a reset (struct linger of 0 s).
_RESET = struct.pack("ii", 1, 0)
#: Errors of accept() when the process or the system has no more of something.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Seconds for a client."""

    #: From connecting, or from the last response, to the end of a request's head.
    head: float = 10.0
    #: From there to the end of its body.
    body: float = 30.0
    #: Until it has taken a response.
    response: float = 30.0
    #: That a connection without a request is kept.
    idle: float = 5.0
    #: For requests in progress when the server stops.
    stop: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The response to a request that is not valid HTTP, so that no application sees it."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def plain_refusal(status: int, reason: str) -> Refusal:
    """A refusal as text."""
    return Refusal(status=status, body=reason.encode(), headers={"content-type": "text/plain; charset=utf-8"})


class _Clients:
    """The connections, and those of them that wait for their client, the longest first."""

    def __init__(self, limit: int, deadlines: Deadlines) -> None:
        self.limit, self.deadlines = limit, deadlines
        self.open = set[_Connection]()
        self.waiting: dict[_Connection, None] = {}

    def add(self, connection: "_Connection") -> bool:
        """Whether the connection may stay."""
        if len(self.open) >= self.limit:
            if not self.waiting:
                return False
            next(iter(self.waiting)).abort()
        self.open.add(connection)
        return True

    def discard(self, connection: "_Connection") -> None:
        self.open.discard(connection)
        self.waiting.pop(connection, None)


class _Connection(H11Protocol):
    """A connection whose client has to keep the deadlines."""

    def __init__(self, clients: _Clients, refuse: Callable[[int, str], Refusal], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clients, self._refuse, self._refused = clients, refuse, False
        self._receiving: tuple[object, asyncio.TimerHandle] | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The response's deadline counts every byte that the client has not taken.
        transport.set_write_buffer_limits(high=0)
        if self._clients.add(self):
            self._follow()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.discard(self)
        self._await_client(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing() and not self._refused:
            super().data_received(data)
            self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def send_400_response(self, msg: str) -> None:
        """Refuse what h11 cannot parse. uvicorn calls this while it handles h11's exception, which says why."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            # Within a response: it cannot become another one.
            self.abort()
            return
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else HTTPStatus.BAD_REQUEST
        refusal = self._refuse(status, str(error or msg))
        headers = {**refusal.headers, "content-length": str(len(refusal.body)), "connection": "close"}
        for event in (
            h11.Response(status_code=refusal.status, headers=list(headers.items())),
            h11.Data(data=refusal.body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            # The application reads a body that is not valid; for it, the client has hung up.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        # Closing with unread bytes would reset the connection, and most clients would report that instead of the response.
        self._refused = True
        self.transport.write_eof()
        self._await_client(h11.ERROR)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self._clients.deadlines.response, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def abort(self) -> None:
        """Close the connection at once, in the system too, which would wait for the client to take what is sent."""
        self._clients.discard(self)
        self._await_client(None)
        if open_socket := self.transport.get_extra_info("socket"):
            open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _follow(self) -> None:
        """Start a deadline when the client has to send something else than before."""
        state = self.conn.their_state
        if self._refused:
            return
        if state not in {h11.IDLE, h11.SEND_BODY} or self.transport.is_closing():
            self._await_client(None)
        elif self._receiving is None or self._receiving[0] is not state:
            self._await_client(state)

    def _await_client(self, state: object) -> None:
        if self._receiving is not None:
            self._receiving[1].cancel()
            self._receiving = None
            self._clients.waiting.pop(self, None)
        if state is not None:
            seconds = self._clients.deadlines.body if state is h11.SEND_BODY else self._clients.deadlines.head
            self._receiving = (state, self.loop.call_later(seconds, self.abort))
            self._clients.waiting[self] = None


def _without_disconnects(application: Any) -> Any:
    """The application, in which a client that hangs up within its request is no error."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        with suppress(ClientDisconnect):
            await application(scope, receive, send)

    return run


@asynccontextmanager
async def serving_http(
    application: Any,
    *,
    host: str,
    port: int,
    max_connections: int = MAX_CONNECTIONS,
    deadlines: Deadlines = Deadlines(),
    refuse: Callable[[int, str], Refusal] = plain_refusal,
) -> AsyncIterator[int]:
    """Serve an ASGI application until the context is left; yields the port. Raises OSError if it cannot listen.

    `refuse` makes the response to what is not valid HTTP, of the status that fits and the reason.
    """
    loop = asyncio.get_running_loop()
    # Each invalid request would be a line of the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        _without_disconnects(application),
        interface="asgi3",
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=deadlines.idle,  # type: ignore[arg-type]
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    config.load()
    state, clients = ServerState(), _Clients(_limit(max_connections), deadlines)
    server = await loop.create_server(
        lambda: _Connection(clients, refuse, config, state, {}), host, port, backlog=BACKLOG, reuse_address=True
    )
    handler = loop.get_exception_handler()
    loop.set_exception_handler(_RefusedAccepts(handler))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.set_exception_handler(handler)
        server.close()
        for connection in list(clients.open):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=deadlines.stop)
        for connection in list(clients.open):
            connection.abort()


def _limit(most: int) -> int:
    """The number of connections for which there are file descriptors."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(16, min(most, files - OTHER_FILES))


class _RefusedAccepts:
    """An exception handler of an event loop that says at most once a minute that connections cannot be accepted.

    asyncio reports each failed accept(), which are thousands a second once a process has no file descriptors left.
    """

    def __init__(self, other: Any) -> None:
        self._other = other
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context):
            if self._other:
                self._other(loop, context)
            else:
                loop.default_exception_handler(context)
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + REFUSED_SECONDS
            log.error("connections.refused", error=error.strerror)
