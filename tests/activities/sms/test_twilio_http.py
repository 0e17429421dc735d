"""The HTTP transport to Twilio, and the classification of its refusals."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import client_exceptions, web
from aiohttp.test_utils import TestServer
from twilio.base import exceptions
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.response import Response

from activities.providers.http import (
    MAX_LIST_BYTES,
    NotSent,
    ResponseLost,
    translate,
)
from activities.sms.providers import Sms
from activities.sms.twilio import TwilioProvider, twilio_client
from activities.sms.twilio_http import TwilioTransport, error_details, retry_after
from bellwire.deliveries import OutcomeKind
from bellwire.sms.twilio_codes import classify_refusal
from bellwire.suppressions import SuppressionReason
from starter.local.receivers.twilio import FakeTwilio, SmsResponse

TO, SENDER = "+14155550123", "+14155550100"
FORM = {"To": TO, "From": SENDER, "Body": "Order 42 & more"}


async def post(session: aiohttp.ClientSession, twilio: FakeTwilio, *, timeout: float = 60) -> Response:
    url = f"{twilio.url}/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    transport = TwilioTransport(session, timeout=timeout)
    return await transport.request(
        "POST", url, data=FORM, headers=headers, auth=(twilio.account_sid, twilio.auth_token)
    )


async def test_a_response_is_returned_with_status_and_text(session: aiohttp.ClientSession, twilio: FakeTwilio) -> None:
    response = await post(session, twilio)
    assert response.status_code == 201
    assert twilio.messages[0].sid in response.text
    assert [(sent.to, sent.sender, sent.body) for sent in twilio.messages] == [(TO, SENDER, "Order 42 & more")]


async def test_a_refusal_is_returned_and_its_retry_after_is_kept(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    twilio.script(TO, SmsResponse(status=429, retry_after=17))
    assert (await post(session, twilio)).status_code == 429
    assert retry_after() == 17
    await post(session, twilio)
    assert retry_after() is None


async def test_a_timeout_means_that_the_response_was_lost(session: aiohttp.ClientSession, twilio: FakeTwilio) -> None:
    await post(session, twilio)  # so that the next request has a connection, and only the response can time out
    twilio.script(TO, SmsResponse(never=True))
    with pytest.raises(ResponseLost, match="timeout"):
        await asyncio.wait_for(post(session, twilio, timeout=1), 60)


async def test_a_reset_connection_means_that_the_response_was_lost_and_is_not_repeated(
    session: aiohttp.ClientSession, twilio: FakeTwilio
) -> None:
    await post(session, twilio)  # so that the next request reuses the connection, for which aiohttp could repeat it
    twilio.script(TO, SmsResponse(reset=True))
    with pytest.raises(ResponseLost, match="connection lost"):
        await post(session, twilio)
    assert twilio.posts == 2


async def test_a_refused_connection_means_that_nothing_was_sent(session: aiohttp.ClientSession) -> None:
    async with FakeTwilio() as gone:
        pass
    with pytest.raises(NotSent, match="connect failed"):
        await post(session, gone)


async def test_a_connect_timeout_means_that_nothing_was_sent(twilio: FakeTwilio) -> None:
    twilio.script(TO, SmsResponse(never=True))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as narrow:
        first = asyncio.create_task(post(narrow, twilio, timeout=60))
        await asyncio.wait_for(twilio.requested(1), 60)
        with pytest.raises(NotSent, match="connect timeout"):
            await asyncio.wait_for(post(narrow, twilio, timeout=3), 60)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert twilio.posts == 1


async def test_a_closed_session_means_that_nothing_was_sent(twilio: FakeTwilio) -> None:
    async with aiohttp.ClientSession() as closed:
        pass
    with pytest.raises(NotSent, match="session closed"):
        await post(closed, twilio)


@pytest.mark.parametrize(
    ("status", "head", "body", "expected"),
    [
        (201, "Content-Length: 9", b"<html/>..", "invalid response"),
        (201, "Content-Length: 900", b'{"sid"', "invalid response"),
        (400, "Content-Length: 900", b'{"code"', 400),
        (302, "Content-Length: 0\r\nLocation: /elsewhere", b"", 302),
    ],
)
async def test_a_truncated_response_is_lost_unless_its_status_is_a_refusal(
    session: aiohttp.ClientSession, status: int, head: str, body: bytes, expected: str | int
) -> None:
    requests = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        call = TwilioTransport(session, timeout=60).request("POST", f"http://127.0.0.1:{port}/", data=FORM)
        if isinstance(expected, int):
            assert (await call).status_code == expected
        else:
            with pytest.raises(ResponseLost, match=expected):
                await call
    assert requests == 1


async def test_a_response_that_is_too_large_is_lost(session: aiohttp.ClientSession) -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.json_response({"sid": "x" * MAX_LIST_BYTES})

    app = web.Application()
    app.router.add_post("/", respond)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with pytest.raises(ResponseLost, match="invalid response"):
            await TwilioTransport(session, timeout=60).request("POST", f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


def _subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _subclasses(below)


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
        {kind for kind in _subclasses(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")},
        key=str,
    ),
)
def test_every_exception_of_aiohttp_is_classified_as_sent_or_not_sent(kind: type[Exception]) -> None:
    translated = translate(kind.__new__(kind))
    assert isinstance(translated, NotSent if kind in _NOT_SENT else ResponseLost)
    assert 0 < len(str(translated)) < 40


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (TimeoutError(), ResponseLost, "timeout"),
        (aiohttp.SocketTimeoutError(), ResponseLost, "timeout"),
        (aiohttp.ServerDisconnectedError(), ResponseLost, "connection lost"),
        (aiohttp.ClientOSError(104, "reset"), ResponseLost, "connection lost"),
        (ConnectionResetError(), ResponseLost, "connection lost"),
        (aiohttp.ClientPayloadError(), ResponseLost, "invalid response"),
        (aiohttp.ConnectionTimeoutError(), NotSent, "connect timeout"),
        (aiohttp.NonHttpUrlClientError("ftp://x"), NotSent, "bad URL"),
        (UnicodeError(), NotSent, "bad URL"),
    ],
)
def test_each_failure_has_its_own_reason(error: Exception, kind: type[Exception], reason: str) -> None:
    translated = translate(error)
    assert (type(translated), str(translated)) == (kind, reason)


LATER, NEVER, UNKNOWN = OutcomeKind.DEFERRED, OutcomeKind.REJECTED, OutcomeKind.UNKNOWN


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
        (502, None, UNKNOWN, None),
        (504, None, UNKNOWN, None),
        (500, 21610, LATER, None),
        *((400, code, LATER, None) for code in (20500, 21611, 30001, 30003, 30036)),
        *((status, None, LATER, None) for status in (408, 409, 425)),
        *((400, code, NEVER, "gone") for code in (21211, 21614, 30005, 30006)),
        *((400, code, NEVER, None) for code in (21617, 21602, 21619, 30004, 30007)),
        *((400, code, LATER, "operator") for code in (20404, 21212, 21606, 21659, 21408, 21608, 30002)),
        *((400, code, LATER, "operator") for code in (21603, 21701, 21703, 21704, 21705, 30032, 30034, 90010)),
        *((status, None, LATER, "operator") for status in (402, 405, 406, 407, 410, 415, 421, 451)),
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
def test_a_refusal_is_classified_by_its_http_status_first_and_its_code_second(
    status: int, code: int | None, kind: OutcomeKind, flag: str | None
) -> None:
    meaning = classify_refusal(status, code)
    assert (meaning.kind, meaning.disable, meaning.operator) == (kind, flag == "gone", flag == "operator")
    reasons = {"gone": SuppressionReason.BOUNCED, "stopped": SuppressionReason.UNSUBSCRIBED}
    assert meaning.suppress == reasons.get(flag or "")


DETAILS: dict[type[TwilioException], list[tuple[TwilioException, tuple[int | None, int | None, str]]]] = {
    TwilioException: [
        (TwilioException("Unable to fetch page", Response(503, "busy")), (503, None, "busy")),
        (TwilioException("Page Records can not be deserialized"), (None, None, "Page Records can not be deserialized")),
    ],
    TwilioRestException: [
        (TwilioRestException(400, "/", "stop", 21610), (400, 21610, "stop")),
        (TwilioRestException(503, "/", "no JSON", 503), (503, None, "no JSON")),
        (TwilioRestException(400, "/", "odd", None), (400, None, "odd")),
        (TwilioRestException(400, "/", "a phone number", 14155550123), (400, None, "a phone number")),
        (TwilioRestException(400, "/", "a name", "Ann"), (400, None, "a name")),
    ],
    TwilioServiceException: [
        (TwilioServiceException("t", "Bad", 400, 21211, "not a number"), (400, 21211, "Bad: not a number")),
        (TwilioServiceException("t", "Busy", 429, 20429), (429, 20429, "Busy")),
        (TwilioServiceException("t", "Odd", "four hundred", 1), (None, 1, "Odd")),
    ],
}


@pytest.mark.parametrize(("error", "expected"), [case for cases in DETAILS.values() for case in cases])
def test_status_code_and_message_are_read_from_each_exception_of_twilio(
    error: TwilioException, expected: tuple[int | None, int | None, str]
) -> None:
    assert error_details(error) == expected


def test_every_exception_of_twilio_is_covered() -> None:
    known = {kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert known == set(DETAILS)


class NothingClaimed:
    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        return set()


@pytest.mark.parametrize(
    "odd",
    [
        '"date_sent": 5',
        '"date_created": ["x"]',
        '"date_updated": "Thu, 32 Jan 2026 25:61:00 +0000"',
        '"status": "failed", "error_code": [1]',
        '"status": "undelivered", "error_code": {"a": 1}',
        '"body": {"a": 1}, "subresource_uris": 5, "messages": "x"',
    ],
)
async def test_an_accepted_sms_counts_as_sent_whatever_else_the_response_says(
    session: aiohttp.ClientSession, odd: str
) -> None:
    message = f'{{"sid": "SM1", "from": "{SENDER}", {odd}}}'
    page = f'{{"messages": [5, {{"sid": "SM1", "body": "Hi", "from": "{SENDER}", {odd}}}]}}'

    async def respond(request: web.Request) -> web.Response:
        text = message if request.method == "POST" else page.replace('"body": {"a": 1}, ', "")
        return web.Response(
            status=201 if request.method == "POST" else 200,
            body=b"\xef\xbb\xbf" + text.encode(),
            content_type="application/json",
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    async with TestServer(app) as server:
        client = twilio_client("AC" + "0" * 32, "token", url=str(server.make_url("")), timeout=5, session=session)
        provider = TwilioProvider(client, NothingClaimed(), sender=SENDER)
        sms = Sms(delivery_id="dlv_a_b", number=1, to=TO, text="Hi")
        sent = await provider.send(sms)
        found = await provider.reconcile(sms, datetime(2026, 1, 1, tzinfo=UTC))
    assert (sent.outcome.kind, sent.outcome.provider_id) == (OutcomeKind.DELIVERED, "SM1")
    assert found is not None
    assert (found.outcome.kind, found.outcome.provider_id) == (OutcomeKind.DELIVERED, "SM1")


@pytest.mark.parametrize(
    "text", ['{"type": 5, "title": null, "status": "x", "code": "y"}', '{"status": true}', "[]", "x"]
)
async def test_a_refusal_is_known_by_its_status_whatever_its_text(session: aiohttp.ClientSession, text: str) -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=400, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    async with TestServer(app) as server:
        client = twilio_client("AC" + "0" * 32, "token", url=str(server.make_url("")), timeout=5, session=session)
        provider = TwilioProvider(client, NothingClaimed(), sender=SENDER)
        sent = await provider.send(Sms(delivery_id="dlv_a_b", number=1, to=TO, text="Hi"))
    assert (sent.outcome.kind, sent.outcome.reason) == (OutcomeKind.REJECTED, "Twilio 400")


def test_a_code_of_another_type_is_no_code() -> None:
    assert error_details(TwilioRestException(400, "/", "bad", True, "POST"))[1] is None
