"""What attempts write about their receivers, and what tenants are told, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryKey, DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import (
    HEALTHY,
    Consent,
    DisablePolicy,
    EndpointHealth,
)
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription
from tests.registry.conftest import execute_sql

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
PATIENCE = DisablePolicy(disable_after_failures=4)
FAILING, DISABLED = "bellwire.subscription.failing", "bellwire.subscription.disabled"
KINDS = {DeliveryState.DELIVERED: OutcomeKind.DELIVERED, DeliveryState.REJECTED: OutcomeKind.REJECTED}


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    opened = await Registry.open(url, disable_policy=PATIENCE)
    await opened.migrate()
    yield opened
    await opened.close()


class Receiver:
    """A subscription, and events for it; each attempt is the first one of another event."""

    def __init__(self, registry: Registry, name: str = "ill", **fields: Any) -> None:
        self.registry, self.name, self.fields = registry, name, fields
        self.number = 0

    async def subscribed(self) -> "Receiver":
        await self.registry.subscriptions.create(subscription(id=self.name, types=["*"], **self.fields))
        return self

    def attempt(
        self,
        at: datetime,
        reason: str = "HTTP 503",
        state: DeliveryState = DeliveryState.WAITING,
        *,
        degraded: bool = True,
        **outcome: Any,
    ) -> Attempt:
        self.number += 1
        kind = outcome.pop("kind", KINDS.get(state, OutcomeKind.DEFERRED))
        return Attempt(
            event_key=event(id=str(self.number), source=f"/{self.name}").key,
            subscription_id=self.name,
            number=1,
            started_at=at,
            duration=0.0,
            outcome=Outcome(kind=kind, reason=reason, **outcome),
            state=state,
            delay=None if state.settled else 5.0,
            degraded=degraded,
        )

    async def fails(self, at: datetime, reason: str = "HTTP 503", **outcome: Any) -> None:
        await self.registry.attempts.record([self.attempt(at, reason, **outcome)])

    async def succeeds(self, at: datetime, *, degraded: bool = True) -> None:
        await self.registry.attempts.record([self.attempt(at, "HTTP 204", DeliveryState.DELIVERED, degraded=degraded)])

    async def health(self) -> EndpointHealth:
        return (await self.registry.subscriptions.context(self.name)).health

    async def state(self) -> tuple[SubscriptionState, str | None]:
        wish = await self.registry.subscriptions.get(self.name)
        return wish.state, wish.state_reason


async def news(registry: Registry) -> list[tuple[str, str, Any]]:
    return [(told.type, told.subject or "", told.data) for told in await registry.operational_events.list()]


async def test_a_failure_is_noted_and_a_success_clears_it(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    assert await ill.health() == HEALTHY
    await ill.fails(NOW)
    await ill.fails(NOW + MINUTE)
    assert await ill.health() == EndpointHealth(failing_since=NOW, failures=2)
    await ill.succeeds(NOW + 2 * MINUTE)
    assert await ill.health() == HEALTHY
    assert await news(registry) == []


async def test_a_success_of_a_subscription_that_was_well_writes_nothing_more(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    await ill.fails(NOW)
    # It was read before the failure was on record, so it does not look at the row at all.
    await ill.succeeds(NOW + MINUTE, degraded=False)
    assert (await ill.health()).failures == 1


@pytest.mark.parametrize(
    "outcome",
    [
        {"reason": "no valid signing secret", "fault": Fault.OPERATOR},
        {"reason": "SMTP 421", "fault": Fault.PROVIDER, "state": DeliveryState.REJECTED},
        {"reason": "answer lost", "kind": OutcomeKind.UNKNOWN},
    ],
    ids=lambda outcome: outcome["reason"],
)
async def test_what_is_not_the_receivers_doing_does_not_count(registry: Registry, outcome: dict[str, Any]) -> None:
    ill = await Receiver(registry).subscribed()
    await registry.attempts.record([ill.attempt(NOW, **outcome)])
    assert await ill.health() == HEALTHY


async def test_a_throttled_subscription_is_read_with_its_deliveries(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    happened = event(id="later")
    await registry.events.accept([happened], "run")
    group = Group(event_key=happened.key, channel=Channel.WEBHOOK, subscription_ids=("ill",))
    await registry.deliveries.add("run", [group])
    assert (await registry.attempts.load([group]))[0].health is HEALTHY
    # Side by side, so they count once.
    await registry.attempts.record([ill.attempt(NOW, "HTTP 429", throttle=True, degraded=False) for _ in range(3)])
    (request,) = await registry.attempts.load([group])
    assert request.health == EndpointHealth(
        throttled_until=NOW + timedelta(seconds=5), throttles=1, failing_since=NOW, failures=3
    )
    await ill.fails(NOW + MINUTE, "HTTP 429", throttle=True, retry_after=90.0)
    assert (await ill.health()).throttled_until == NOW + MINUTE + timedelta(seconds=90)
    assert (await ill.health()).throttles == 2
    await ill.succeeds(NOW + 3 * MINUTE)
    assert await ill.health() == HEALTHY


async def test_who_fails_for_days_is_warned_about_and_then_disabled_and_each_is_told_once(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    for days in (0, 0.5, 1, 1.5, 3, 4, 5, 5.5):
        await ill.fails(NOW + days * DAY)
    reason = "7 failures and no success since 2026-11-23 08:00 UTC; last HTTP 503"
    assert await ill.state() == (SubscriptionState.DISABLED, reason)
    about = {"subscription": "ill", "channel": "webhook", "failing_since": NOW.isoformat()}
    assert await news(registry) == [
        (FAILING, "ill", {**about, "reason": "HTTP 503", "failures": 3}),
        (FAILING, "ill", {**about, "reason": "HTTP 503", "failures": 5}),
        (DISABLED, "ill", {**about, "reason": reason, "failures": 7}),
    ]
    assert {(told.source, told.tenant) for told in await registry.operational_events.list()} == {("bellwire", "acme")}
    found = await registry.matching.match(event(type="any"), limit=10, scan=10)
    assert not found.found


async def test_neither_days_nor_failures_alone_disable(registry: Registry) -> None:
    rare, hasty = await Receiver(registry, "rare").subscribed(), await Receiver(registry, "hasty").subscribed()
    for days in (0, 10, 20):
        await rare.fails(NOW + days * DAY)
    await registry.attempts.record([hasty.attempt(NOW + number * MINUTE) for number in range(50)])
    assert (await rare.state())[0] is (await hasty.state())[0] is SubscriptionState.ACTIVE
    assert (await hasty.health()).failures == 50
    # Both points had passed; that is told once.
    assert [(kind, name) for kind, name, _ in await news(registry)] == [(FAILING, "rare")]


async def test_a_success_between_begins_it_anew(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    for days in (0, 1, 2, 3, 4):
        await ill.fails(NOW + days * DAY)
    await ill.succeeds(NOW + 4.5 * DAY)
    await ill.fails(NOW + 5 * DAY)
    assert await ill.health() == EndpointHealth(failing_since=NOW + 5 * DAY, failures=1)
    assert (await ill.state())[0] is SubscriptionState.ACTIVE


async def test_where_patience_has_no_end_tenants_are_warned_and_nothing_is_disabled(url: str) -> None:
    registry = await Registry.open(url, disable_policy=DisablePolicy(warn_after=(DAY,), disable_after=None))
    await registry.migrate()
    ill = await Receiver(registry).subscribed()
    for days in range(0, 400, 10):
        await ill.fails(NOW + days * DAY)
    assert (await ill.state())[0] is SubscriptionState.ACTIVE
    assert [kind for kind, *_ in await news(registry)] == [FAILING]
    await registry.close()


async def test_a_target_that_is_gone_is_disabled_at_once_and_told_once(registry: Registry) -> None:
    gone = await Receiver(registry).subscribed()
    await asyncio.gather(*(gone.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True) for _ in range(5)))
    assert await gone.state() == (SubscriptionState.DISABLED, "HTTP 410")
    ((kind, name, data),) = await news(registry)
    assert (kind, name, data["reason"]) == (DISABLED, "ill", "HTTP 410")


async def test_resuming_clears_the_marks_and_pausing_does_not(registry: Registry) -> None:
    ill = await Receiver(registry).subscribed()
    for days in (0, 2, 4, 6):
        await ill.fails(NOW + days * DAY, "HTTP 504", throttle=True)
    assert (await ill.state())[0] is SubscriptionState.DISABLED
    await registry.subscriptions.set_state("ill", SubscriptionState.PAUSED, reason="asked for")
    assert (await ill.health()).failures == 4
    await registry.subscriptions.set_state("ill", SubscriptionState.ACTIVE)
    assert await ill.health() == HEALTHY
    await ill.fails(NOW + 7 * DAY)
    assert (await ill.state())[0] is SubscriptionState.ACTIVE


async def test_no_address_and_no_answer_is_told(registry: Registry) -> None:
    ill = await Receiver(registry, target={"channel": "email", "to": "ann@example.com"}).subscribed()
    for days in (0, 1, 2, 6):
        await ill.fails(NOW + days * DAY, "SMTP 550", response="550 ann@example.com is unknown")
    told = await registry.operational_events.list()
    assert [one.type for one in told] == [FAILING, DISABLED]
    assert "ann@" not in "".join(one.to_json() for one in told)


async def test_what_was_published_is_forgotten_and_the_rest_stays_in_order(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        gone = await Receiver(registry, name).subscribed()
        await gone.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True)
    first, second, third = await registry.operational_events.list()
    assert [told.id for told in await registry.operational_events.list(limit=2)] == [first.id, second.id]
    await registry.operational_events.remove([first.id, "unknown"])
    assert await registry.operational_events.list() == [second, third]


async def test_subscriptions_to_news_of_themselves_that_fail_cause_no_endless_chain(registry: Registry) -> None:
    """All of a tenant's subscriptions fail, and want to hear of it: each piece of news is one more failure for each of them."""
    names = ["a", "b", "c"]
    ill = {name: await Receiver(registry, name).subscribed() for name in names}
    published: list[Event] = []
    for half_days in range(60):
        now = NOW + half_days * DAY / 2
        told = await registry.operational_events.list()
        await registry.operational_events.remove([one.id for one in told])
        published += told
        for _ in [event(), *told]:
            for receiver in ill.values():
                if (await receiver.state())[0] is SubscriptionState.ACTIVE:
                    await receiver.fails(now)
    kinds = sorted((one.type, one.subject) for one in published)
    assert kinds == sorted((kind, name) for name in names for kind in (FAILING, FAILING, DISABLED))
    assert await registry.operational_events.list() == []


