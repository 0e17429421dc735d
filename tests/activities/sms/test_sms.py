"""The SMS channel with Twilio's own client, against a server with Twilio's API."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from activities.sms.channel import SmsChannel
from activities.sms.providers import Providers
from activities.sms.twilio import twilio_client
from bellwire.deliveries import Outcome, OutcomeKind
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.activities.sms.channels import (
    SENDER,
    TEXT,
    TO,
    Claims,
    broken_templates,
    channel_of,
    first,
    next_after,
    sms_channel,
)


async def test_an_accepted_sms_is_delivered_with_its_sid(channel: SmsChannel, twilio: FakeTwilio) -> None:
    outcome = await channel.attempt(first())
    assert [(sent.to, sent.sender, sent.body) for sent in twilio.messages] == [(TO, SENDER, TEXT)]
    assert outcome.model_copy(update={"sms": None}) == Outcome(
        kind=OutcomeKind.DELIVERED, reason="Twilio 201", provider_id=twilio.messages[0].sid
    )


async def test_a_messaging_service_can_be_the_sender(twilio: FakeTwilio, session: aiohttp.ClientSession) -> None:
    channel = sms_channel(twilio, session, Claims(), sender="MG" + "1" * 32)
    twilio.script(TO, SmsResponse(accept=True, never=True))
    unknown = await channel.attempt(first())
    assert (await channel.attempt(next_after(unknown))).provider_id == twilio.messages[0].sid
    assert [sent.sender for sent in twilio.messages] == ["MG" + "1" * 32]


async def test_too_many_requests_are_retried_after_retry_after(channel: SmsChannel, twilio: FakeTwilio) -> None:
    twilio.script(TO, SmsResponse(status=429, retry_after=30))
    outcome = await channel.attempt(first())
    assert (outcome.kind, outcome.reason, outcome.retry_after) == (OutcomeKind.DEFERRED, "Twilio 429 20429", 30)


@pytest.mark.parametrize(
    ("status", "code", "kind", "disable", "reason"),
    [
        (500, None, OutcomeKind.DEFERRED, False, "Twilio 500 20500"),
        (503, None, OutcomeKind.DEFERRED, False, "Twilio 503 20503"),
        (400, 21611, OutcomeKind.DEFERRED, False, "Twilio 400 21611"),
        (400, 21610, OutcomeKind.REJECTED, False, "Twilio 400 21610"),
        (400, 21211, OutcomeKind.REJECTED, True, "Twilio 400 21211"),
        (400, 21614, OutcomeKind.REJECTED, True, "Twilio 400 21614"),
        (400, 21617, OutcomeKind.REJECTED, False, "Twilio 400 21617"),
        (400, 30007, OutcomeKind.REJECTED, False, "Twilio 400 30007"),
        (422, None, OutcomeKind.REJECTED, False, "Twilio 422"),
    ],
)
async def test_a_refusal_becomes_an_outcome(
    channel: SmsChannel,
    twilio: FakeTwilio,
    status: int,
    code: int | None,
    kind: OutcomeKind,
    disable: bool,
    reason: str,
) -> None:
    twilio.script(TO, SmsResponse(status=status, code=code, message=f"The number {TO} is invalid"))
    outcome = await channel.attempt(first())
    assert (outcome.kind, outcome.disable, outcome.reason) == (kind, disable, reason)
    assert code is None or TO in (outcome.response or "")
    assert twilio.messages == []


@pytest.mark.parametrize("code", [21212, 21408, 21606, 21608, 21659, 30002])
async def test_a_problem_for_the_operator_is_deferred_and_logged_as_an_error(
    channel: SmsChannel, twilio: FakeTwilio, code: int
) -> None:
    twilio.script(TO, SmsResponse(status=400, code=code, message=f"{TO} is unverified"))
    with capture_logs() as logs:
        outcome = await channel.attempt(first())
    assert (outcome.kind, outcome.disable) == (OutcomeKind.DEFERRED, False)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("error", f"Twilio 400 {code}")]
    assert TO not in str(logs)


async def test_wrong_credentials_are_deferred_and_logged_as_an_error(
    twilio: FakeTwilio, session: aiohttp.ClientSession
) -> None:
    channel = sms_channel(twilio, session, Claims(), token="wrong")
    with capture_logs() as logs:
        outcome = await channel.attempt(first())
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "Twilio 401 20003")
    assert [line["log_level"] for line in logs] == ["error"]
    assert "wrong" not in str(logs)


async def test_without_a_provider_deliveries_are_deferred_with_an_error() -> None:
    unconfigured = channel_of(Providers([]), Claims())
    with capture_logs() as logs:
        outcome = await unconfigured.attempt(first())
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "no SMS provider configured")
    assert [line["log_level"] for line in logs] == ["error"]


async def test_an_invalid_template_defers_and_logs_an_error(
    twilio: FakeTwilio, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    channel = sms_channel(twilio, session, Claims(), renderer=broken_templates(tmp_path))
    with capture_logs() as logs:
        outcome = await channel.attempt(first())
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "template invalid")
    assert [line["log_level"] for line in logs] == ["error"]
    assert twilio.posts == 0


async def test_a_refused_connection_is_deferred(session: aiohttp.ClientSession) -> None:
    async with FakeTwilio() as gone:
        pass
    outcome = await sms_channel(gone, session, Claims()).attempt(first())
    assert (outcome.kind, outcome.reason) == (
        OutcomeKind.DEFERRED,
        "Twilio unreachable: connect failed: connection refused",
    )


async def test_the_fake_twilio_responds_as_twilio_does(twilio: FakeTwilio, session: aiohttp.ClientSession) -> None:
    client = twilio_client(twilio.account_sid, twilio.auth_token, url=twilio.url, timeout=5, session=session)
    created = await client.messages.create_async(to=TO, from_=SENDER, body="Hello")
    fetched = await client.messages(created.sid).fetch_async()
    assert (fetched.sid, fetched.status, fetched.body, fetched.error_code) == (created.sid, "queued", "Hello", None)
    assert abs(fetched.date_created - datetime.now(UTC)) < timedelta(seconds=5)
    twilio.set_status(created.sid, "sent")
    yesterday, tomorrow = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
    assert len(await client.messages.list_async(to=TO, from_=SENDER, date_sent_after=yesterday)) == 1
    assert await client.messages.list_async(date_sent_before=yesterday) == []
    assert await client.messages.list_async(date_sent_after=tomorrow) == []
    assert await client.messages.list_async(to="+14155550199") == []
