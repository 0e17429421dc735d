"""Limits of SMS: segments, allowed senders and suppressed numbers; and the recorded segments and prices."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from structlog.testing import capture_logs

from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.prices import Price, Prices
from activities.sms.providers import Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.deliveries import DeliveryState, Fault, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.factories import NOW, event, send_request, subscription

TO, SENDER, SERVICE = "+4915112345678", "+14155550100", "MG" + "1" * 32
GERMANY, MOBILE = (
    Price(prefix=prefix, price=Decimal(price), currency="EUR") for prefix, price in (("+49", "0.08"), ("+4915", "0.07"))
)


class Setting(NamedTuple):
    registry: Registry
    twilio: FakeTwilio
    session: aiohttp.ClientSession
    folder: Path

    def channel(self, *, callbacks: str | None = None, **changes: Any) -> SmsChannel:
        client = twilio_client(
            self.twilio.account_sid, self.twilio.auth_token, url=self.twilio.url, timeout=60, session=self.session
        )
        provider = TwilioProvider(client, self.registry.attempts, sender=SENDER, callbacks=callbacks)
        options = {"reconcile_after": 0.0, "max_segments": 10, **changes}
        return SmsChannel(self.registry, Providers([provider]), Renderer(self.folder), **options)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    (tmp_path / "templates" / "custom").mkdir(parents=True)
    (tmp_path / "templates" / "custom" / "sms.txt").write_text("{{ data.text }}")
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    await registry.migrate()
    async with FakeTwilio() as twilio, aiohttp.ClientSession() as session:
        yield Setting(registry, twilio, session, tmp_path / "templates")
    await registry.close()


def request(text: str = "Hello", **target: Any) -> SendRequest:
    to = subscription({"channel": "sms", "to": TO, **target}, id="sub_sms", types=["custom"])
    return replace(send_request(to, event(type="custom", data={"text": text})), recorded=False)


def suppression(scope: str, reason: SuppressionReason = SuppressionReason.OPERATOR) -> Suppression:
    return Suppression(channel=Channel.SMS, address=TO, reason=reason, subscription_id=scope)


@pytest.mark.parametrize(
    ("text", "target", "limit", "reason"),
    [
        ("a" * 160, {}, 1, None),
        ("a" * 161, {}, 1, "too long: 2 segments (GSM-7), at most 1"),
        ("中" * 71, {"max_segments": 1}, 10, "too long: 2 segments (UCS-2), at most 1"),
        ("中" * 71, {"max_segments": 2}, 1, None),
        ("€" * 1600, {}, 10, "too long: 22 segments (GSM-7), at most 10"),
    ],
)
async def test_a_text_with_too_many_segments_is_rejected_and_not_sent(
    setting: Setting, text: str, target: dict[str, int], limit: int, reason: str | None
) -> None:
    outcome = await setting.channel(max_segments=limit).attempt(request(text, **target))
    if reason is None:
        assert (outcome.kind, setting.twilio.posts) == (OutcomeKind.DELIVERED, 1)
    else:
        assert (outcome.kind, outcome.reason, setting.twilio.posts) == (OutcomeKind.REJECTED, reason, 0)
        assert outcome.fault is Fault.OPERATOR
    assert outcome.sms is not None
    assert outcome.sms.estimate is None


async def test_segments_and_their_price_are_recorded(setting: Setting) -> None:
    outcome = await setting.channel(prices=Prices([GERMANY, MOBILE])).attempt(request("中" * 71))
    facts = outcome.sms
    assert facts is not None
    assert (facts.encoding, facts.segments, facts.provider) == (Encoding.UCS_2, 2, "twilio")
    assert (facts.estimate, facts.currency) == (Decimal("0.14"), "EUR")
    assert (facts.reported_segments, facts.reported_price, facts.reported_currency) == (2, None, None)


async def test_the_price_that_twilio_reports_is_recorded(setting: Setting) -> None:
    sent = setting.twilio.add_message(TO, SENDER, "Hello")
    setting.twilio.set_status(sent.sid, "delivered", price="-0.0158")
    unknown = request()
    delivery = unknown.delivery.model_copy(update={"intent_at": NOW, "provider_attempted": "twilio/1"})
    outcome = await setting.channel().attempt(
        send_request(unknown.subscription, unknown.event, **delivery.model_dump())
    )
    facts = outcome.sms
    assert facts is not None
    assert (facts.reported_segments, facts.reported_price, facts.reported_currency) == (1, Decimal("0.0158"), "USD")


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (SmsResponse(status=400, code=30007), Fault.RECEIVER),
        (SmsResponse(status=400, code=21614), Fault.RECEIVER),
        (SmsResponse(status=400, code=21617), Fault.PROVIDER),
        (SmsResponse(status=401, code=20003), Fault.OPERATOR),
        (SmsResponse(status=429, code=20429), Fault.PROVIDER),
        (SmsResponse(status=503), Fault.PROVIDER),
    ],
)
async def test_a_refusal_is_the_receivers_fault_only_if_it_concerns_the_number(
    setting: Setting, reply: SmsResponse, fault: Fault
) -> None:
    setting.twilio.script(TO, reply)
    outcome = await setting.channel().attempt(request())
    assert outcome.kind in {OutcomeKind.REJECTED, OutcomeKind.DEFERRED}
    assert outcome.fault is fault


async def test_an_undelivered_sms_is_the_receivers_fault(setting: Setting) -> None:
    sent = setting.twilio.add_message(TO, SENDER, "Hello")
    setting.twilio.set_status(sent.sid, "undelivered", 30003)
    unknown = request()
    outcome = await setting.channel().attempt(
        send_request(unknown.subscription, unknown.event, intent_at=NOW, provider_attempted="twilio/1")
    )
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.RECEIVER)


async def test_a_refused_sms_has_no_estimated_price(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=21617))
    facts = (await setting.channel(prices=Prices([MOBILE])).attempt(request())).sms
    assert facts is not None
    assert (facts.segments, facts.estimate) == (1, None)


async def test_the_subscription_chooses_the_sender(setting: Setting) -> None:
    for sender in (SERVICE, "Acme Shop", "+14155550199"):
        await setting.channel(senders=(SERVICE, "Acme Shop", "+14155550199")).attempt(request(sender=sender))
    await setting.channel().attempt(request())
    assert [sent.sender for sent in setting.twilio.messages] == [SERVICE, "Acme Shop", "+14155550199", SENDER]


async def test_a_sender_that_is_not_allowed_defers_and_logs_an_error(setting: Setting) -> None:
    with capture_logs() as logs:
        outcome = await setting.channel(senders=(SENDER,)).attempt(request(sender="Acme"))
    assert (outcome.kind, outcome.reason, outcome.fault) == (OutcomeKind.DEFERRED, "sender not allowed", Fault.OPERATOR)
    assert [line["log_level"] for line in logs] == ["error"]
    assert setting.twilio.posts == 0


async def test_the_status_callback_contains_the_delivery_id(setting: Setting) -> None:
    sent_request = request()
    await setting.channel(callbacks="https://bellwire.example/callbacks/twilio").attempt(sent_request)
    assert (
        setting.twilio.messages[0].callback == f"https://bellwire.example/callbacks/twilio/{sent_request.delivery.id}"
    )
    await setting.channel().attempt(request("Again"))
    assert setting.twilio.messages[1].callback is None


@pytest.mark.parametrize("scope", [EVERYWHERE, "sub_sms", by_sender(SENDER)])
async def test_nothing_is_sent_to_a_suppressed_number(setting: Setting, scope: str) -> None:
    await setting.registry.suppressions.add(suppression(scope, SuppressionReason.UNSUBSCRIBED))
    outcome = await setting.channel().attempt(request())
    assert (outcome.kind, outcome.reason) == (OutcomeKind.REJECTED, "recipient suppressed: unsubscribed")
    assert (outcome.fault, setting.twilio.posts) == (Fault.OPERATOR, 0)


@pytest.mark.parametrize("scope", ["sub_other", by_sender("+14155550199")])
async def test_a_suppression_for_another_subscription_or_sender_does_not_apply(setting: Setting, scope: str) -> None:
    await setting.registry.suppressions.add(suppression(scope))
    assert (await setting.channel().attempt(request())).kind is OutcomeKind.DELIVERED


async def test_after_stop_the_number_is_suppressed_until_start(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=21610))
    channel = setting.channel()
    stopped = await channel.attempt(request())
    assert (stopped.kind, stopped.disable, stopped.fault) == (OutcomeKind.REJECTED, False, Fault.PROVIDER)
    (listed,) = await setting.registry.suppressions.list()
    assert (listed.reason, listed.subscription_id) == (SuppressionReason.UNSUBSCRIBED, by_sender(SENDER))
    assert (await channel.attempt(request())).reason == "recipient suppressed: unsubscribed"
    assert setting.twilio.posts == 1
    await setting.registry.suppressions.lift(Channel.SMS, TO, subscription_id=by_sender(SENDER))
    assert (await channel.attempt(request())).kind is OutcomeKind.DELIVERED


async def test_a_number_that_does_not_exist_is_suppressed_for_all_senders(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=400, code=21614))
    assert (await setting.channel().attempt(request())).disable
    (listed,) = await setting.registry.suppressions.list()
    assert (listed.reason, listed.subscription_id) == (SuppressionReason.BOUNCED, EVERYWHERE)


async def test_an_sms_that_was_sent_before_the_suppression_is_delivered(setting: Setting) -> None:
    sent_request = request()
    sent = setting.twilio.add_message(TO, SENDER, "Hello")
    await setting.registry.suppressions.add(suppression(EVERYWHERE))
    killed = send_request(
        sent_request.subscription, sent_request.event, state=DeliveryState.SENDING, intent_at=sent.created_at
    )
    outcome = await setting.channel().attempt(killed)
    assert (outcome.kind, outcome.provider_id) == (OutcomeKind.DELIVERED, sent.sid)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_the_longest_prefix_determines_the_price(tmp_path: Path, suffix: str) -> None:
    rows = [("+49", "0.0725"), ("+4915", "0.0680"), ("+", "0.10")]
    file = tmp_path / f"prices.{suffix}"
    if suffix == "csv":
        file.write_text("prefix,price,currency\n" + "".join(f"{prefix},{price},EUR\n" for prefix, price in rows))
    else:
        file.write_text(json.dumps([{"prefix": prefix, "price": price, "currency": "EUR"} for prefix, price in rows]))
    prices = Prices.read(file)
    found = [prices.of(number) for number in ("+491701234567", "+4915112345678", "+14155550123")]
    assert [price and price.price for price in found] == [Decimal("0.0725"), Decimal("0.0680"), Decimal("0.10")]
    assert Prices([GERMANY]).of("+14155550123") is None
    assert Prices().of(TO) is None


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "+49,0.07,EUR\n", "the first line must name the columns: prefix,price,currency"),
        ("a.csv", "prefix,price,currency\n+49,0.07,EUR\n49,0.07,EUR\n", "1.prefix"),
        ("a.csv", "prefix,price,currency\n+49,cheap,EUR\n", "0.price"),
        ("a.csv", "prefix,price,currency\n+49,-1,EUR\n", "0.price"),
        ("a.csv", "prefix,price,currency\n+49,nan,EUR\n", "0.price"),
        ("a.csv", "prefix,price,currency\n+49,0.07,euro\n", "0.currency"),
        ("a.csv", "prefix,price,currency\n+49,0.07,EUR,7\n", "0.more"),
        ("a.csv", "prefix,price,currency\n+49,0.07\n", "0.currency"),
        ("a.csv", "prefix,price,currency\n+49,1,EUR\n+49,2,EUR\n", "prefix +49 is given twice"),
        ("a.json", '{"+49": 1}', "list"),
        ("a.json", "[", "a.json"),
    ],
)
def test_the_error_for_an_invalid_price_names_the_field(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="BELLWIRE_SMS_PRICES") as refused:
        Prices.read(tmp_path / name)
    assert problem in str(refused.value)
