"""Holding back what a subscription's rate limit does not let through yet, against a real registry."""

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from activities.sending.throttling import SPREAD_BOUNDS, screen
from bellwire.contract import Deferred, Group
from bellwire.deliveries import RESERVATION_EXPIRES, Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import (
    EARLY_TOLERANCE,
    HEALTHY,
    Consent,
    EndpointHealth,
)
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import NOW, event, send_request, subscription

#: Whoever asks this registry for anything fails.
UNASKED = cast(Registry, None)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    opened = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await opened.migrate()
    yield opened
    await opened.close()


async def backlog(registry: Registry, *, rate: float | None, size: int) -> list[Group]:
    """Deliveries of `size` events to one subscription with this limit."""
    await registry.subscriptions.create(subscription(id="paced", rate_limit=rate))
    happened = [event(id=f"{number:04}") for number in range(size)]
    await registry.events.accept(happened, "run")
    groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=("paced",)) for one in happened]
    await registry.deliveries.add("run", groups)
    return groups


async def recorded(registry: Registry, made: SendRequest, state: DeliveryState) -> None:
    kind = OutcomeKind.DELIVERED if state is DeliveryState.DELIVERED else OutcomeKind.DEFERRED
    attempt = Attempt(
        event_key=made.event.key,
        subscription_id=made.subscription.id,
        number=made.number,
        started_at=NOW,
        duration=0.1,
        outcome=Outcome(kind=kind, reason="HTTP 204"),
        state=state,
        delay=None if state.settled else 5.0,
    )
    await registry.attempts.record([attempt])


def ids(found: list[SendRequest]) -> list[str]:
    return [one.event.id for one in found]


async def test_what_has_no_limit_goes_and_the_registry_is_not_asked() -> None:
    requests = [send_request(of_event=event(id=str(number)), not_before=NOW + timedelta(days=1)) for number in range(3)]
    assert await screen(UNASKED, requests, now=NOW) == (requests, [])
    assert await screen(UNASKED, [], now=NOW) == ([], [])


@pytest.mark.parametrize(
    ("seconds", "goes"),
    [(-20, True), (0, True), (EARLY_TOLERANCE, True), (EARLY_TOLERANCE + 0.001, False), (30, False)],
)
async def test_a_moment_that_was_reserved_before_is_waited_for_and_the_registry_is_not_asked(
    seconds: float, goes: bool
) -> None:
    paced = send_request(subscription(rate_limit=1), number=3, not_before=NOW + timedelta(seconds=seconds))
    free = send_request()
    go, held = await screen(UNASKED, [paced, free], now=NOW)
    assert go == ([paced, free] if goes else [free])
    expected = Deferred(
        event_key=paced.event.key,
        subscription_id=paced.subscription.id,
        attempts=2,
        delay=timedelta(seconds=seconds).total_seconds(),
        from_retry_after=True,
        reason="rate limit",
    )
    assert held == ([] if goes else [expected])


async def test_after_an_outage_a_backlog_does_not_go_all_at_once(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=4)
    requests = await registry.attempts.load(groups)
    now = datetime.now(UTC)
    assert len((await screen(registry, requests, now=now))[0]) == 1
    go, held = await screen(registry, await registry.attempts.load(groups), now=now + 2 * RESERVATION_EXPIRES)
    assert (len(go), len(held)) == (1, 3)


async def test_a_backlog_goes_at_the_rate_of_its_subscription(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=6)
    now = datetime.now(UTC)
    go, held = await screen(registry, await registry.attempts.load(groups), now=now)
    assert ids(go) == ["0000"]
    assert [item.delay for item in held] == pytest.approx([0.5, 1, 1.5, 2, 2.5], abs=EARLY_TOLERANCE)
    await recorded(registry, go[0], DeliveryState.DELIVERED)
    # As its run has it wait: each comes back after its delay, and then it goes. Nothing is reserved anew.
    for item, group in zip(held, groups[1:], strict=True):
        back = await registry.attempts.load([group])
        early, late = now + timedelta(seconds=item.delay - 0.2), now + timedelta(seconds=item.delay)
        assert [one.delay for one in (await screen(UNASKED, back, now=early))[1]] == [pytest.approx(0.2)]
        assert await screen(UNASKED, back, now=late) == (back, [])


