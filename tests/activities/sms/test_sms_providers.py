"""Several providers of the SMS channel: a fake Twilio and a fake SMS gateway that fail in different ways."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from activities.rendering.renderer import Renderer
from activities.sending.channel_sender import ChannelSender
from activities.sms.channel import SmsChannel, Superseded
from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import ProviderConfig
from activities.sms.providers import (
    OUTAGE_SECONDS,
    UNKNOWN_REASON,
    Provider,
    Providers,
)
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from starter.local.receivers.sms_gateway import FakeSmsGateway
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.activities.sms.test_http_provider import KEYED, lookup_at
from tests.activities.sms.test_http_provider import config as acme_config
from tests.factories import event, subscription

TO, SENDER = "+14155550123", "+14155550100"
TIMEOUT = 1.5
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
HAPPENED = event(id="1")
GROUP = Group(event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=(SUBSCRIPTION.id,))


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting(NamedTuple):
    """Twilio first, then acme, and a registry with one delivery."""

    registry: Registry
    twilio: FakeTwilio
    acme: FakeSmsGateway
    session: aiohttp.ClientSession
    clock: Clock

    def channel(self, *, without: str = "", **config: Any) -> SmsChannel:
        """The channel of another worker, which shares no memory with others."""
        token = self.twilio.auth_token
        client = twilio_client(
            self.twilio.account_sid, token, url=self.twilio.url, timeout=TIMEOUT, session=self.session
        )
        acme = ProviderConfig.model_validate(acme_config(self.acme.url, **config))
        providers: list[Provider] = [
            TwilioProvider(client, self.registry.attempts, sender=SENDER),
            HttpProvider(acme, self.session, secrets={"acme": SecretStr(self.acme.token)}),
        ]
        known = Providers([each for each in providers if each.name != without], clock=self.clock)
        return SmsChannel(self.registry, known, Renderer(), reconcile_after=0.0, max_segments=10)

    async def run(self, channel: SmsChannel, attempt: int = 1) -> Any:
        group = GROUP.model_copy(update={"attempt": attempt})
        await ActivityEnvironment().run(
            ChannelSender(Channel.SMS, channel.attempt, self.registry, concurrency=5).send,
            Chunk(groups=(group,), schedule=(1.0,) * 9),
        )
        return (await self.registry.attempts.list(HAPPENED.key))[attempt - 1]

    async def send_request(self) -> SendRequest:
        (request,) = await self.registry.attempts.load([GROUP])
        return request

    @property
    def sent(self) -> tuple[int, int]:
        """How many SMS each provider has sent."""
        return len(self.twilio.messages), len(self.acme.accepted)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    await registry.migrate()
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([HAPPENED], "run")
    await registry.deliveries.add("run", [GROUP])
    async with FakeTwilio() as twilio, FakeSmsGateway() as acme, aiohttp.ClientSession() as session:
        yield Setting(registry, twilio, acme, session, Clock())
    await registry.close()


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=503), SmsResponse(status=500), SmsResponse(status=429, retry_after=60)]
)
async def test_after_an_outage_the_same_attempt_tries_the_next_provider(setting: Setting, reply: SmsResponse) -> None:
    setting.twilio.script(TO, reply)
    with capture_logs() as logs:
        made = await setting.run(setting.channel())
    assert (made.state, made.outcome.reason) == (DeliveryState.DELIVERED, "acme 202")
    assert (made.outcome.sms.provider, made.outcome.provider_id) == ("acme", setting.acme.accepted[0].id)
    assert setting.sent == (0, 1)
    failed_over = [line for line in logs if line["event"] == "sms.failed_over"]
    assert [line["provider"] for line in failed_over] == ["twilio"]
    assert TO not in str(logs)


async def test_after_an_unreachable_provider_the_next_one_is_tried(setting: Setting) -> None:
    async with FakeTwilio() as gone:
        pass
    made = await setting.run(setting._replace(twilio=gone).channel())
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


@pytest.mark.parametrize(
    "reply",
    [SmsResponse(accept=True, never=True), SmsResponse(accept=True, reset=True), SmsResponse(accept=True, status=504)],
)
async def test_after_a_lost_response_the_sms_is_reconciled_with_the_same_provider(
    setting: Setting, reply: SmsResponse
) -> None:
    setting.twilio.script(TO, reply)
    unknown = await setting.run(setting.channel())
    assert (unknown.state, unknown.outcome.reason) == (DeliveryState.WAITING, UNKNOWN_REASON)
    assert (await setting.send_request()).delivery.provider_attempted == "twilio/1"
    found = await setting.run(setting.channel(), 2)
    assert (found.state, found.outcome.provider_id) == (DeliveryState.DELIVERED, setting.twilio.messages[0].sid)
    assert setting.sent == (1, 0)


async def test_an_sms_that_was_not_accepted_may_be_sent_by_another_provider(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(accept=False, reset=True), SmsResponse(status=503))
    await setting.run(setting.channel())
    made = await setting.run(setting.channel(), 2)
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


@pytest.mark.parametrize("way", ["lookup", "key"])
@pytest.mark.parametrize("accept", [True, False])
async def test_an_sms_is_reconciled_with_the_second_provider_if_that_was_tried(
    setting: Setting, way: str, accept: bool
) -> None:
    config = lookup_at(setting.acme.url) if way == "lookup" else KEYED
    setting.twilio.script(TO, SmsResponse(status=503))
    setting.acme.script(SmsResponse(accept=accept, reset=True))
    unknown = await setting.run(setting.channel(**config))
    assert (unknown.outcome.reason, unknown.outcome.sms.provider) == (UNKNOWN_REASON, "acme")
    assert (await setting.send_request()).delivery.provider_attempted == "acme/1"
    made = await setting.run(setting.channel(**config), 2)
    assert made.state is DeliveryState.DELIVERED
    # After a lookup that finds nothing, the first provider is tried again.
    assert setting.sent == ((1, 0) if way == "lookup" and not accept else (0, 1))


@pytest.mark.parametrize("gone", ["twilio", "acme"])
async def test_an_sms_that_cannot_be_reconciled_is_never_sent_again(setting: Setting, gone: str) -> None:
    if gone == "twilio":
        setting.twilio.script(TO, SmsResponse(accept=True, reset=True))
    else:
        setting.twilio.script(TO, SmsResponse(status=503))
        setting.acme.script(SmsResponse(accept=True, reset=True))
    await setting.run(setting.channel())
    for number in (2, 3):
        # Acme has neither a lookup nor an idempotency key here; Twilio was removed from the configuration.
        made = await setting.run(setting.channel(without=gone if gone == "twilio" else ""), number)
        assert (made.outcome.kind, made.outcome.reason) == (OutcomeKind.UNKNOWN, UNKNOWN_REASON)
    assert sum(setting.sent) == 1


@pytest.mark.parametrize("accept", [True, False])
async def test_a_worker_killed_while_calling_the_second_provider_leads_to_one_sms(
    setting: Setting, accept: bool
) -> None:
    config = lookup_at(setting.acme.url)
    setting.twilio.script(TO, SmsResponse(status=503), SmsResponse(status=503))
    setting.acme.script(SmsResponse(accept=accept, never=True))
    killed = asyncio.create_task(setting.run(setting.channel(**config)))
    async with asyncio.timeout(60):
        while not setting.acme.posts:
            await asyncio.sleep(0.01)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    made = await setting.run(setting.channel(**config))
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


async def test_a_refusal_is_not_an_outage(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=21617))
    made = await setting.run(setting.channel())
    assert (made.state, setting.sent, setting.acme.posts) == (DeliveryState.REJECTED, (0, 0), [])


async def test_the_delivery_waits_when_all_providers_have_an_outage(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=503))
    setting.acme.script(SmsResponse(status=503, retry_after=40))
    made = await setting.run(setting.channel())
    assert (made.state, made.outcome.kind, made.delay) == (DeliveryState.WAITING, OutcomeKind.DEFERRED, 40)


async def test_a_provider_with_an_outage_comes_last_for_a_while(setting: Setting) -> None:
    channel = setting.channel()
    setting.twilio.script(TO, SmsResponse(status=503))
    subscriptions = [replace_id(f"sub_{number}") for number in range(3)]

    async def attempt(number: int) -> str | None:
        request = replace(await setting.send_request(), subscription=subscriptions[number], recorded=False)
        facts = (await channel.attempt(request)).sms
        return facts.provider if facts else None

    assert await attempt(0) == "acme"
    setting.clock.now += OUTAGE_SECONDS - 1
    assert (await attempt(1), setting.twilio.posts) == ("acme", 1)
    setting.clock.now += 1
    assert (await attempt(2), setting.twilio.posts) == ("twilio", 2)


def replace_id(name: str) -> Any:
    return SUBSCRIPTION.model_copy(update={"id": name})


async def test_a_provider_with_an_outage_is_tried_if_there_is_no_other(setting: Setting) -> None:
    channel = setting.channel(without="acme")
    setting.twilio.script(TO, SmsResponse(status=503))
    assert (await setting.run(channel)).state is DeliveryState.WAITING
    assert (await setting.run(channel, 2)).state is DeliveryState.DELIVERED


async def test_a_delivery_that_another_worker_has_claimed_is_not_sent_by_a_second_provider(setting: Setting) -> None:
    request = await setting.send_request()
    setting.twilio.script(TO, SmsResponse(status=503, delay=0.3))
    channel = setting.channel()
    attempting = asyncio.create_task(channel.attempt(request))
    await asyncio.wait_for(setting.twilio.requested(1), 60)
    other = await setting.send_request()
    assert await setting.registry.attempts.claim(other, provider="twilio")
    with pytest.raises(Superseded):
        await attempting
    assert setting.sent == (0, 0)


async def test_an_intent_without_a_provider_leads_to_one_sms(setting: Setting) -> None:
    await setting.registry.attempts.record_intent([await setting.send_request()])
    request = await setting.send_request()
    assert (request.delivery.provider_attempted, request.delivery.intent_at is not None) == (None, True)
    made = await setting.run(setting.channel(without="twilio"))
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


async def test_the_next_attempt_clears_the_attempted_provider(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=20404))
    await setting.run(setting.channel())
    assert (await setting.send_request()).delivery.provider_attempted == "twilio/1"
    await setting.registry.attempts.record_intent([replace(await setting.send_request(), number=2)])
    delivery = (await setting.send_request()).delivery
    assert (delivery.attempts, delivery.provider_attempted) == (1, None)
    assert cast(datetime, delivery.intent_at) <= datetime.now(UTC)
