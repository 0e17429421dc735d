"""An SMS that may have been sent is reconciled with Twilio before anything is sent again."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from activities.sms.channel import SmsChannel
from activities.sms.providers import UNKNOWN_REASON, Providers
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.activities.sending.chunks import send_chunk
from tests.activities.sms.channels import (
    HAPPENED,
    SENDER,
    TEXT,
    TO,
    Claims,
    broken_templates,
    channel_of,
    first,
    killed,
    next_after,
    sms_channel,
)
from tests.factories import send_request, subscription


@pytest.mark.parametrize(
    "reply",
    [
        SmsResponse(accept=True, never=True),
        SmsResponse(accept=True, reset=True),
        SmsResponse(accept=True, status=502),
        SmsResponse(accept=True, status=504),
    ],
    ids=["timeout", "reset", "bad gateway", "gateway timeout"],
)
async def test_a_lost_response_is_reconciled_without_a_second_sms(
    channel: SmsChannel, twilio: FakeTwilio, reply: SmsResponse
) -> None:
    twilio.script(TO, reply)
    unknown = await channel.attempt(first())
    assert unknown.kind is OutcomeKind.UNKNOWN
    assert unknown.reason == UNKNOWN_REASON
    found = await channel.attempt(next_after(unknown))
    assert (found.kind, found.reason) == (OutcomeKind.DELIVERED, "Twilio queued, reconciled")
    assert [found.provider_id] == [sent.sid for sent in twilio.messages]
    assert twilio.posts == 1


async def test_an_sms_that_twilio_never_accepted_is_sent_again(channel: SmsChannel, twilio: FakeTwilio) -> None:
    twilio.script(TO, SmsResponse(accept=False, never=True))
    unknown = await channel.attempt(first())
    assert unknown.kind is OutcomeKind.UNKNOWN
    outcome = await channel.attempt(next_after(unknown))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Twilio 201")
    assert len(twilio.messages) == 1


@pytest.mark.parametrize(
    "reply",
    [
        SmsResponse(never=True),
        SmsResponse(reset=True),
        SmsResponse(status=500),
        SmsResponse(status=429, retry_after=60),
        SmsResponse(status=502),
    ],
    ids=["timeout", "reset", "500", "429", "502"],
)
async def test_nothing_is_sent_while_twilio_cannot_be_reconciled(
    channel: SmsChannel, twilio: FakeTwilio, reply: SmsResponse
) -> None:
    twilio.script(TO, SmsResponse(accept=True, never=True))
    unknown = await channel.attempt(first())
    twilio.script_list(*[reply] * (2 if reply.reset else 1))  # aiohttp repeats a GET once if its connection is reset
    still = await channel.attempt(next_after(unknown))
    assert (still.kind, still.reason, still.retry_after) == (OutcomeKind.UNKNOWN, unknown.reason, reply.retry_after)
    found = await channel.attempt(next_after(still, number=3))
    assert found.kind is OutcomeKind.DELIVERED
    assert twilio.posts == 1


async def test_nothing_is_sent_while_twilio_is_unreachable_and_the_sms_is_found_hours_later(
    channel: SmsChannel, twilio: FakeTwilio, session: aiohttp.ClientSession
) -> None:
    sent = twilio.add_message(TO, SENDER, TEXT, created_at=datetime.now(UTC) - timedelta(hours=9))
    unknown = first(number=2, reason=UNKNOWN_REASON, intent_at=sent.created_at, updated_at=sent.created_at)
    async with FakeTwilio() as gone:
        pass
    still = await sms_channel(gone, session, Claims()).attempt(unknown)
    assert (still.kind, still.reason) == (OutcomeKind.UNKNOWN, unknown.delivery.reason)
    found = await channel.attempt(first(number=3, reason=UNKNOWN_REASON, intent_at=sent.created_at))
    assert (found.kind, found.provider_id) == (OutcomeKind.DELIVERED, sent.sid)


async def test_wrong_credentials_while_reconciling_are_logged_and_nothing_is_sent(
    twilio: FakeTwilio, session: aiohttp.ClientSession
) -> None:
    with capture_logs() as logs:
        outcome = await sms_channel(twilio, session, Claims(), token="wrong").attempt(killed())
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert [(line["log_level"], line["reason"]) for line in logs] == [("error", "Twilio 401")]
    assert twilio.posts == 0


@pytest.mark.parametrize("missing", ["provider", "template"])
async def test_the_outcome_stays_unknown_while_the_operator_has_a_problem(
    channel: SmsChannel, twilio: FakeTwilio, session: aiohttp.ClientSession, tmp_path: Path, missing: str
) -> None:
    twilio.script(TO, SmsResponse(accept=True, never=True))
    unknown = await channel.attempt(first())
    if missing == "provider":
        broken = channel_of(Providers([]), Claims())
    else:
        broken = sms_channel(twilio, session, Claims(), renderer=broken_templates(tmp_path))
    outcome = await broken.attempt(next_after(unknown))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, unknown.reason)


async def test_an_intent_of_a_killed_worker_is_reconciled(channel: SmsChannel, twilio: FakeTwilio) -> None:
    sent = twilio.add_message(TO, SENDER, TEXT)
    outcome = await channel.attempt(killed())
    assert (outcome.kind, outcome.provider_id) == (OutcomeKind.DELIVERED, sent.sid)
    assert twilio.posts == 0


async def test_a_worker_killed_before_sending_leads_to_one_sms(channel: SmsChannel, twilio: FakeTwilio) -> None:
    outcome = await channel.attempt(killed())
    assert (outcome.kind, len(twilio.messages)) == (OutcomeKind.DELIVERED, 1)


async def test_equal_texts_to_one_number_each_claim_their_own_sms(channel: SmsChannel, twilio: FakeTwilio) -> None:
    sids = {twilio.add_message(TO, SENDER, TEXT).sid for _ in range(2)}
    subscriptions = [subscription({"channel": "sms", "to": TO}, id=f"sub_{number}") for number in range(2)]
    outcomes = await asyncio.gather(*(channel.attempt(killed(each)) for each in subscriptions))
    assert {outcome.provider_id for outcome in outcomes} == sids
    assert twilio.posts == 0


async def test_an_sms_that_is_being_sent_is_not_claimed_for_an_equal_lost_one(
    channel: SmsChannel, twilio: FakeTwilio
) -> None:
    twilio.script(TO, SmsResponse(accept=True, delay=0.1))
    sending = asyncio.create_task(channel.attempt(first()))
    await asyncio.wait_for(twilio.arrived(1), 60)
    unknown = await channel.attempt(killed(subscription({"channel": "sms", "to": TO}, id="sub_other")))
    assert {(await sending).provider_id, unknown.provider_id} == {sent.sid for sent in twilio.messages}
    assert len(twilio.messages) == 2


async def test_an_unrecorded_claim_is_kept_for_its_delivery(channel: SmsChannel, twilio: FakeTwilio) -> None:
    mine, other = (subscription({"channel": "sms", "to": TO}, id=name) for name in ("sub_mine", "sub_other"))
    older = twilio.add_message(TO, SENDER, TEXT, created_at=datetime.now(UTC) - timedelta(seconds=30))
    sent = await channel.attempt(send_request(mine, HAPPENED))
    again, others = await asyncio.gather(channel.attempt(killed(mine)), channel.attempt(killed(other)))
    assert (again.provider_id, others.provider_id) == (sent.provider_id, older.sid)


async def test_an_sms_that_another_delivery_has_recorded_is_not_claimed(
    channel: SmsChannel, twilio: FakeTwilio, claims: Claims
) -> None:
    claims.sids.add(twilio.add_message(TO, SENDER, TEXT).sid)
    outcome = await channel.attempt(killed())
    assert outcome.provider_id == twilio.messages[1].sid


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [({"body": "Another text"}, 0), ({"sender": "+14155550199"}, 0), ({"to": "+14155550124"}, 0), ({}, 60 * 25)],
    ids=["text", "sender", "number", "too early"],
)
async def test_a_different_sms_is_not_claimed(
    channel: SmsChannel, twilio: FakeTwilio, changes: dict[str, str], minutes: int
) -> None:
    created = datetime.now(UTC) - timedelta(minutes=minutes)
    other = twilio.add_message(**{"to": TO, "sender": SENDER, "body": TEXT, **changes}, created_at=created)
    outcome = await channel.attempt(killed())
    assert outcome.kind is OutcomeKind.DELIVERED
    assert outcome.provider_id != other.sid
    assert len(twilio.messages) == 2


@pytest.mark.parametrize("minutes", [-600, -10, 5, 600])
async def test_a_wrong_clock_of_the_worker_leads_to_no_second_sms(
    channel: SmsChannel, twilio: FakeTwilio, minutes: int
) -> None:
    sent = twilio.add_message(TO, SENDER, TEXT, created_at=datetime.now(UTC) - timedelta(minutes=minutes))
    assert (await channel.attempt(killed())).provider_id == sent.sid
    assert twilio.posts == 0


async def test_the_prefix_of_a_trial_account_is_ignored_when_reconciling(
    channel: SmsChannel, twilio: FakeTwilio
) -> None:
    sent = twilio.add_message(TO, SENDER, f"Sent from your Twilio trial account - {TEXT}")
    assert (await channel.attempt(killed())).provider_id == sent.sid


async def test_a_lost_sms_is_found_behind_pages_of_later_messages(channel: SmsChannel, twilio: FakeTwilio) -> None:
    sent = twilio.add_message(TO, SENDER, TEXT)
    for number in range(450):
        twilio.add_message(TO, SENDER, f"Text {number}")
    assert (await channel.attempt(killed())).provider_id == sent.sid
    assert twilio.lists == 3


async def test_nothing_is_sent_when_there_are_too_many_messages_to_search(
    channel: SmsChannel, twilio: FakeTwilio
) -> None:
    for number in range(2_001):
        twilio.add_message(TO, SENDER, f"Text {number}")
    assert (await channel.attempt(killed())).kind is OutcomeKind.UNKNOWN
    assert twilio.posts == 0


@pytest.mark.parametrize(
    ("status", "code", "kind", "disable"),
    [
        ("delivered", None, OutcomeKind.DELIVERED, False),
        ("undelivered", 30006, OutcomeKind.REJECTED, True),
        ("failed", 30007, OutcomeKind.REJECTED, False),
        ("failed", 30001, OutcomeKind.DEFERRED, False),
        ("undelivered", 30008, OutcomeKind.DELIVERED, False),
    ],
)
async def test_the_status_of_a_reconciled_sms_decides_the_outcome(
    channel: SmsChannel, twilio: FakeTwilio, status: str, code: int | None, kind: OutcomeKind, disable: bool
) -> None:
    sent = twilio.add_message(TO, SENDER, TEXT)
    twilio.set_status(sent.sid, status, code)
    outcome = await channel.attempt(killed())
    assert (outcome.kind, outcome.disable, outcome.provider_id) == (kind, disable, sent.sid)
    assert twilio.posts == 0


async def test_reconciling_waits_until_a_request_under_way_has_ended(
    twilio: FakeTwilio, session: aiohttp.ClientSession
) -> None:
    channel = sms_channel(twilio, session, Claims(), reconcile_after=600)
    waiting = asyncio.create_task(channel.attempt(killed()))
    before = datetime.now(UTC) - timedelta(seconds=601)
    await channel.attempt(first(number=2, reason=UNKNOWN_REASON, intent_at=before, updated_at=before))
    assert (waiting.done(), twilio.lists) == (False, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_cancelled_send_is_reconciled_by_the_next_try(
    twilio: FakeTwilio, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    try:
        await registry.migrate()
        numbers = [TO, TO, "+14155550177"]
        subscriptions = [subscription({"channel": "sms", "to": to}, id=f"sub_{i}") for i, to in enumerate(numbers)]
        for each in subscriptions:
            await registry.subscriptions.create(each)
        await registry.events.accept([HAPPENED], "event//shop/1")
        group = Group(
            event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=tuple(each.id for each in subscriptions)
        )
        await registry.deliveries.add("event//shop/1", [group])
        chunk = Chunk(groups=(group,), schedule=(1.0,))
        for to in numbers:
            twilio.script(to, SmsResponse(accept=True, delay=0.2))
        killed_try = asyncio.create_task(run(sms_channel(twilio, session, registry), registry, chunk))
        await asyncio.wait_for(twilio.arrived(2), 60)
        killed_try.cancel()
        await asyncio.gather(killed_try, return_exceptions=True)

        # Another worker, without the memory of the first.
        result = await run(sms_channel(twilio, session, registry), registry, chunk)
        assert result.settled == {HAPPENED.key: {DeliveryState.DELIVERED: 3}}
        sids = {sent.sid for sent in twilio.messages}
        assert len(sids) == 3
        assert await registry.attempts.claimed_provider_ids(sorted(sids)) == sids
    finally:
        await registry.close()


async def run(channel: SmsChannel, registry: Registry, chunk: Chunk) -> Any:
    return await send_chunk(Channel.SMS, channel, registry, chunk)
