"""Settled deliveries that can be sent again: selected by state, time and owner, in pages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryKey, DeliveryState, Outcome, OutcomeKind
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from tests.factories import event, subscription

EVENTS = [event(id=str(number), type="order.paid" if number % 2 else "order.sent") for number in range(6)]
KINDS = {DeliveryState.DELIVERED: OutcomeKind.DELIVERED, DeliveryState.REJECTED: OutcomeKind.REJECTED}


def settled(of: Event, name: str, state: DeliveryState, *, number: int = 1) -> Attempt:
    outcome = Outcome(kind=KINDS.get(state, OutcomeKind.DEFERRED), reason="HTTP 500")
    fields = {"event_key": of.key, "subscription_id": name, "number": number, "outcome": outcome, "state": state}
    return Attempt(**fields, started_at=datetime.now(UTC), duration=0.1)


@pytest.fixture
async def filled(registry: Registry) -> Registry:
    """Six events for a webhook of acme, whose deliveries fail, and for a mail of other, whose deliveries arrive."""
    await registry.subscriptions.create(subscription(id="hook"))
    mail = {"channel": "email", "to": "ann@example.com"}
    await registry.subscriptions.create(subscription(mail, id="mail", tenant="other"))
    await registry.events.accept(EVENTS, "workflow")
    for each in EVENTS:
        groups = [
            Group(event_key=each.key, channel=Channel.WEBHOOK, subscription_ids=("hook",)),
            Group(event_key=each.key, channel=Channel.EMAIL, subscription_ids=("mail",)),
        ]
        await registry.deliveries.add("workflow", groups)
    failed = [settled(each, "hook", DeliveryState.EXHAUSTED, number=3) for each in EVENTS[:4]]
    rejected = [settled(each, "hook", DeliveryState.REJECTED) for each in EVENTS[4:]]
    await registry.attempts.record([*failed, *rejected])
    await registry.attempts.record([settled(each, "mail", DeliveryState.DELIVERED) for each in EVENTS[:5]])
    return registry


def keys(events: list[Event], name: str = "hook") -> list[DeliveryKey]:
    return sorted(DeliveryKey(each.key, name) for each in events)


@pytest.mark.parametrize(
    ("state", "filters", "expected"),
    [
        (DeliveryState.EXHAUSTED, {}, keys(EVENTS[:4])),
        (DeliveryState.REJECTED, {}, keys(EVENTS[4:])),
        (DeliveryState.DELIVERED, {}, keys(EVENTS[:5], "mail")),
        (DeliveryState.CANCELLED, {}, []),
        (DeliveryState.EXHAUSTED, {"subscription_id": "hook"}, keys(EVENTS[:4])),
        (DeliveryState.EXHAUSTED, {"subscription_id": "mail"}, []),
        (DeliveryState.EXHAUSTED, {"event_key": EVENTS[0].key}, keys(EVENTS[:1])),
        (DeliveryState.EXHAUSTED, {"tenant": "acme", "channel": Channel.WEBHOOK}, keys(EVENTS[:4])),
        (DeliveryState.EXHAUSTED, {"tenant": "other"}, []),
        (DeliveryState.DELIVERED, {"channel": Channel.EMAIL, "tenant": "other"}, keys(EVENTS[:5], "mail")),
    ],
)
async def test_deliveries_are_selected(
    filled: Registry, state: DeliveryState, filters: dict[str, Any], expected: list[DeliveryKey]
) -> None:
    assert [each.key for each in await filled.redeliverable.page(state, **filters)] == expected


async def test_a_delivery_comes_with_what_a_selection_looks_at(filled: Registry) -> None:
    await filled.subscriptions.set_state("hook", SubscriptionState.PAUSED)
    (found,) = await filled.redeliverable.page(DeliveryState.EXHAUSTED, event_key=EVENTS[1].key)
    assert found == (
        *(DeliveryKey(EVENTS[1].key, "hook"), Channel.WEBHOOK, 3, "acme", "order.paid", SubscriptionState.PAUSED),
    )


async def test_pages_follow_each_other_without_gaps(filled: Registry) -> None:
    seen: list[DeliveryKey] = []
    while page := await filled.redeliverable.page(DeliveryState.EXHAUSTED, after=seen[-1] if seen else None, limit=3):
        seen += [each.key for each in page]
    assert seen == keys(EVENTS[:4])


async def test_deliveries_are_selected_by_the_time_when_they_settled(filled: Registry) -> None:
    before = datetime.now(UTC)
    moment = timedelta(hours=1)

    async def number(since: datetime | None = None, until: datetime | None = None) -> int:
        return len(await filled.redeliverable.page(DeliveryState.EXHAUSTED, since=since, until=until))

    assert await number(since=before - moment) == 4
    assert await number(since=before) == 0
    assert await number(until=before) == 4
    assert await number(until=before - moment) == 0
    await filled.deliveries.redeliver(
        "again", [Group(event_key=EVENTS[0].key, channel=Channel.WEBHOOK, subscription_ids=("hook",))]
    )
    await filled.attempts.record([settled(EVENTS[0], "hook", DeliveryState.EXHAUSTED, number=4)])
    assert await number(since=before) == 1, "it failed again"
    assert await number(until=before) == 3, "a run that began before does not select it again"
