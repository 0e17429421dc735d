"""Suppressions: addresses that are not sent to."""

from datetime import UTC, datetime, timedelta

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from bellwire.suppressions import EVERYWHERE, Reported, Suppression, SuppressionReason
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription

ANN = "ann@example.com"


def suppression(address: str = ANN, **fields: object) -> Suppression:
    values = {"channel": Channel.EMAIL, "address": address, "reason": SuppressionReason.BOUNCED, **fields}
    return Suppression.model_validate(values)


async def test_a_suppressed_address_is_found_for_every_subscription_regardless_of_case(registry: Registry) -> None:
    await registry.suppressions.add(suppression())
    found = await registry.suppressions.among(
        Channel.EMAIL, ["Ann@Example.com", "bob@example.com"], subscription_id="sub"
    )
    assert found == {"Ann@Example.com": SuppressionReason.BOUNCED}


@pytest.mark.parametrize(
    ("channel", "one", "other"),
    [
        (Channel.EMAIL, "kunde@straße.de", "Kunde@xn--strae-oqa.DE"),
        (Channel.EMAIL, "ju\u0308rgen@example.com", "JÜRGEN@example.com"),
        (Channel.EMAIL, "ann@example.com", "\uff41nn\uff20example\u3002com"),
        (Channel.SMS, "+14155550123", "+1 (415) 555-0123"),
        (Channel.SMS, "+14155550123", "\uff0b\uff114155550123"),
    ],
)
async def test_a_suppression_holds_for_every_spelling_of_an_address(
    registry: Registry, channel: Channel, one: str, other: str
) -> None:
    for stored, looked_up in ((one, other), (other, one)):
        await registry.suppressions.add(suppression(stored, channel=channel))
        found = await registry.suppressions.among(channel, [looked_up], subscription_id="sub")
        assert found == {looked_up: SuppressionReason.BOUNCED}
        assert len(await registry.suppressions.list(address=looked_up)) == 1
        assert await registry.suppressions.lift(channel, looked_up)


async def test_a_suppression_does_not_hold_for_another_mailbox(registry: Registry) -> None:
    await registry.suppressions.add(suppression("kunde@strasse.de"))
    await registry.suppressions.add(suppression("gross@example.com"))
    others = ["kunde@straße.de", "groß@example.com"]
    assert await registry.suppressions.among(Channel.EMAIL, others, subscription_id="sub") == {}


async def test_a_suppression_of_one_subscription_does_not_affect_others(registry: Registry) -> None:
    await registry.suppressions.add(suppression(subscription_id="one", reason=SuppressionReason.UNSUBSCRIBED))
    assert await registry.suppressions.among(Channel.EMAIL, [ANN], subscription_id="other") == {}
    found = await registry.suppressions.among(Channel.EMAIL, [ANN], subscription_id="one")
    assert found == {ANN: SuppressionReason.UNSUBSCRIBED}
    await registry.suppressions.add(suppression(reason=SuppressionReason.COMPLAINED))
    found = await registry.suppressions.among(Channel.EMAIL, [ANN], subscription_id="one")
    assert found == {ANN: SuppressionReason.COMPLAINED}


async def test_suppressions_of_one_channel_do_not_affect_another(registry: Registry) -> None:
    await registry.suppressions.add(suppression("+14155550123", channel=Channel.SMS))
    assert await registry.suppressions.among(Channel.EMAIL, ["+14155550123"], subscription_id="sub") == {}


async def test_the_first_reason_is_kept(registry: Registry) -> None:
    await registry.suppressions.add(suppression())
    await registry.suppressions.add(suppression(reason=SuppressionReason.OPERATOR))
    assert [each.reason for each in await registry.suppressions.list()] == [SuppressionReason.BOUNCED]


async def test_lifting_one_subscription_or_all(registry: Registry) -> None:
    for scope in ("one", "other", EVERYWHERE):
        await registry.suppressions.add(suppression(subscription_id=scope))
    assert await registry.suppressions.lift(Channel.EMAIL, "ANN@example.com", subscription_id="one")
    assert {each.subscription_id for each in await registry.suppressions.list()} == {"other", EVERYWHERE}
    assert await registry.suppressions.lift(Channel.EMAIL, ANN)
    assert not await registry.suppressions.lift(Channel.EMAIL, ANN)
    assert await registry.suppressions.list() == []


async def test_suppressions_are_listed_newest_first_and_filtered(registry: Registry) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(3):
        await registry.suppressions.add(suppression(f"{number}@example.com", created_at=start + timedelta(days=number)))
    await registry.suppressions.add(suppression("+14155550123", channel=Channel.SMS, created_at=start))
    listed = await registry.suppressions.list(channel=Channel.EMAIL, limit=2)
    assert [each.address for each in listed] == ["2@example.com", "1@example.com"]
    assert listed[0].created_at == start + timedelta(days=2)
    older = await registry.suppressions.list(channel=Channel.EMAIL, before=listed[-1].created_at)
    assert [each.address for each in older] == ["0@example.com"]
    assert [each.channel for each in await registry.suppressions.list(address="+14155550123")] == [Channel.SMS]


