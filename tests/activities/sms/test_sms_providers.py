"""Several providers behind the SMS channel: Twilio's double and a text gateway, each told to misbehave."""

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
from activities.sms.channel import SmsChannel, Superseded
from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import Description
from activities.sms.providers import (
    LOST_REASON,
    PASSED_OVER_FOR,
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
from tests.activities.sms.test_http_provider import KEYED, description, looked_up
from tests.factories import event, subscription

TO, SENDER = "+14155550123", "+14155550100"
TIMEOUT = 0.4
WISH = subscription({"channel": "sms", "to": TO}, id="sub_sms")
HAPPENED = event(id="1")
GROUP = Group(event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=(WISH.id,))


class Clock:
    """Seconds, which the test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting(NamedTuple):
    """Twilio first, then acme, over one registry with one delivery."""

    registry: Registry
    twilio: FakeTwilio
    acme: FakeSmsGateway
    session: aiohttp.ClientSession
    clock: Clock

    def channel(self, *, without: str = "", **described: Any) -> SmsChannel:
        """A worker of its own: it shares no memory with another."""
        token = self.twilio.auth_token
        client = twilio_client(
            self.twilio.account_sid, token, url=self.twilio.url, timeout=TIMEOUT, session=self.session
        )
        acme = Description.model_validate(description(self.acme.url, **described))
        providers: list[Provider] = [
            TwilioProvider(client, self.registry.attempts, sender=SENDER),
            HttpProvider(acme, self.session, secrets={"acme": SecretStr(self.acme.token)}),
        ]
        known = Providers([each for each in providers if each.name != without], clock=self.clock)
        return SmsChannel(self.registry, known, Renderer(), concurrency=5, reconcile_after=0.0, max_segments=10)

    async def run(self, channel: SmsChannel, attempt: int = 1) -> Any:
        group = GROUP.model_copy(update={"attempt": attempt})
        await ActivityEnvironment().run(channel.send_sms, Chunk(groups=(group,), schedule=(1.0,) * 9))
        return (await self.registry.attempts.list(HAPPENED.key))[attempt - 1]

    async def send_request(self) -> SendRequest:
        (request,) = await self.registry.attempts.load([GROUP])
        return request

    @property
    def sent(self) -> tuple[int, int]:
        """How many SMS went out by each."""
        return len(self.twilio.messages), len(self.acme.accepted)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    await registry.migrate()
    await registry.subscriptions.create(WISH)
    await registry.events.accept([HAPPENED], "run")
    await registry.deliveries.add("run", [GROUP])
    async with FakeTwilio() as twilio, FakeSmsGateway() as acme, aiohttp.ClientSession() as session:
        yield Setting(registry, twilio, acme, session, Clock())
    await registry.close()


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=503), SmsResponse(status=500), SmsResponse(status=429, retry_after=60)]
)
async def test_after_an_outage_the_same_attempt_goes_on_with_the_next(setting: Setting, reply: SmsResponse) -> None:
    setting.twilio.script(TO, reply)
    with capture_logs() as logs:
        made = await setting.run(setting.channel())
    assert (made.state, made.outcome.reason) == (DeliveryState.DELIVERED, "acme 202")
    assert (made.outcome.sms.provider, made.outcome.provider_id) == ("acme", setting.acme.accepted[0].id)
    assert setting.sent == (0, 1)
    passed_on = [line for line in logs if line["event"] == "sms.passed_on"]
    assert [line["provider"] for line in passed_on] == ["twilio"]
    assert TO not in str(logs)


async def test_a_provider_that_is_gone_is_followed_by_the_next(setting: Setting) -> None:
    async with FakeTwilio() as gone:
        pass
    made = await setting.run(setting._replace(twilio=gone).channel())
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


@pytest.mark.parametrize(
    "reply",
    [SmsResponse(accept=True, never=True), SmsResponse(accept=True, reset=True), SmsResponse(accept=True, status=504)],
)
async def test_after_a_lost_answer_nobody_else_is_asked_and_the_sms_is_found_where_it_is(
    setting: Setting, reply: SmsResponse
) -> None:
    setting.twilio.script(TO, reply)
    lost = await setting.run(setting.channel())
    assert (lost.state, lost.outcome.reason) == (DeliveryState.WAITING, LOST_REASON)
    assert (await setting.send_request()).delivery.provider_attempted == "twilio/1"
    found = await setting.run(setting.channel(), 2)
    assert (found.state, found.outcome.provider_id) == (DeliveryState.DELIVERED, setting.twilio.messages[0].sid)
    assert setting.sent == (1, 0)


async def test_what_was_lost_and_not_accepted_may_then_go_by_another(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(accept=False, reset=True), SmsResponse(status=503))
    await setting.run(setting.channel())
    made = await setting.run(setting.channel(), 2)
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


@pytest.mark.parametrize("way", ["look-up", "key"])
@pytest.mark.parametrize("accept", [True, False])
async def test_what_the_second_provider_may_have_is_looked_for_there(setting: Setting, way: str, accept: bool) -> None:
    described = looked_up(setting.acme.url) if way == "look-up" else KEYED
    setting.twilio.script(TO, SmsResponse(status=503))
    setting.acme.script(SmsResponse(accept=accept, reset=True))
    lost = await setting.run(setting.channel(**described))
    assert (lost.outcome.reason, lost.outcome.sms.provider) == (LOST_REASON, "acme")
    assert (await setting.send_request()).delivery.provider_attempted == "acme/1"
    made = await setting.run(setting.channel(**described), 2)
    assert made.state is DeliveryState.DELIVERED
    # A look-up that finds nothing frees it for whoever comes first.
    assert setting.sent == ((1, 0) if way == "look-up" and not accept else (0, 1))


@pytest.mark.parametrize("gone", ["twilio", "acme"])
async def test_what_cannot_be_asked_for_is_never_sent_again(setting: Setting, gone: str) -> None:
    if gone == "twilio":
        setting.twilio.script(TO, SmsResponse(accept=True, reset=True))
    else:
        setting.twilio.script(TO, SmsResponse(status=503))
        setting.acme.script(SmsResponse(accept=True, reset=True))
    await setting.run(setting.channel())
    for number in (2, 3):
        # Acme has neither a look-up nor a key here; Twilio was taken out of the configuration.
        made = await setting.run(setting.channel(without=gone if gone == "twilio" else ""), number)
        assert (made.outcome.kind, made.outcome.reason) == (OutcomeKind.UNKNOWN, LOST_REASON)
    assert sum(setting.sent) == 1


@pytest.mark.parametrize("accept", [True, False])
async def test_a_worker_killed_while_the_second_provider_was_asked_leads_to_one_sms(
    setting: Setting, accept: bool
) -> None:
    described = looked_up(setting.acme.url)
    setting.twilio.script(TO, SmsResponse(status=503), SmsResponse(status=503))
    setting.acme.script(SmsResponse(accept=accept, never=True))
    killed = asyncio.create_task(setting.run(setting.channel(**described)))
    async with asyncio.timeout(5):
        while not setting.acme.posts:
            await asyncio.sleep(0.01)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    made = await setting.run(setting.channel(**described))
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


async def test_a_refusal_is_no_outage(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=21617))
    made = await setting.run(setting.channel())
    assert (made.state, setting.sent, setting.acme.posts) == (DeliveryState.REJECTED, (0, 0), [])


async def test_when_all_have_an_outage_the_delivery_waits(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=503))
    setting.acme.script(SmsResponse(status=503, retry_after=40))
    made = await setting.run(setting.channel())
    assert (made.state, made.outcome.kind, made.delay) == (DeliveryState.WAITING, OutcomeKind.DEFERRED, 40)


async def test_a_provider_with_an_outage_is_passed_over_for_a_while_and_tried_again(setting: Setting) -> None:
    channel = setting.channel()
    setting.twilio.script(TO, SmsResponse(status=503))
    wishes = [replace_id(f"sub_{number}") for number in range(3)]

    async def attempt(number: int) -> str | None:
        request = replace(await setting.send_request(), subscription=wishes[number])
        facts = (await channel.attempt(request)).sms
        return facts.provider if facts else None

    assert await attempt(0) == "acme"
    setting.clock.now += PASSED_OVER_FOR - 1
    assert (await attempt(1), setting.twilio.posts) == ("acme", 1)
    setting.clock.now += 1
    assert (await attempt(2), setting.twilio.posts) == ("twilio", 2)


def replace_id(name: str) -> Any:
    return WISH.model_copy(update={"id": name})


async def test_one_that_was_passed_over_is_asked_when_nobody_else_is_left(setting: Setting) -> None:
    channel = setting.channel(without="acme")
    setting.twilio.script(TO, SmsResponse(status=503))
    assert (await setting.run(channel)).state is DeliveryState.WAITING
    assert (await setting.run(channel, 2)).state is DeliveryState.DELIVERED


async def test_a_delivery_that_another_worker_has_taken_over_goes_to_no_second_provider(setting: Setting) -> None:
    request = await setting.send_request()
    setting.twilio.script(TO, SmsResponse(status=503, delay=0.3))
    channel = setting.channel()
    attempting = asyncio.create_task(channel.attempt(request, claim_attempt=setting.registry.attempts.claim))
    await asyncio.wait_for(setting.twilio.requested(1), 5)
    other = await setting.send_request()
    assert await setting.registry.attempts.claim(other, provider="twilio")
    with pytest.raises(Superseded):
        await attempting
    assert setting.sent == (0, 0)


async def test_an_intent_from_before_anything_was_asked_leads_to_one_sms(setting: Setting) -> None:
    await setting.registry.attempts.record_intent([await setting.send_request()])
    request = await setting.send_request()
    assert (request.delivery.provider_attempted, request.delivery.intent_at is not None) == (None, True)
    made = await setting.run(setting.channel(without="twilio"))
    assert (made.state, setting.sent) == (DeliveryState.DELIVERED, (0, 1))


async def test_what_was_asked_for_an_attempt_that_ended_is_forgotten_by_the_next(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=20404))
    await setting.run(setting.channel())
    assert (await setting.send_request()).delivery.provider_attempted == "twilio/1"
    await setting.registry.attempts.record_intent([replace(await setting.send_request(), number=2)])
    delivery = (await setting.send_request()).delivery
    assert (delivery.attempts, delivery.provider_attempted) == (1, None)
    assert cast(datetime, delivery.intent_at) <= datetime.now(UTC)