async def test_consent_is_kept_with_the_subscription(registry: Registry) -> None:
    target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": True}
    receiver = await Receiver(registry, target=target).subscribed()
    consent = Consent("digest", datetime.now(UTC), 2.5)
    await registry.subscriptions.record_consent("ill", consent)
    assert (await receiver.health()).consent == consent
    await receiver.fails(NOW)
    await registry.subscriptions.set_state("ill", SubscriptionState.ACTIVE)
    assert await receiver.health() == EndpointHealth(consent=consent)


async def test_a_rate_that_was_consented_to_paces_together_with_the_own_one(registry: Registry) -> None:
    target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": True}
    rates = {"own": (1.0, 5.0), "theirs": (5.0, 1.0), "only": (None, 1.0), "free": (None, None)}
    happened = [event(id=str(number)) for number in range(3)]
    await registry.events.accept(happened, "run")
    for name, (own, consented) in rates.items():
        await Receiver(registry, name, target=target, rate_limit=own).subscribed()
        await registry.subscriptions.record_consent(name, Consent("digest", NOW, consented))
    groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=tuple(rates)) for one in happened]
    await registry.deliveries.add("run", groups)
    now = datetime.now(UTC)
    reserved = await registry.limits.reserve(await registry.attempts.load(groups), now=now)
    for name in ("own", "theirs", "only"):
        taken = [(reserved[DeliveryKey(one.key, name)] - now).total_seconds() for one in happened]
        assert taken == pytest.approx([0, 1, 2], abs=0.01), name
    assert not any(name == "free" for _, name in reserved)


async def test_workers_that_record_at_once_do_not_wait_for_each_other_for_ever(registry: Registry, url: str) -> None:
    others = [await Registry.open(url, disable_policy=PATIENCE) for _ in range(3)]
    receivers = [await Receiver(registry, f"r{number}").subscribed() for number in range(10)]

    async def work(one: Registry, number: int) -> None:
        made = [
            receiver.attempt(NOW, "HTTP 503")
            if (index + number) % 2
            else receiver.attempt(NOW, "HTTP 204", DeliveryState.DELIVERED)
            for index, receiver in enumerate(receivers)
        ]
        await one.attempts.record(made if number % 3 else made[::-1])

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(one, number) for number in range(12) for one in [registry, *others]))
    for one in others:
        await one.close()


async def test_a_row_that_was_disabled_by_hand_is_not_told_of(registry: Registry, url: str) -> None:
    gone = await Receiver(registry).subscribed()
    database = Database.at(url, pool=1)
    await execute_sql(database, "UPDATE subscriptions SET state = 'disabled', state_reason = 'by hand'")
    await database.close()
    await gone.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True)
    assert await gone.state() == (SubscriptionState.DISABLED, "by hand")
    assert await news(registry) == []
