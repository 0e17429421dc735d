"""Responses that break the rules of HTTP, sent by real servers: what counts of them in webhooks, downloads and provider calls."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from activities.egress.download import Downloader, DownloadFailed
from activities.egress.policy import Egress
from activities.egress.responses import MAX_FIELDS, MAX_HEAD, MAX_INTERIM
from activities.providers.http import ResponseLost, call, limits, provider_session
from bellwire.deliveries import Outcome, OutcomeKind
from tests.activities.listeners import serving
from tests.activities.webhook.test_webhook import channel, due_at

LOOPBACK = ip_network("127.0.0.1/32")
DELIVERED, DEFERRED, REJECTED = OutcomeKind.DELIVERED, OutcomeKind.DEFERRED, OutcomeKind.REJECTED
OK, NO_CONTENT = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@asynccontextmanager
async def answering(*blocks: bytes, close: bool = False, pause: float = 0.02) -> AsyncIterator[str]:
    """A server that sends the blocks one after the other for each request. Without `close` it keeps the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            await reader.readexactly(int(lengths[0]) if lengths else 0)
            for number, block in enumerate(blocks):
                if number:
                    await asyncio.sleep(pause)
                writer.write(block)
                await writer.drain()
            if close:
                return

    async with serving(serve) as port:
        yield f"http://127.0.0.1:{port}/"


async def outcomes(*blocks: bytes, number: int = 1, close: bool = False, timeout: float = 10) -> Sequence[Outcome]:
    async with answering(*blocks, close=close) as url, channel(timeout=timeout) as webhook:
        return [await webhook.attempt(due_at(url)) for _ in range(number)]


ODD_RESPONSES = {
    "204 with a body": (NO_CONTENT + b"\r\nhello", DELIVERED, "HTTP 204"),
    "204 with a length and a body": (NO_CONTENT + b"Content-Length: 5\r\n\r\nhello", DELIVERED, "HTTP 204"),
    "204 with chunks": (NO_CONTENT + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", DELIVERED, "HTTP 204"),
    "304 with a body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", DEFERRED, "HTTP 304"),
    "more bytes than the length": (OK + b"Content-Length: 2\r\n\r\nokSURPLUS", DELIVERED, "HTTP 200"),
    "more bytes after chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nSURPLUS",
        DELIVERED,
        "HTTP 200",
    ),
    "two responses": ((OK + b"Content-Length: 0\r\n\r\n") * 2, DELIVERED, "HTTP 200"),
    "the length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", DELIVERED, "HTTP 200"),
    "the length twice in one field": (OK + b"Content-Length: 2, 2\r\n\r\nok", DELIVERED, "HTTP 200"),
    "chunked and a length": (
        OK + b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        DELIVERED,
        "HTTP 200",
    ),
    "chunked twice": (
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        DELIVERED,
        "HTTP 200",
    ),
    "9 KB in one field": (OK + b"X: " + b"x" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok", DELIVERED, "HTTP 200"),
    "60 KB of fields": (OK + b"X: y\r\n" * 900 + b"Y: " + b"y" * 50_000 + b"\r\n\r\n", DELIVERED, "HTTP 200"),
    "129 fields": (OK + b"X: y\r\n" * 129 + b"Content-Length: 2\r\n\r\nok", DELIVERED, "HTTP 200"),
    "line ends without CR": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", DELIVERED, "HTTP 200"),
    "a line that is no field": (OK + b"Warning in line 3\r\nContent-Length: 2\r\n\r\nok", DELIVERED, "HTTP 200"),
    "garbage in place of chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", DELIVERED, "HTTP 200"),
    "half a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", DELIVERED, "HTTP 200"),
    "half a body": (OK + b"Content-Length: 200\r\n\r\nbegun", DELIVERED, "HTTP 200"),
    "no length": (OK + b"\r\nok", DELIVERED, "HTTP 200"),
    "interim responses": (
        CONTINUE + b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + NO_CONTENT + b"\r\n",
        DELIVERED,
        "HTTP 204",
    ),
    "an interim response before an odd one": (CONTINUE + NO_CONTENT + b"\r\nhello", DELIVERED, "HTTP 204"),
    "500 with the length twice": (
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nno",
        DEFERRED,
        "HTTP 500",
    ),
    "410 and half a body": (b"HTTP/1.1 410 Gone\r\nContent-Length: 20\r\n\r\ngone", REJECTED, "HTTP 410"),
}


@pytest.mark.parametrize(("response", "kind", "reason"), ODD_RESPONSES.values(), ids=ODD_RESPONSES)
@pytest.mark.parametrize("split", ["at once", "head first", "byte by byte"])
async def test_response_counts_once_its_head_is_whole(
    response: bytes, kind: OutcomeKind, reason: str, split: str
) -> None:
    head, end, rest = response.rpartition(b"\r\n\r\n" if b"\r\n\r\n" in response else b"\n\n")
    blocks = [response]
    if split == "head first":
        blocks = [head + end, rest]
    elif split == "byte by byte" and len(response) < 200:
        blocks = [response[:1], response[1:16], response[16:30], response[30:]]
    (outcome,) = await outcomes(*blocks, close=True, timeout=5)
    assert (outcome.kind, outcome.reason) == (kind, reason)


