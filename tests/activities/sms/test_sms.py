"""The SMS channel with Twilio's own client, against a server with Twilio's API."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from structlog.testing import capture_logs

from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.providers import UNKNOWN_REASON, Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.activities.sending.chunks import send_chunk
from tests.factories import event, send_request, subscription

TO, SENDER = "+14155550123", "+14155550100"
TIMEOUT = 1.5
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
HAPPENED = event(id="1")
TEXT = asyncio.run(Renderer().text(send_request(SUBSCRIPTION, HAPPENED), "sms.text"))


class Claims:
    """A fake registry: the provider ids that attempts have recorded, and the suppressed numbers."""

    def __init__(self) -> None:
        self.attempts = self.suppressions = self
        self.sids: set[str] = set()
        self.list: list[Suppression] = []

    async def claim(self, request: SendRequest, *, provider: str) -> datetime:
        return datetime.now(UTC)

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        return self.sids & set(provider_ids)

    async def add(self, suppression: Suppression) -> None:
        self.list.append(suppression)

    async def among(
        self, channel: Channel, addresses: Sequence[str], *, subscription_id: str, also_for: Sequence[str]
    ) -> dict[str, SuppressionReason]:
        scopes = {EVERYWHERE, subscription_id, *also_for}
        return {
            each.address: each.reason
            for each in self.list
            if each.channel is channel and each.address in addresses and each.subscription_id in scopes
        }


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def channel(twilio: FakeTwilio, session: aiohttp.ClientSession, claims: Claims) -> SmsChannel:
    return sms_channel(twilio, session, claims)


def sms_channel(
    twilio: FakeTwilio,
    session: aiohttp.ClientSession,
    registry: object,
    *,
    token: str = "",
    sender: str = SENDER,
    callbacks: str | None = None,
    renderer: Renderer | None = None,
    **changes: Any,
) -> SmsChannel:
    token = token or twilio.auth_token
    client = twilio_client(twilio.account_sid, token, url=twilio.url, timeout=TIMEOUT, session=session)
    provider = TwilioProvider(client, cast(Registry, registry).attempts, sender=sender, callbacks=callbacks)
    return channel_of(Providers([provider]), registry, renderer=renderer, **changes)


def channel_of(
    providers: Providers, registry: object, *, renderer: Renderer | None = None, **changes: Any
) -> SmsChannel:
    settings = {"reconcile_after": 0.0, "max_segments": 10, **changes}
    return SmsChannel(cast(Registry, registry), providers, renderer or Renderer(), **settings)


def broken_templates(folder: Path) -> Renderer:
    (folder / HAPPENED.type).mkdir()
    (folder / HAPPENED.type / "sms.txt").write_text("Order {{ missing }}")
    return Renderer(folder)


def first(**fields: Any) -> SendRequest:
    return send_request(SUBSCRIPTION, HAPPENED, **fields)


def next_after(outcome: Outcome, number: int = 2) -> SendRequest:
    """The delivery as the registry has it for the attempt after `outcome`."""
    intent_at = datetime.now(UTC) - timedelta(seconds=1) if outcome.kind is OutcomeKind.UNKNOWN else None
    return first(number=number, reason=outcome.reason, updated_at=datetime.now(UTC), intent_at=intent_at)


def killed(to: Subscription = SUBSCRIPTION, **fields: Any) -> SendRequest:
    """A delivery of which a killed worker recorded the intent to send."""
    intent = datetime.now(UTC) - timedelta(seconds=3)
    return send_request(to, HAPPENED, state=DeliveryState.SENDING, intent_at=intent, **fields)


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
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "Twilio unreachable: connect failed")


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
    [({"body": "Another text"}, 0), ({"sender": "+14155550199"}, 0), ({"to": "+14155550124"}, 0), ({}, 5)],
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
