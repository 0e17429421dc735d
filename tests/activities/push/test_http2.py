"""Http2Connection against a server that writes frames by hand: what well-behaved implementations never send."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder

from activities.providers.http import NotSent, ResponseLost
from activities.push.http2 import Http2Connection, Http2Response
from tests.activities.listeners import serving
from tests.activities.webhook.test_webhook import self_signed

TIMEOUT = 5.0
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_STREAMS, INITIAL_WINDOW = 3, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def settings(**values: int) -> bytes:
    codes = {"streams": MAX_STREAMS, "window": INITIAL_WINDOW}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", codes[name], value) for name, value in values.items()))


def go_away(last: int) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack("!II", last, 0))


def reset(stream: int, code: ErrorCodes) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def room(stream: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", 60_000))


class Peer(NamedTuple):
    """The server's end of a connection."""

    writer: asyncio.StreamWriter
    encoder: Encoder

    def answer(self, stream: int, status: str = "200", **headers: bytes) -> bytes:
        fields: list[tuple[str | bytes, str | bytes]] = [(":status", status), *headers.items()]
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, self.encoder.encode(fields, huffman=False))


#: Called with the stream of each request: at its headers, and at its end.
Behaviour = Callable[[Peer, int], Awaitable[None]]


async def nothing(peer: Peer, stream: int) -> None:
    """Say nothing."""


async def answers(peer: Peer, stream: int) -> None:
    peer.writer.write(peer.answer(stream))


@asynccontextmanager
async def connected(
    at_end: Behaviour, *, first: bytes = b"", at_headers: Behaviour = nothing, at_reset: Behaviour = nothing
) -> AsyncIterator[Http2Connection]:
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        peer = Peer(writer, Encoder())
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await reader.readexactly(24)
            writer.write(first or settings(streams=10))
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == SETTINGS and not flags & ACK:
                    writer.write(frame(SETTINGS, ACK, 0))
                if kind == HEADERS:
                    await at_headers(peer, stream)
                if kind == RST_STREAM:
                    await at_reset(peer, stream)
                if kind in {DATA, HEADERS} and flags & END_STREAM:
                    await at_end(peer, stream)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await Http2Connection.open(f"http://127.0.0.1:{port}", timeout=TIMEOUT)
    try:
        yield connection
    finally:
        await connection.close()
        server.close()
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def post(connection: Http2Connection, *, timeout: float = TIMEOUT) -> Http2Response:
    return await connection.request("/", {}, b"x" * 100, authority="a", scheme="http", timeout=timeout)


async def posts(connection: Http2Connection, number: int) -> Sequence[Http2Response | BaseException]:
    return await asyncio.gather(*(post(connection) for _ in range(number)), return_exceptions=True)


@pytest.mark.parametrize("last", [1, 2**31 - 1])
async def test_a_server_that_goes_away_still_answers_what_it_has_processed(last: int) -> None:
    async def goes_away(peer: Peer, stream: int) -> None:
        peer.writer.write(go_away(last) + peer.answer(stream))

    async with connected(goes_away) as connection:
        assert (await post(connection)).status == 200
        assert not connection.is_open


async def test_what_is_beyond_the_last_stream_was_not_sent() -> None:
    async def answers_the_first(peer: Peer, stream: int) -> None:
        if stream == 3:
            peer.writer.write(go_away(1) + peer.answer(1))

    async with connected(answers_the_first) as connection:
        first, second = await posts(connection, 2)
    assert isinstance(first, Http2Response)
    assert isinstance(second, NotSent)


async def test_later_settings_do_not_lift_the_limit_of_streams() -> None:
    at_once: list[int] = []

    async def changes(peer: Peer, stream: int) -> None:
        at_once.append(stream)
        if stream == 1:
            peer.writer.write(settings(window=70_000))
        peer.writer.write(peer.answer(stream))

    async with connected(changes, first=settings(streams=1)) as connection:
        assert [getattr(each, "status", each) for each in await posts(connection, 6)] == [200] * 6
    assert at_once == [1, 3, 5, 7, 9, 11]


async def test_a_server_may_make_room_once_it_has_seen_the_headers() -> None:
    async def makes_room(peer: Peer, stream: int) -> None:
        peer.writer.write(room(stream))

    async with connected(answers, first=settings(window=0), at_headers=makes_room) as connection:
        assert [getattr(each, "status", each) for each in await posts(connection, 3)] == [200] * 3


