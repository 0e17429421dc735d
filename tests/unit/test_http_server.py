"""Clients that are slow, hang up or come in thousands occupy neither connections nor the log."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from bellwire.service.http_server import Deadlines, Refusal, serving_http

HALF_HEAD = b"GET /quick HTTP/1.1\r\nHost: x\r\nX-A"
QUICK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nhalf"
LARGE = 50_000_000
#: So short that tests end, and so long that nothing else of a test falls under them.
SHORT, LONG = 0.2, 600.0


class Application:
    """Routes that read, wait, or send a lot. `hung_up` counts requests whose client went away."""

    def __init__(self) -> None:
        self.gate, self.started, self.hung_up = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)
        self.asgi = Starlette(
            routes=[
                Route("/quick", self.quick, methods=["GET"]),
                Route("/slow", self.slow),
                Route("/body", self.body, methods=["POST"]),
                Route("/large", self.large),
            ]
        )

    async def quick(self, _: Request) -> Response:
        return Response("quick")

    async def slow(self, _: Request) -> Response:
        self.started.set()
        await self.gate.wait()
        return Response("slow")

    async def body(self, request: Request) -> Response:
        self.started.set()
        try:
            return Response(await request.body())
        except ClientDisconnect:
            self.hung_up.release()
            raise

    async def large(self, _: Request) -> Response:
        return Response(b"x" * LARGE)


@asynccontextmanager
async def serving(
    *, head: float = LONG, body: float = LONG, response: float = LONG, idle: float = LONG, most: int = 100
) -> AsyncIterator[tuple[Application, int]]:
    application = Application()
    deadlines = Deadlines(head=head, body=body, response=response, idle=idle)
    async with serving_http(
        application.asgi, host="127.0.0.1", port=0, max_connections=most, deadlines=deadlines
    ) as port:
        yield application, port


@asynccontextmanager
async def client(port: int, sent: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server hangs up."""
    received = b""
    async with asyncio.timeout(30):
        try:
            while piece := await reader.read(65_536):
                received += piece
        except ConnectionError:
            pass
    return received


async def send_on(connection: socket.socket) -> None:
    """Send until it fails."""
    while True:
        await asyncio.get_running_loop().sock_sendall(connection, b"\r\n")
        await asyncio.sleep(SHORT / 10)


async def responded(reader: asyncio.StreamReader) -> bytes:
    """The status line of a response that is whole."""
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    return head.partition(b"\r\n")[0]


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, b"G"])
async def test_head_has_a_deadline(sent: bytes) -> None:
    async with serving(head=SHORT) as (_, port), client(port, sent) as (reader, _):
        assert await everything(reader) == b""


async def test_head_that_trickles_does_not_postpone_its_deadline() -> None:
    async with serving(head=SHORT) as (_, port), client(port, HALF_HEAD) as (reader, writer):
        closed = asyncio.create_task(everything(reader))
        while not closed.done():
            writer.write(b"a")
            await asyncio.wait([closed], timeout=SHORT / 10)
        assert closed.result() == b""


async def test_body_has_a_deadline_of_its_own_and_its_request_ends() -> None:
    async with serving(body=SHORT) as (application, port), client(port, HALF_BODY) as (reader, writer):
        closed = asyncio.create_task(everything(reader))
        while not closed.done():
            writer.write(b"")
            await asyncio.wait([closed], timeout=SHORT / 10)
        assert closed.result() == b""
        await asyncio.wait_for(application.hung_up.acquire(), 30)


async def test_head_of_a_further_request_has_a_deadline_too() -> None:
    async with serving(head=SHORT) as (_, port), client(port, QUICK) as (reader, writer):
        assert await responded(reader) == b"HTTP/1.1 200 OK"
        writer.write(HALF_HEAD)
        assert await everything(reader) == b""


async def test_connection_without_a_request_is_closed() -> None:
    async with serving(idle=SHORT) as (_, port), client(port, QUICK) as (reader, _):
        assert await responded(reader) == b"HTTP/1.1 200 OK"
        assert await everything(reader) == b""


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
async def test_response_that_is_not_read_is_given_up(close: bytes) -> None:
    async with serving(response=SHORT) as (_, port):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", port))
            await loop.sock_sendall(slow, b"GET /large HTTP/1.1\r\nHost: x\r\n%s\r\n" % close)
            # Nothing is read; the server's reset makes writing fail.
            async with asyncio.timeout(30):
                with pytest.raises(ConnectionError):
                    await send_on(slow)


async def test_requests_within_the_deadlines_are_served() -> None:
    async with serving(head=10, body=10, response=10, idle=10) as (_, port), client(port) as (reader, writer):
        for request in (QUICK, HALF_BODY + b"a" * 26, QUICK):
            writer.write(request)
            assert await responded(reader) == b"HTTP/1.1 200 OK"


