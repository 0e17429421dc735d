"""The transport to Twilio, and the table of what its refusals mean."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import client_exceptions, web
from twilio.base import exceptions
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.response import Response

from activities.sms.provider_http import (
    MAX_RESPONSE_BYTES,
    AnswerLost,
    NotSent,
    translate,
)
from activities.sms.twilio_http import TwilioTransport, from_retry_after, retry_after
from bellwire.deliveries import OutcomeKind
from bellwire.sms.twilio_codes import classify_refusal
from bellwire.suppressions import SuppressionReason
from starter.local.receivers.twilio import FakeTwilio, SmsResponse

TO, SENDER = "+14155550123", "+14155550100"
FORM = {"To": TO, "From": SENDER, "Body": "Order 42 & more"}


@pytest.fixture
async def twilio() -> AsyncIterator[FakeTwilio]:
    async with FakeTwilio() as double:
        yield double


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def post(session: aiohttp.ClientSession, twilio: FakeTwilio, *, timeout: float = 5) -> Response:
    url = f"{twilio.url}/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    transport = TwilioTransport(session, timeout=timeout)
    return await transport.request(
        "POST", url, data=FORM, headers=headers, auth=(twilio.account_sid, twilio.auth_token)
    )


async def test_an_answer_comes_back_with_its_status_and_text(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    answer = await post(session, twilio)
    assert answer.status_code == 201
    assert twilio.messages[0].sid in answer.text
    assert [(sent.to, sent.sender, sent.body) for sent in twilio.messages] == [(TO, SENDER, "Order 42 & more")]


async def test_a_refusal_is_an_answer_and_its_retry_after_is_kept(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    twilio.script(TO, SmsResponse(status=429, retry_after=17))
    assert (await post(session, twilio)).status_code == 429
    assert retry_after() == 17
    await post(session, twilio)
    assert retry_after() is None


async def test_the_timeout_works_and_says_that_the_answer_was_lost(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    twilio.script(TO, SmsResponse(never=True))
    with pytest.raises(AnswerLost, match="timeout"):
        await asyncio.wait_for(post(session, twilio, timeout=0.2), 2)


async def test_a_reset_connection_says_that_the_answer_was_lost_and_nothing_is_repeated(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    await post(session, twilio)  # so that the next request meets a kept connection, which aiohttp could try again
    twilio.script(TO, SmsResponse(reset=True))
    with pytest.raises(AnswerLost, match="connection lost"):
        await post(session, twilio)
    assert twilio.posts == 2


async def test_a_refused_connection_says_that_nothing_was_sent(session: aiohttp.ClientSession) -> None:
    async with FakeTwilio() as gone:
        pass
    with pytest.raises(NotSent, match="connect failed"):
        await post(session, gone)


async def test_dialling_that_takes_too_long_says_that_nothing_was_sent(twilio: FakeTwilio) -> None:
    twilio.script(TO, SmsResponse(never=True))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as narrow:
        first = asyncio.create_task(post(narrow, twilio, timeout=30))
        await asyncio.wait_for(twilio.requested(1), 5)
        with pytest.raises(NotSent, match="connect timeout"):
            await asyncio.wait_for(post(narrow, twilio, timeout=0.3), 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert twilio.posts == 1


async def test_a_closed_session_says_that_nothing_was_sent(twilio: FakeTwilio) -> None:
    async with aiohttp.ClientSession() as closed:
        pass
    with pytest.raises(NotSent, match="session closed"):
        await post(closed, twilio)


@pytest.mark.parametrize(
    ("status", "head", "body", "expected"),
    [
        (201, "Content-Length: 9", b"<html/>..", "unreadable answer"),
        (201, "Content-Length: 900", b'{"sid"', "unreadable answer"),
        (400, "Content-Length: 900", b'{"code"', 400),
        (302, "Content-Length: 0\r\nLocation: /elsewhere", b"", 302),
    ],
)
async def test_an_answer_that_breaks_off_is_lost_unless_its_status_refuses(
    session: aiohttp.ClientSession, status: int, head: str, body: bytes, expected: str | int
) -> None:
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        call = TwilioTransport(session, timeout=5).request("POST", f"http://127.0.0.1:{port}/", data=FORM)
        if isinstance(expected, int):
            assert (await call).status_code == expected
        else:
            with pytest.raises(AnswerLost, match=expected):
                await call
    assert asked == 1


async def test_an_endless_answer_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def drown(request: web.Request) -> web.Response:
        return web.json_response({"sid": "x" * MAX_RESPONSE_BYTES})

    app = web.Application()
    app.router.add_post("/", drown)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with pytest.raises(AnswerLost, match="unreadable answer"):
            await TwilioTransport(session, timeout=5).request("POST", f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


def _all_below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_below(below)


_NOT_SENT = {
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientHttpProxyError,
    client_exceptions.UnixClientConnectorError,
    aiohttp.ClientSSLError,
    aiohttp.ClientConnectorSSLError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.InvalidUrlClientError,
    aiohttp.NonHttpUrlClientError,
}


@pytest.mark.parametrize(
    "kind",
    sorted(
        {kind for kind in _all_below(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")},
        key=str,
    ),
)
def test_every_exception_of_aiohttp_says_whether_something_was_sent(kind: type[Exception]) -> None:
    said = translate(kind.__new__(kind))
    assert isinstance(said, NotSent if kind in _NOT_SENT else AnswerLost)
    assert 0 < len(str(said)) < 40


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TimeoutError(), AnswerLost, "timeout"),
        (aiohttp.SocketTimeoutError(), AnswerLost, "timeout"),
        (aiohttp.ServerDisconnectedError(), AnswerLost, "connection lost"),
        (aiohttp.ClientOSError(104, "reset"), AnswerLost, "connection lost"),
        (ConnectionResetError(), AnswerLost, "connection lost"),
        (aiohttp.ClientPayloadError(), AnswerLost, "unreadable answer"),
        (aiohttp.ConnectionTimeoutError(), NotSent, "connect timeout"),
        (aiohttp.NonHttpUrlClientError("ftp://x"), NotSent, "bad URL"),
        (UnicodeError(), NotSent, "bad URL"),
    ],
)
def test_a_failure_has_words_of_its_own(error: Exception, kind: type[Exception], words: str) -> None:
    said = translate(error)
    assert (type(said), str(said)) == (kind, words)


LATER, NEVER, LOST = OutcomeKind.DEFERRED, OutcomeKind.REJECTED, OutcomeKind.UNKNOWN


@pytest.mark.parametrize(
    ("status", "code", "kind", "flag"),
    [
        (429, 20429, LATER, None),
        (429, None, LATER, None),
        (429, 21610, LATER, None),
        (400, 20429, LATER, None),
        (500, 20500, LATER, None),
        (503, None, LATER, None),
        (502, 20500, LATER, None),
        (502, None, LOST, None),
        (504, None, LOST, None),
        (500, 21610, LATER, None),
        *((400, code, LATER, None) for code in (20500, 21611, 30001, 30003, 30036)),
        *((status, None, LATER, None) for status in (408, 409, 425)),
        *((400, code, NEVER, "gone") for code in (21211, 21614, 30005, 30006)),
        *((400, code, NEVER, None) for code in (21617, 21602, 21619, 30004, 30007, 30034)),
        *((400, code, LATER, "operator") for code in (20404, 21212, 21606, 21659, 21408, 21608, 30002)),
        (401, 20003, LATER, "operator"),
        (401, None, LATER, "operator"),
        (403, 99999, LATER, "operator"),
        (404, 20404, LATER, "operator"),
        (404, None, LATER, "operator"),
        (302, None, LATER, "operator"),
        (400, 21610, NEVER, "stopped"),
        (403, 21610, NEVER, "stopped"),
        (400, 99999, NEVER, None),
        (422, None, NEVER, None),
    ],
)
def test_a_refusal_is_judged_by_its_http_class_first_and_its_code_second(
    status: int, code: int | None, kind: OutcomeKind, flag: str | None
) -> None:
    judged = classify_refusal(status, code)
    assert (judged.kind, judged.disable, judged.operator) == (kind, flag == "gone", flag == "operator")
    reasons = {"gone": SuppressionReason.BOUNCED, "stopped": SuppressionReason.UNSUBSCRIBED}
    assert judged.suppress == reasons.get(flag or "")


STATED: dict[type[TwilioException], list[tuple[TwilioException, tuple[int | None, int | None, str]]]] = {
    TwilioException: [
        (TwilioException("Unable to fetch page", Response(503, "busy")), (503, None, "busy")),
        (TwilioException("Page Records can not be deserialized"), (None, None, "Page Records can not be deserialized")),
    ],
    TwilioRestException: [
        (TwilioRestException(400, "/", "stop", 21610), (400, 21610, "stop")),
        (TwilioRestException(503, "/", "no JSON", 503), (503, None, "no JSON")),
        (TwilioRestException(400, "/", "odd", None), (400, None, "odd")),
    ],
    TwilioServiceException: [
        (TwilioServiceException("t", "Bad", 400, 21211, "not a number"), (400, 21211, "Bad: not a number")),
        (TwilioServiceException("t", "Busy", 429, 20429), (429, 20429, "Busy")),
        (TwilioServiceException("t", "Odd", "four hundred", 1), (None, 1, "Odd")),
    ],
}


@pytest.mark.parametrize(("error", "expected"), [case for cases in STATED.values() for case in cases])
def test_status_code_and_words_are_read_from_each_exception_of_twilio(
    error: TwilioException, expected: tuple[int | None, int | None, str]
) -> None:
    assert from_retry_after(error) == expected


def test_no_exception_of_twilio_is_forgotten() -> None:
    known = {kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert known == set(STATED)