async def test_an_answer_before_the_end_of_the_request_counts() -> None:
    async def refuses(peer: Peer, stream: int) -> None:
        peer.writer.write(peer.answer(stream, "413") + reset(stream, ErrorCodes.NO_ERROR))

    async with connected(nothing, first=settings(window=0), at_headers=refuses) as connection:
        assert [getattr(each, "status", each) for each in await posts(connection, 2)] == [413] * 2


async def test_a_request_whose_end_was_never_sent_was_not_sent() -> None:
    # The first request may be sent before the settings arrive.
    async with connected(answers, first=settings(window=0)) as connection:
        await post(connection)
        await post_lost(connection, NotSent)


async def test_a_stream_that_is_reset_harms_no_other() -> None:
    async def resets_the_second(peer: Peer, stream: int) -> None:
        peer.writer.write(reset(stream, ErrorCodes.INTERNAL_ERROR) if stream == 3 else room(stream))

    async with connected(answers, first=settings(streams=10, window=0), at_headers=resets_the_second) as connection:
        await post(connection)
        first, *others = await posts(connection, 4)
    assert isinstance(first, NotSent)
    assert [getattr(each, "status", each) for each in others] == [200] * 3


@pytest.mark.parametrize("status", ["abc", "2e2", "99999"])
async def test_a_status_that_is_no_number_is_a_lost_response(status: str) -> None:
    async def answers_so(peer: Peer, stream: int) -> None:
        peer.writer.write(peer.answer(stream, status))

    async with connected(answers_so) as connection:
        with pytest.raises(ResponseLost, match="invalid response"):
            await post(connection)
        assert connection.is_open


async def test_headers_need_not_be_utf_8() -> None:
    async def answers_so(peer: Peer, stream: int) -> None:
        peer.writer.write(peer.answer(stream, server=b"\xff\xfe"))

    async with connected(answers_so) as connection:
        assert (await post(connection)).status == 200


async def test_a_connection_on_which_nothing_arrives_takes_no_more_requests() -> None:
    async def once(peer: Peer, stream: int) -> None:
        if stream == 1:
            await answers(peer, stream)

    async with connected(once) as connection:
        await post(connection)
        await post_lost(connection, ResponseLost)
        assert not connection.is_open


async def test_an_attempt_that_is_cancelled_leaves_room_for_others() -> None:
    resets: list[int] = []
    arrived = asyncio.Event()

    async def all_but_the_first(peer: Peer, stream: int) -> None:
        arrived.set()
        if stream > 1:
            await answers(peer, stream)

    async def counts(peer: Peer, stream: int) -> None:
        resets.append(stream)

    async with connected(all_but_the_first, first=settings(streams=1), at_reset=counts) as connection:
        cancelled = asyncio.create_task(post(connection))
        await asyncio.wait_for(arrived.wait(), TIMEOUT)
        cancelled.cancel()
        assert [getattr(each, "status", each) for each in await posts(connection, 3)] == [200] * 3
    assert resets == [1], "the server waits for nothing"


@pytest.mark.parametrize("size", [0, 4])
async def test_a_frame_of_going_away_that_is_cut_ends_the_connection(size: int) -> None:
    async def goes_away(peer: Peer, stream: int) -> None:
        peer.writer.write(frame(GOAWAY, 0, 0, bytes(size)) + bytes(20))

    async with connected(goes_away) as connection:
        with pytest.raises(ResponseLost, match="connection lost"):
            await post(connection)
        assert not connection.is_open


class Stuck(asyncio.Transport):
    """A transport whose other end does not read."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self.protocol, self.written, self.closing = protocol, 0, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        if self.written > 64 * 1024:
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.written

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.protocol.connection_lost(None)


async def test_pings_that_are_sent_without_reading_fill_no_memory() -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = Stuck(protocol)
    protocol.connection_made(transport)
    connection = Http2Connection(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))
    reader.feed_data(settings(streams=10) + frame(PING, 0, 0, bytes(8)) * 20_000)
    while transport.written <= 64 * 1024:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert transport.written < 150_000
    await connection.close()


async def test_a_server_that_does_not_speak_http_2_gets_nothing(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    context.load_cert_chain(certificate)
    trusting.load_verify_locations(certificate)

    async def reads(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        got.append(await reader.read())

    got: list[bytes] = []
    async with serving(reads, context=context) as port:
        with pytest.raises(NotSent, match="no HTTP/2"):
            await Http2Connection.open(f"https://127.0.0.1:{port}", timeout=TIMEOUT, tls=trusting)
    assert set(got) <= {b""}


async def post_lost(connection: Http2Connection, error: type[Exception]) -> None:
    with pytest.raises(error):
        await post(connection, timeout=0.3)