async def test_an_activity_that_is_tried_again_reserves_nothing_twice(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=4)
    now = datetime.now(UTC)
    requests = await registry.attempts.load(groups)
    first = await screen(registry, requests, now=now)
    # By a worker that has read the rows before the first one wrote them, and by one that reads them now.
    go, held = await screen(registry, requests, now=now)
    assert (ids(go), held) == (ids(first[0]), first[1])
    go, held = await screen(registry, await registry.attempts.load(groups), now=now)
    assert (ids(go), held) == (ids(first[0]), first[1])


async def test_another_attempt_takes_its_turn_behind_the_others(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=3)
    now = datetime.now(UTC)
    (first,), _ = await screen(registry, await registry.attempts.load(groups), now=now)
    await recorded(registry, first, DeliveryState.WAITING)
    again = await registry.attempts.load([groups[0].model_copy(update={"attempt": 2})])
    go, (held,) = await screen(registry, again, now=now)
    assert go == []
    assert held.attempts == 1
    assert held.delay == pytest.approx(1.5, abs=EARLY_TOLERANCE)


async def test_deliveries_that_are_no_more_than_the_limit_within_an_instant_go_together(registry: Registry) -> None:
    groups = await backlog(registry, rate=1000, size=200)
    go, held = await screen(registry, await registry.attempts.load(groups), now=datetime.now(UTC))
    assert len(go) == pytest.approx(1000 * EARLY_TOLERANCE, abs=25)
    assert len(go) + len(held) == 200
    assert [item.delay for item in held] == sorted(item.delay for item in held)


@pytest.mark.parametrize(("seconds", "spread"), [(1.0, SPREAD_BOUNDS[0]), (60.0, 60.0), (86_400.0, SPREAD_BOUNDS[1])])
async def test_what_goes_to_a_throttled_receiver_waits_until_then_and_comes_back_bit_by_bit(
    seconds: float, spread: float
) -> None:
    until = NOW + timedelta(seconds=seconds)
    # Its rate limit has no say meanwhile: the registry is not asked.
    ill = [
        dataclasses.replace(
            send_request(subscription(rate_limit=1), event(id=str(number)), number=4),
            health=EndpointHealth(throttled_until=until),
        )
        for number in range(200)
    ]
    go, held = await screen(UNASKED, [*ill, well := send_request()], now=NOW)
    assert go == [well]
    assert {(item.attempts, item.from_retry_after, item.reason) for item in held} == {(3, True, "throttled")}
    delays = sorted(item.delay for item in held)
    assert seconds <= delays[0]
    assert delays[-1] <= seconds + spread
    # 200 at random: each fifth of the time gets some of them.
    fifths = Counter(int((delay - seconds) / spread * 5) for delay in delays)
    assert len(fifths) == 5
    assert max(fifths.values()) < 100


@pytest.mark.parametrize("seconds", [-60.0, 0.0, EARLY_TOLERANCE])
async def test_what_was_throttled_before_goes(seconds: float) -> None:
    until = NOW + timedelta(seconds=seconds)
    better = dataclasses.replace(send_request(), health=EndpointHealth(throttled_until=until, throttles=3))
    assert await screen(UNASKED, [better], now=NOW) == ([better], [])


def test_the_lower_one_of_two_rates_counts_and_consent_only_where_it_is_asked_for() -> None:
    def rate(own: float | None, consented: float | None, *, handshake: bool = True) -> float | None:
        target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": handshake}
        health = EndpointHealth(consent=Consent("digest", NOW, consented))
        return dataclasses.replace(send_request(subscription(target, rate_limit=own)), health=health).rate

    assert [rate(own, consented) for own, consented in ((None, None), (2, None), (None, 3), (2, 3), (4, 3))] == [
        None,
        2,
        3,
        2,
        3,
    ]
    assert rate(4, 3, handshake=False) == 4
    assert send_request().health is HEALTHY
    assert send_request().rate is None