async def test_deliveries_are_loaded_with_their_suppressed_addresses(registry: Registry) -> None:
    published = event(id="1")
    targets: dict[str, dict[str, object]] = {
        "several": {"channel": "email", "to": ["Ann@example.com", "bob@example.com", "cat@example.com"]},
        "other": {"channel": "email", "to": "bob@example.com"},
        "phone": {"channel": "sms", "to": "+14155550123"},
        "hook": {"channel": "webhook", "url": "https://app.example/hooks"},
    }
    for name, target in targets.items():
        await registry.subscriptions.create(subscription(target, id=name))
    await registry.events.accept([published], "event//shop/1")
    groups = [
        Group(event_key=published.key, channel=Channel(str(target["channel"])), subscription_ids=(name,))
        for name, target in targets.items()
    ]
    await registry.deliveries.add("event//shop/1", groups)
    assert [dict(request.suppressed) for request in await registry.attempts.load(groups)] == [{}] * 4
    await registry.suppressions.add(suppression())
    await registry.suppressions.add(
        suppression("bob@example.com", subscription_id="several", reason=SuppressionReason.UNSUBSCRIBED)
    )
    await registry.suppressions.add(
        suppression("+14155550123", channel=Channel.SMS, reason=SuppressionReason.UNSUBSCRIBED)
    )
    assert {request.subscription.id: dict(request.suppressed) for request in await registry.attempts.load(groups)} == {
        "several": {
            "Ann@example.com": SuppressionReason.BOUNCED,
            "bob@example.com": SuppressionReason.UNSUBSCRIBED,
        },
        "other": {},
        "phone": {"+14155550123": SuppressionReason.UNSUBSCRIBED},
        "hook": {},
    }
    await registry.suppressions.add(suppression("bob@example.com", reason=SuppressionReason.COMPLAINED))
    several, other, _, _ = await registry.attempts.load(groups)
    assert several.suppressed["bob@example.com"] is SuppressionReason.COMPLAINED
    assert other.suppressed == {"bob@example.com": SuppressionReason.COMPLAINED}


async def test_recording_an_attempt_suppresses_the_addresses_of_its_outcome(registry: Registry) -> None:
    published = event(id="1")
    await registry.subscriptions.create(subscription({"channel": "email", "to": [ANN, "bob@example.com"]}, id="sub"))
    await registry.events.accept([published], "event//shop/1")
    group = Group(event_key=published.key, channel=Channel.EMAIL, subscription_ids=("sub",))
    await registry.deliveries.add("event//shop/1", [group])
    outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="SMTP 250", suppress=(suppression(),))
    attempt = Attempt(
        event_key=published.key,
        subscription_id="sub",
        number=1,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.DELIVERED,
    )
    await registry.attempts.record([attempt])
    await registry.attempts.record([attempt])
    assert await registry.suppressions.among(Channel.EMAIL, [ANN], subscription_id="any") == {
        ANN: SuppressionReason.BOUNCED
    }
    assert (await registry.subscriptions.get("sub")).state is SubscriptionState.ACTIVE


async def test_suppressions_are_counted_listed_and_lifted_by_what_caused_them(registry: Registry) -> None:
    early, late = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    await registry.suppressions.add(suppression(cause="5.1.1", created_at=early))
    await registry.suppressions.add(suppression("bob@example.com", cause="5.1.1", created_at=late))
    await registry.suppressions.add(suppression("+14155550123", channel=Channel.SMS, cause="Twilio 30005"))
    await registry.suppressions.add(suppression("carl@example.com", reason=SuppressionReason.OPERATOR))
    for reported, count in (
        (Reported(cause="5.1.1"), 2),
        (Reported(cause="5.1.1", since=late), 1),
        (Reported(cause="5.1"), 0),
        (Reported(reason=SuppressionReason.BOUNCED), 3),
        (Reported(reason=SuppressionReason.BOUNCED, channel=Channel.SMS), 1),
    ):
        assert await registry.suppressions.lift_reported(reported, dry_run=True) == count
        assert len(await registry.suppressions.list(reported=reported)) == count
    assert await registry.suppressions.lift_reported(Reported(cause="5.1.1", since=late)) == 1
    left = {each.address: each.cause for each in await registry.suppressions.list()}
    assert left == {ANN: "5.1.1", "+14155550123": "Twilio 30005", "carl@example.com": None}