async def test_application_takes_as_long_as_it_needs() -> None:
    async with (
        serving(head=SHORT, body=SHORT, response=SHORT, idle=SHORT) as (application, port),
        client(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") as (reader, _),
    ):
        await asyncio.wait_for(application.started.wait(), 30)
        async with client(port, HALF_HEAD) as (other, _):
            assert await everything(other) == b""  # a deadline has passed
        application.gate.set()
        assert await responded(reader) == b"HTTP/1.1 200 OK"


async def test_when_all_connections_are_taken_the_one_that_waited_longest_gives_way() -> None:
    async with serving(most=20) as (_, port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for number, (_, writer) in enumerate(held):
            writer.write(HALF_HEAD if number % 2 else HALF_BODY)
        async with client(port, QUICK) as (reader, _):
            assert await responded(reader) == b"HTTP/1.1 200 OK"
        done, pending = await asyncio.wait(
            [asyncio.create_task(everything(reader)) for reader, _ in held],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=30,
        )
        assert len(done) == 1
        for _, writer in held:
            writer.transport.abort()
        await asyncio.wait(pending)


async def test_connections_whose_requests_are_in_progress_do_not_give_way() -> None:
    async with serving(most=16) as (application, port):
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(16)]
        for _, writer in busy:
            application.started.clear()
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(application.started.wait(), 30)
        async with client(port, QUICK) as (reader, _):
            assert await everything(reader) == b""
        application.gate.set()
        for reader, writer in busy:
            assert await responded(reader) == b"HTTP/1.1 200 OK"
            writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /quick HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\0\0\r\n\r\n",
        b"GET /quick HTTP/1.1\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_invalid_requests_are_refused_without_a_log_line(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(idle=SHORT) as (_, port), client(port, sent) as (reader, _):
        received = await everything(reader)
        assert received.startswith(b"HTTP/1.1 4") or received == b"" or b"quick" in received
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"GET /quick HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"GET /" + b"x" * 100_000, 431, "Receive buffer too long"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "bad Content-Length"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Only Transfer-Encoding: chunked"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400, "illegal chunk header"),
    ],
)
async def test_a_refusal_is_made_of_what_is_wrong(sent: bytes, status: int, reason: str) -> None:
    def refuse(given: int, text: str) -> Refusal:
        assert given == status
        return Refusal(status=418, body=text.encode(), headers={"x-a": "b"})

    async with (
        serving_http(Application().asgi, host="127.0.0.1", port=0, refuse=refuse) as port,
        client(port, sent) as (reader, _),
    ):
        head, _, body = (await everything(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 418 ")
    assert b"x-a: b\r\n" in head
    assert f"content-length: {len(body)}".encode() in head
    assert body.decode().startswith(reason)


async def test_a_refusal_arrives_although_the_client_sends_more() -> None:
    async with serving() as (_, port), client(port, b"GET /" + b"x" * 3_000_000) as (reader, writer):
        assert (await everything(reader)).startswith(b"HTTP/1.1 431 ")
        # The client has not hung up; what it sends is thrown away.
        writer.write(QUICK)
        await writer.drain()


async def test_a_request_whose_body_is_refused_ends() -> None:
    sent = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving() as (application, port), client(port, sent) as (reader, writer):
        await asyncio.wait_for(application.started.wait(), 30)
        writer.write(b"z\r\n")
        assert (await everything(reader)).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(application.hung_up.acquire(), 30)


async def test_a_refused_client_that_does_not_hang_up_is_closed_by_its_deadline() -> None:
    async with serving(head=SHORT) as (_, port):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(connection, b"\x16\x03\x01\0\0\r\n\r\n")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_on(connection), 30)
        connection.close()


async def test_client_that_hangs_up_within_a_body_leaves_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (application, port):
        async with client(port, HALF_BODY):
            await asyncio.wait_for(application.started.wait(), 30)
        await asyncio.wait_for(application.hung_up.acquire(), 30)
        async with client(port, QUICK) as (reader, _):
            assert await responded(reader) == b"HTTP/1.1 200 OK"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_stopping_waits_for_requests_in_progress() -> None:
    async with asyncio.timeout(30):
        async with serving() as (application, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await application.started.wait()
            asyncio.get_running_loop().call_later(0.05, application.gate.set)
        assert (await everything(reader)).startswith(b"HTTP/1.1 200 OK")
        writer.transport.abort()


async def test_connections_that_cannot_be_accepted_are_one_line_a_minute() -> None:
    async with serving():
        loop = asyncio.get_running_loop()
        context = {
            "message": "socket.accept() out of system resource",
            "exception": OSError(errno.EMFILE, "Too many open files"),
            "socket": "listening",
        }
        with capture_logs() as lines:
            for _ in range(1000):
                loop.call_exception_handler(dict(context))
        assert [line["event"] for line in lines] == ["connections.refused"]


async def test_other_errors_of_the_event_loop_are_reported_as_before(caplog: pytest.LogCaptureFixture) -> None:
    async with serving():
        asyncio.get_running_loop().call_exception_handler({"message": "something else"})
    assert [record.message for record in caplog.records] == ["something else"]
