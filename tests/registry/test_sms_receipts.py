"""SMS receipts: stored beside the deliveries; only a status of a higher rank replaces one."""

import asyncio
from decimal import Decimal

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Delivery, DeliveryKey, DeliveryState, Outcome, OutcomeKind, SmsFacts
from bellwire.errors import DeliveryNotFound
from bellwire.registry import Registry
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding
from tests.factories import NOW, event, subscription

EVENT = event(id="1")
SUBSCRIPTION = subscription({"channel": "sms", "to": "+14155550123"}, id="sub")
GROUP = Group(event_key=EVENT.key, channel=Channel.SMS, subscription_ids=(SUBSCRIPTION.id,))
BOUNCED = Suppression(channel=Channel.SMS, address="+14155550123", reason=SuppressionReason.BOUNCED)


def receipt(status: str, provider_id: str = "SM1", **fields: object) -> SmsReceipt:
    values = {"event_key": EVENT.key, "subscription_id": SUBSCRIPTION.id, "provider_id": provider_id, "status": status}
    return SmsReceipt.model_validate({**values, "received_at": NOW, **fields})


def sent(number: int, provider_id: str, facts: SmsFacts | None = None) -> Attempt:
    outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="Twilio 201", provider_id=provider_id, sms=facts)
    return Attempt(
        event_key=EVENT.key,
        subscription_id=SUBSCRIPTION.id,
        number=number,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.DELIVERED,
    )


@pytest.fixture
async def one(registry: Registry) -> Registry:
    """A registry with one delivery by SMS."""
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([EVENT], "workflow")
    await registry.deliveries.add("workflow", [GROUP])
    return registry


async def the_one(registry: Registry) -> Delivery:
    (delivery,) = await registry.deliveries.list()
    return delivery


async def test_a_receipt_that_arrives_before_its_attempt_is_recorded_shows_afterwards(one: Registry) -> None:
    early = receipt("delivered", segments=2, price=Decimal("0.0158"), currency="USD")
    assert await one.sms_receipts.record(early)
    assert await one.sms_receipts.of_deliveries([await the_one(one)]) == {}
    await one.attempts.record([sent(1, "SM1")])
    delivery = await the_one(one)
    assert await one.sms_receipts.of_deliveries([delivery]) == {delivery.id: early}


async def test_a_delivery_is_found_by_every_provider_id_of_its_attempts(one: Registry) -> None:
    other = subscription({"channel": "sms", "to": "+14155550124"}, id="other")
    await one.subscriptions.create(other)
    await one.deliveries.add("workflow", [GROUP.model_copy(update={"subscription_ids": (other.id,)})])
    await one.attempts.record([sent(1, "SM1")])
    await one.deliveries.redeliver("again", [GROUP])
    await one.attempts.record([sent(2, "SM2"), sent(1, "C1/1764.1").model_copy(update={"subscription_id": other.id})])
    found = await one.attempts.by_provider_ids(["SM1", "SM2", "SM1", "C1/1764.1", "c1/1764.1", "SM", ""])
    mine = DeliveryKey(EVENT.key, SUBSCRIPTION.id)
    assert found == {"SM1": [mine], "SM2": [mine], "C1/1764.1": [DeliveryKey(EVENT.key, other.id)]}
    await one.attempts.record([sent(2, "SM1").model_copy(update={"subscription_id": other.id})])
    both = (await one.attempts.by_provider_ids(["SM1"]))["SM1"]
    assert sorted(both) == sorted([mine, DeliveryKey(EVENT.key, other.id)])
    assert await one.attempts.by_provider_ids([]) == {}
    assert await one.attempts.claimed_provider_ids(["SM2", "SM3"]) == {"SM2"}


async def test_a_provider_id_leads_nowhere_once_its_subscription_is_deleted(one: Registry) -> None:
    await one.attempts.record([sent(1, "SM1")])
    await one.retention.delete(SUBSCRIPTION.id)
    assert await one.attempts.by_provider_ids(["SM1"]) == {}


async def test_a_redelivery_has_a_receipt_of_its_own(one: Registry) -> None:
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
async def test_only_a_status_of_a_higher_rank_replaces_one(
    one: Registry, earlier: SmsReceiptStatus, later: SmsReceiptStatus
) -> None:
    order = ["queued", "sending", "sent"]
    final = earlier not in order
    higher = not final and (later not in order or order.index(later) > order.index(earlier))
    await one.attempts.record([sent(1, "SM1")])
    assert await one.sms_receipts.record(receipt(earlier, code="1"))
    assert await one.sms_receipts.record(receipt(later, code="2"), suppression=BOUNCED) == higher
    (found,) = (await one.sms_receipts.of_deliveries([await the_one(one)])).values()
    assert (found.status, found.code) == ((later, "2") if higher else (earlier, "1"))
    assert bool(await one.suppressions.list()) == higher


async def test_of_equal_concurrent_receipts_one_is_stored(one: Registry) -> None:
    stored = await asyncio.gather(*(one.sms_receipts.record(receipt("delivered")) for _ in range(8)))
    assert sorted(stored) == [False] * 7 + [True]


async def test_a_receipt_for_an_unknown_delivery_has_no_effect(one: Registry) -> None:
    with pytest.raises(DeliveryNotFound):
        await one.sms_receipts.record(receipt("failed", subscription_id="other"), suppression=BOUNCED)
    assert await one.suppressions.list() == []


async def test_segments_and_cost_are_stored_with_the_attempt(one: Registry) -> None:
    facts = SmsFacts(encoding=Encoding.UCS_2, segments=2, provider="acme", estimate=Decimal("0.1450"), currency="EUR")
    await one.attempts.record([sent(1, "SM1", facts)])
    (made,) = await one.attempts.list(EVENT.key)
    assert made.outcome.sms == facts
    assert str(facts.estimate) == "0.1450"


async def test_the_provider_of_a_claimed_attempt_is_stored(one: Registry) -> None:
    (request,) = await one.attempts.load([GROUP])
    assert await one.attempts.claim(request, provider="acme")
    (request,) = await one.attempts.load([GROUP])
    assert request.delivery.provider_attempted == "acme/1"
    await one.attempts.record_intent([request])
    assert (await the_one(one)).provider_attempted == "acme/1", "the SMS is reconciled there"


async def test_lifting_by_reason_keeps_other_reasons(one: Registry) -> None:
    await one.suppressions.add(BOUNCED)
    number = BOUNCED.address
    assert not await one.suppressions.lift(Channel.SMS, number, reason=SuppressionReason.UNSUBSCRIBED)
    assert await one.suppressions.lift(Channel.SMS, number, reason=SuppressionReason.BOUNCED)


async def test_suppressions_of_other_scopes_are_requested_by_name(one: Registry) -> None:
    await one.suppressions.add(BOUNCED.model_copy(update={"subscription_id": "sender:Acme"}))
    number = BOUNCED.address
    assert await one.suppressions.among(Channel.SMS, [number], subscription_id="sub") == {}
    found = await one.suppressions.among(Channel.SMS, [number], subscription_id="sub", also_for=["sender:Acme"])
    assert found == {number: SuppressionReason.BOUNCED}
