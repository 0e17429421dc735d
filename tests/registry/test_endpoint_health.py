"""Endpoint health: how recorded attempts change it, when subscriptions are disabled, and the operational events for tenants."""

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
POLICY = DisablePolicy(disable_after_failures=4)
FAILING, DISABLED = "bellwire.subscription.failing", "bellwire.subscription.disabled"
KINDS = {DeliveryState.DELIVERED: OutcomeKind.DELIVERED, DeliveryState.REJECTED: OutcomeKind.REJECTED}


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    opened = await Registry.open(url, disable_policy=POLICY)
    await opened.migrate()
    yield opened
    await opened.close()


class Endpoint:
    """A subscription whose endpoint gets attempts, each the first one of another event."""

    def __init__(self, registry: Registry, name: str = "sub", **fields: Any) -> None:
        self.registry, self.name, self.fields = registry, name, fields
        self.number = 0

    async def subscribed(self) -> "Endpoint":
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
        stored = await self.registry.subscriptions.get(self.name)
        return stored.state, stored.state_reason


async def events_of(registry: Registry) -> list[tuple[str, str, Any]]:
    return [(one.type, one.subject or "", one.data) for one in await registry.operational_events.list()]


async def test_failures_are_counted_until_a_success(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    assert await endpoint.health() == HEALTHY
    await endpoint.fails(NOW)
    await endpoint.fails(NOW + MINUTE)
    assert await endpoint.health() == EndpointHealth(failing_since=NOW, failures=2)
    await endpoint.succeeds(NOW + 2 * MINUTE)
    assert await endpoint.health() == HEALTHY
    assert await events_of(registry) == []


async def test_a_success_of_a_healthy_subscription_writes_nothing_more(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    await endpoint.fails(NOW)
    # It was loaded before the failure was recorded, so it does not read the row at all.
    await endpoint.succeeds(NOW + MINUTE, degraded=False)
    assert (await endpoint.health()).failures == 1


@pytest.mark.parametrize(
    "outcome",
    [
        {"reason": "no valid signing secret", "fault": Fault.OPERATOR},
        {"reason": "SMTP 421", "fault": Fault.PROVIDER, "state": DeliveryState.REJECTED},
        {"reason": "response lost", "kind": OutcomeKind.UNKNOWN},
    ],
    ids=lambda outcome: outcome["reason"],
)
async def test_faults_of_others_do_not_count_against_the_endpoint(registry: Registry, outcome: dict[str, Any]) -> None:
    endpoint = await Endpoint(registry).subscribed()
    await registry.attempts.record([endpoint.attempt(NOW, **outcome)])
    assert await endpoint.health() == HEALTHY


async def test_health_is_loaded_with_deliveries(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    published = event(id="later")
    await registry.events.accept([published], "workflow")
    group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("sub",))
    await registry.deliveries.add("workflow", [group])
    assert (await registry.attempts.load([group]))[0].health is HEALTHY
    # Concurrent, so the throttling counts once.
    await registry.attempts.record([endpoint.attempt(NOW, "HTTP 429", throttle=True, degraded=False) for _ in range(3)])
    (request,) = await registry.attempts.load([group])
    assert request.health == EndpointHealth(
        throttled_until=NOW + timedelta(seconds=5), throttles=1, failing_since=NOW, failures=3
    )
    await endpoint.fails(NOW + MINUTE, "HTTP 429", throttle=True, retry_after=90.0)
    assert (await endpoint.health()).throttled_until == NOW + MINUTE + timedelta(seconds=90)
    assert (await endpoint.health()).throttles == 2
    await endpoint.succeeds(NOW + 3 * MINUTE)
    assert await endpoint.health() == HEALTHY


async def test_a_failing_subscription_is_warned_about_twice_and_then_disabled(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    for days in (0, 0.5, 1, 1.5, 3, 4, 5, 5.5):
        await endpoint.fails(NOW + days * DAY)
    reason = "7 failures and no success since 2026-11-23 08:00 UTC; last HTTP 503"
    assert await endpoint.state() == (SubscriptionState.DISABLED, reason)
    about = {"subscription": "sub", "channel": "webhook", "failing_since": NOW.isoformat()}
    assert await events_of(registry) == [
        (FAILING, "sub", {**about, "reason": "HTTP 503", "failures": 3}),
        (FAILING, "sub", {**about, "reason": "HTTP 503", "failures": 5}),
        (DISABLED, "sub", {**about, "reason": reason, "failures": 7}),
    ]
    assert {(one.source, one.tenant) for one in await registry.operational_events.list()} == {("bellwire", "acme")}
    found = await registry.matching.match(event(type="any"), limit=10, scan=10)
    assert not found.found


async def test_neither_time_nor_failures_alone_disable(registry: Registry) -> None:
    slow, fast = await Endpoint(registry, "slow").subscribed(), await Endpoint(registry, "fast").subscribed()
    for days in (0, 10, 20):
        await slow.fails(NOW + days * DAY)
    await registry.attempts.record([fast.attempt(NOW + number * MINUTE) for number in range(50)])
    assert (await slow.state())[0] is (await fast.state())[0] is SubscriptionState.ACTIVE
    assert (await fast.health()).failures == 50
    # Both warnings were due at once, so there is one event.
    assert [(kind, name) for kind, name, _ in await events_of(registry)] == [(FAILING, "slow")]


async def test_a_success_restarts_the_count(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    for days in (0, 1, 2, 3, 4):
        await endpoint.fails(NOW + days * DAY)
    await endpoint.succeeds(NOW + 4.5 * DAY)
    await endpoint.fails(NOW + 5 * DAY)
    assert await endpoint.health() == EndpointHealth(failing_since=NOW + 5 * DAY, failures=1)
    assert (await endpoint.state())[0] is SubscriptionState.ACTIVE


async def test_without_disable_after_tenants_are_warned_and_nothing_is_disabled(url: str) -> None:
    registry = await Registry.open(url, disable_policy=DisablePolicy(warn_after=(DAY,), disable_after=None))
    await registry.migrate()
    endpoint = await Endpoint(registry).subscribed()
    for days in range(0, 400, 10):
        await endpoint.fails(NOW + days * DAY)
    assert (await endpoint.state())[0] is SubscriptionState.ACTIVE
    assert [kind for kind, *_ in await events_of(registry)] == [FAILING]
    await registry.close()


async def test_a_gone_target_is_disabled_at_once_with_one_event(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    await asyncio.gather(
        *(endpoint.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True) for _ in range(5))
    )
    assert await endpoint.state() == (SubscriptionState.DISABLED, "HTTP 410")
    ((kind, name, data),) = await events_of(registry)
    assert (kind, name, data["reason"]) == (DISABLED, "sub", "HTTP 410")


async def test_activating_resets_the_health_and_pausing_does_not(registry: Registry) -> None:
    endpoint = await Endpoint(registry).subscribed()
    for days in (0, 2, 4, 6):
        await endpoint.fails(NOW + days * DAY, "HTTP 504", throttle=True)
    assert (await endpoint.state())[0] is SubscriptionState.DISABLED
    await registry.subscriptions.set_state("sub", SubscriptionState.PAUSED, reason="by an operator")
    assert (await endpoint.health()).failures == 4
    await registry.subscriptions.set_state("sub", SubscriptionState.ACTIVE)
    assert await endpoint.health() == HEALTHY
    await endpoint.fails(NOW + 7 * DAY)
    assert (await endpoint.state())[0] is SubscriptionState.ACTIVE


async def test_operational_events_hold_no_address_and_no_response(registry: Registry) -> None:
    endpoint = await Endpoint(registry, target={"channel": "email", "to": "ann@example.com"}).subscribed()
    for days in (0, 1, 2, 6):
        await endpoint.fails(NOW + days * DAY, "SMTP 550", response="550 ann@example.com is unknown")
    events = await registry.operational_events.list()
    assert [one.type for one in events] == [FAILING, DISABLED]
    assert "ann@" not in "".join(one.to_json() for one in events)


async def test_removed_operational_events_are_gone_and_the_rest_keeps_its_order(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        endpoint = await Endpoint(registry, name).subscribed()
        await endpoint.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True)
    first, second, third = await registry.operational_events.list()
    assert [one.id for one in await registry.operational_events.list(limit=2)] == [first.id, second.id]
    await registry.operational_events.remove([first.id, "unknown"])
    assert await registry.operational_events.list() == [second, third]


async def test_failing_subscriptions_to_operational_events_cause_no_endless_loop(registry: Registry) -> None:
    """All subscriptions of a tenant fail and match operational events, so each such event is one more failure of each."""
    names = ["a", "b", "c"]
    endpoints = {name: await Endpoint(registry, name).subscribed() for name in names}
    published: list[Event] = []
    for half_days in range(60):
        now = NOW + half_days * DAY / 2
        events = await registry.operational_events.list()
        await registry.operational_events.remove([one.id for one in events])
        published += events
        for _ in [event(), *events]:
            for endpoint in endpoints.values():
                if (await endpoint.state())[0] is SubscriptionState.ACTIVE:
                    await endpoint.fails(now)
    kinds = sorted((one.type, one.subject) for one in published)
    assert kinds == sorted((kind, name) for name in names for kind in (FAILING, FAILING, DISABLED))
    assert await registry.operational_events.list() == []


async def test_consent_is_stored_with_the_subscription(registry: Registry) -> None:
    target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": True}
    endpoint = await Endpoint(registry, target=target).subscribed()
    consent = Consent("digest", datetime.now(UTC), 2.5)
    await registry.subscriptions.record_consent("sub", consent)
    assert (await endpoint.health()).consent == consent
    await endpoint.fails(NOW)
    await registry.subscriptions.set_state("sub", SubscriptionState.ACTIVE)
    assert await endpoint.health() == EndpointHealth(consent=consent)


async def test_the_lower_of_the_own_and_the_consented_rate_applies(registry: Registry) -> None:
    target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": True}
    rates = {"own": (1.0, 5.0), "endpoint": (5.0, 1.0), "only": (None, 1.0), "free": (None, None)}
    published = [event(id=str(number)) for number in range(3)]
    await registry.events.accept(published, "workflow")
    for name, (own, consented) in rates.items():
        await Endpoint(registry, name, target=target, rate_limit=own).subscribed()
        await registry.subscriptions.record_consent(name, Consent("digest", NOW, consented))
    groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=tuple(rates)) for one in published]
    await registry.deliveries.add("workflow", groups)
    now = datetime.now(UTC)
    reserved = await registry.limits.reserve(await registry.attempts.load(groups), now=now)
    for name in ("own", "endpoint", "only"):
        waits = [(reserved[DeliveryKey(one.key, name)] - now).total_seconds() for one in published]
        assert waits == pytest.approx([0, 1, 2], abs=0.01), name
    assert not any(name == "free" for _, name in reserved)


async def test_workers_that_record_concurrently_do_not_deadlock(registry: Registry, url: str) -> None:
    others = [await Registry.open(url, disable_policy=POLICY) for _ in range(3)]
    endpoints = [await Endpoint(registry, f"r{number}").subscribed() for number in range(10)]

    async def work(one: Registry, number: int) -> None:
        made = [
            endpoint.attempt(NOW, "HTTP 503")
            if (index + number) % 2
            else endpoint.attempt(NOW, "HTTP 204", DeliveryState.DELIVERED)
            for index, endpoint in enumerate(endpoints)
        ]
        await one.attempts.record(made if number % 3 else made[::-1])

    async with asyncio.timeout(100):
        await asyncio.gather(*(work(one, number) for number in range(12) for one in [registry, *others]))
    for one in others:
        await one.close()


async def test_a_subscription_that_is_already_disabled_stays_as_it_is(registry: Registry, url: str) -> None:
    endpoint = await Endpoint(registry).subscribed()
    database = Database.at(url, pool=1)
    await execute_sql(database, "UPDATE subscriptions SET state = 'disabled', state_reason = 'by hand'")
    await database.close()
    await endpoint.fails(NOW, "HTTP 410", state=DeliveryState.REJECTED, disable=True)
    assert await endpoint.state() == (SubscriptionState.DISABLED, "by hand")
    assert await events_of(registry) == []