@pytest.mark.parametrize("odd", [b"Content-Length: 99\r\n", b"Content-Length: 2\r\nContent-Length: 2\r\n", b""])
async def test_connection_that_stays_open_is_not_waited_for_longer_than_the_timeout(odd: bytes) -> None:
    (outcome,) = await outcomes(b"HTTP/1.1 503 Busy\r\nRetry-After: 70\r\n" + odd + b"\r\nno", timeout=1)
    assert (outcome.kind, outcome.reason, outcome.retry_after, outcome.throttle) == (DEFERRED, "HTTP 503", 70, True)


@pytest.mark.parametrize("rest", [b"Content-Length: 99\r\n\r\nno", b"Content-Length: 0\r\n\r\nsurplus"])
async def test_headers_that_control_deliveries_count_without_the_body(rest: bytes) -> None:
    (aborted,) = await outcomes(b"HTTP/1.1 400 No\r\nwebhook-delivery: abort\r\n" + rest, close=True)
    (disabled,) = await outcomes(OK + b"webhook-delivery: disable\r\n" + rest, close=True)
    assert (aborted.kind, aborted.disable) == (REJECTED, False)
    assert (disabled.kind, disabled.disable) == (DELIVERED, True)


@pytest.mark.parametrize(
    "odd", [NO_CONTENT + b"\r\nhello", OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 410 Gone\r\n\r\n"]
)
async def test_surplus_bytes_are_not_taken_for_the_next_response(odd: bytes) -> None:
    found = await outcomes(odd, number=5)
    assert {(one.kind, one.reason) for one in found} == {(DELIVERED, found[0].reason)}


GARBAGE = {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nabcde",
    "a head without end": OK + b"X: y\r\n",
    "a head that is too long": OK + b"X: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    "too many fields": OK + b"X:\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "a NUL": OK + b"X: a\0b\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "interim responses without end": CONTINUE * (MAX_INTERIM + 1) + NO_CONTENT + b"\r\n",
    "many interim responses": CONTINUE * 20_000,
}


@pytest.mark.parametrize("response", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_no_response(response: bytes) -> None:
    (outcome,) = await outcomes(response, close=True)
    assert outcome.kind is DEFERRED
    assert outcome.reason in {"invalid response", "connection lost"}


async def test_interim_responses_without_end_are_cut_before_the_timeout() -> None:
    received = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(CONTINUE * 2000)
            await writer.drain()
            received += 1
            await asyncio.sleep(0)

    async with serving(flood) as port, channel(timeout=60) as webhook:
        async with asyncio.timeout(30):
            outcome = await webhook.attempt(due_at(f"http://127.0.0.1:{port}/"))
    assert (outcome.kind, outcome.reason) == (DEFERRED, "invalid response")
    assert received < 200


async def test_interim_responses_are_counted_over_all_reads() -> None:
    (outcome,) = await outcomes(*[CONTINUE] * (MAX_INTERIM + 1), NO_CONTENT + b"\r\n")
    assert outcome.reason == "invalid response"
    (outcome,) = await outcomes(*[CONTINUE] * MAX_INTERIM, NO_CONTENT + b"\r\n")
    assert outcome.reason == "HTTP 204"


async def test_correct_responses_share_a_connection() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(CONTINUE + OK + b"Content-Length: 2\r\n\r\nok")

    async with serving(serve) as port, channel() as webhook:
        for _ in range(4):
            assert (await webhook.attempt(due_at(f"http://127.0.0.1:{port}/"))).response == "ok"
    assert connections == 1


async def downloaded(*blocks: bytes) -> bytes:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with answering(*blocks, close=True) as url, egress.session() as session:
        return (await Downloader(session, egress).download(url, limit=1000, timeout=5)).content


@pytest.mark.parametrize(
    "name", ["the length twice", "chunked and a length", "more bytes than the length", "129 fields"]
)
@pytest.mark.parametrize("split", [False, True])
async def test_download_with_an_odd_head_has_its_body(name: str, split: bool) -> None:
    response = ODD_RESPONSES[name][0]
    at = response.index(b"\r\n\r\n") + 4
    assert await downloaded(*([response[:at], response[at:]] if split else [response])) == b"ok"


@pytest.mark.parametrize("name", ["half a body", "half a chunk", "garbage in place of chunks"])
async def test_download_that_is_not_whole_fails(name: str) -> None:
    with pytest.raises(DownloadFailed, match="incomplete response"):
        await downloaded(ODD_RESPONSES[name][0])


async def called(*blocks: bytes) -> tuple[int, str]:
    async with answering(*blocks, close=True) as url, provider_session() as session:
        response = await call(session, "POST", url, timeout=limits(3), headers={}, data=b"{}")
        return response.status, response.text


async def test_response_of_an_sms_provider_counts_by_the_same_rules() -> None:
    twice = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n"
    assert await called(twice, b"{}") == (201, "{}")
    assert await called(twice + b"{}SURPLUS") == (201, "{}")
    assert (await called(b"HTTP/1.1 429 Busy\r\nContent-Length: 99\r\n\r\n"))[0] == 429


@pytest.mark.parametrize("rest", [b"Content-Length: 99\r\n\r\n{", b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"])
async def test_acceptance_of_an_sms_that_is_not_whole_leaves_it_unknown(rest: bytes) -> None:
    with pytest.raises(ResponseLost):
        await called(b"HTTP/1.1 201 Created\r\n" + rest)
