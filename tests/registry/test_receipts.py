"""What providers confirm later, kept beside the deliveries."""

import asyncio
from decimal import Decimal

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind, SmsFacts
from bellwire.errors import DeliveryNotFound
from bellwire.registry import Registry
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding
from tests.factories import NOW, event, subscription

HAPPENED = event(id="1")
WISH = subscription({"channel": "sms", "to": "+14155550123"}, id="sub")
GROUP = Group(event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=(WISH.id,))
BOUNCED = Suppression(channel=Channel.SMS, address="+14155550123", reason=SuppressionReason.BOUNCED)


def receipt(status: str, provider_id: str = "SM1", **fields: object) -> SmsReceipt:
    values = {"event_key": HAPPENED.key, "subscription_id": WISH.id, "provider_id": provider_id, "status": status}
    return SmsReceipt.model_validate({**values, "received_at": NOW, **fields})


def sent(number: int, provider_id: str, facts: SmsFacts | None = None) -> Attempt:
    outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="Twilio 201", provider_id=provider_id, sms=facts)
    return Attempt(
        event_key=HAPPENED.key,
        subscription_id=WISH.id,
        number=number,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.DELIVERED,
    )


@pytest.fixture
async def one(registry: Registry) -> Registry:
    """A registry with one delivery by SMS."""
    await registry.subscriptions.create(WISH)
    await registry.events.accept([HAPPENED], "run")
    await registry.deliveries.add("run", [GROUP])
    return registry


async def the_one(registry: Registry) -> Delivery:
    (delivery,) = await registry.deliveries.list()
    return delivery


async def test_a_confirmation_shows_once_the_attempt_is_on_record_that_it_is_about(one: Registry) -> None:
    told = receipt("delivered", segments=2, price=Decimal("0.0158"), currency="USD")
    assert await one.sms_receipts.record(told)
    assert await one.sms_receipts.of_deliveries([await the_one(one)]) == {}
    await one.attempts.record([sent(1, "SM1")])
    delivery = await the_one(one)
    assert await one.sms_receipts.of_deliveries([delivery]) == {delivery.id: told}


async def test_a_delivery_that_was_made_again_is_confirmed_anew(one: Registry) -> None:
    await one.attempts.record([sent(1, "SM1")])
    await one.sms_receipts.record(receipt("undelivered", code="30003"))
    await one.deliveries.redeliver("again", [GROUP])
    await one.attempts.record([sent(2, "SM2")])
    delivery = await the_one(one)
    assert await one.sms_receipts.of_deliveries([delivery]) == {}
    await one.sms_receipts.record(receipt("sent", "SM2"))
    assert (await one.sms_receipts.of_deliveries([delivery]))[delivery.id].status is SmsReceiptStatus.SENT


@pytest.mark.parametrize("earlier", list(SmsReceiptStatus))
@pytest.mark.parametrize("later", list(SmsReceiptStatus))
async def test_only_what_goes_further_is_news(
    one: Registry, earlier: SmsReceiptStatus, later: SmsReceiptStatus
) -> None:
    order = ["queued", "sending", "sent"]
    final = earlier not in order
    further = not final and (later not in order or order.index(later) > order.index(earlier))
    await one.attempts.record([sent(1, "SM1")])
    assert await one.sms_receipts.record(receipt(earlier, code="1"))
    assert await one.sms_receipts.record(receipt(later, code="2"), suppression=BOUNCED) == further
    (found,) = (await one.sms_receipts.of_deliveries([await the_one(one)])).values()
    assert (found.status, found.code) == ((later, "2") if further else (earlier, "1"))
    assert bool(await one.suppressions.list()) == further


async def test_of_equal_words_at_the_same_time_one_is_news(one: Registry) -> None:
    news = await asyncio.gather(*(one.sms_receipts.record(receipt("delivered")) for _ in range(8)))
    assert sorted(news) == [False] * 7 + [True]


async def test_a_delivery_that_is_not_known_is_refused_without_effect(one: Registry) -> None:
    with pytest.raises(DeliveryNotFound):
        await one.sms_receipts.record(receipt("failed", subscription_id="other"), suppression=BOUNCED)
    assert await one.suppressions.list() == []


async def test_what_an_sms_took_comes_back_as_it_was(one: Registry) -> None:
    facts = SmsFacts(encoding=Encoding.UCS_2, segments=2, provider="acme", estimate=Decimal("0.1450"), currency="EUR")
    await one.attempts.record([sent(1, "SM1", facts)])
    (made,) = await one.attempts.list(HAPPENED.key)
    assert made.outcome.sms == facts
    assert str(facts.estimate) == "0.1450"


async def test_who_was_asked_is_kept_with_the_delivery(one: Registry) -> None:
    (request,) = await one.attempts.load([GROUP])
    assert await one.attempts.claim(request, provider="acme")
    (request,) = await one.attempts.load([GROUP])
    assert request.delivery.provider_attempted == "acme/1"
    await one.attempts.record_intent([request])
    assert (await the_one(one)).provider_attempted == "acme/1", "what it has is looked for there"


async def test_start_lifts_only_what_was_listed_for_its_reason(one: Registry) -> None:
    await one.suppressions.add(BOUNCED)
    number = BOUNCED.address
    assert not await one.suppressions.lift(Channel.SMS, number, reason=SuppressionReason.UNSUBSCRIBED)
    assert await one.suppressions.lift(Channel.SMS, number, reason=SuppressionReason.BOUNCED)


async def test_other_scopes_are_asked_for_by_name(one: Registry) -> None:
    await one.suppressions.add(BOUNCED.model_copy(update={"subscription_id": "sender:Acme"}))
    number = BOUNCED.address
    assert await one.suppressions.among(Channel.SMS, [number], subscription_id="sub") == {}
    found = await one.suppressions.among(Channel.SMS, [number], subscription_id="sub", also_for=["sender:Acme"])
    assert found == {number: SuppressionReason.BOUNCED}
