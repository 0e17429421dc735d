"""Gates: rate limits and throttled endpoints, on a real registry."""

import dataclasses
from collections import Counter
from datetime import UTC, datetime, timedelta
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

#: Reading from this registry fails.
UNREAD = cast(Registry, None)


async def backlog(registry: Registry, *, rate: float | None, size: int) -> list[Group]:
    """Deliveries of `size` events to one subscription with this limit."""
    await registry.subscriptions.create(subscription(id="limited", rate_limit=rate))
    events = [event(id=f"{number:04}") for number in range(size)]
    await registry.events.accept(events, "run")
    groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=("limited",)) for one in events]
    await registry.deliveries.add("run", groups)
    return groups


async def record(registry: Registry, request: SendRequest, state: DeliveryState) -> None:
    kind = OutcomeKind.DELIVERED if state is DeliveryState.DELIVERED else OutcomeKind.DEFERRED
    attempt = Attempt(
        event_key=request.delivery.event_key,
        subscription_id=request.subscription.id,
        number=request.number,
        started_at=NOW,
        duration=0.1,
        outcome=Outcome(kind=kind, reason="HTTP 204"),
        state=state,
        delay=None if state.settled else 5.0,
    )
    await registry.attempts.record([attempt])


def ids(found: list[SendRequest]) -> list[str]:
    return [one.event.id for one in found]


async def test_requests_without_a_limit_pass_and_the_registry_is_not_read() -> None:
    requests = [send_request(of_event=event(id=str(number)), not_before=NOW + timedelta(days=1)) for number in range(3)]
    assert await screen(UNREAD, requests, now=NOW) == (requests, [])
    assert await screen(UNREAD, [], now=NOW) == ([], [])


@pytest.mark.parametrize(
    ("seconds", "passes"),
    [(-20, True), (0, True), (EARLY_TOLERANCE, True), (EARLY_TOLERANCE + 0.001, False), (30, False)],
)
async def test_reserved_time_is_waited_for_and_the_registry_is_not_read(seconds: float, passes: bool) -> None:
    limited = send_request(subscription(rate_limit=1), number=3, not_before=NOW + timedelta(seconds=seconds))
    free = send_request()
    passed, held = await screen(UNREAD, [limited, free], now=NOW)
    assert passed == ([limited, free] if passes else [free])
    expected = Deferred(
        event_key=limited.event.key,
        subscription_id=limited.subscription.id,
        attempts=2,
        delay=timedelta(seconds=seconds).total_seconds(),
        from_retry_after=True,
        reason="rate limit",
    )
    assert held == ([] if passes else [expected])


async def test_backlog_after_an_outage_does_not_pass_all_at_once(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=4)
    requests = await registry.attempts.load(groups)
    now = datetime.now(UTC)
    assert len((await screen(registry, requests, now=now))[0]) == 1
    passed, held = await screen(registry, await registry.attempts.load(groups), now=now + 2 * RESERVATION_EXPIRES)
    assert (len(passed), len(held)) == (1, 3)


async def test_backlog_passes_at_the_rate_of_its_subscription(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=6)
    now = datetime.now(UTC)
    passed, held = await screen(registry, await registry.attempts.load(groups), now=now)
    assert ids(passed) == ["0000"]
    assert [item.delay for item in held] == pytest.approx([0.5, 1, 1.5, 2, 2.5], abs=EARLY_TOLERANCE)
    await record(registry, passed[0], DeliveryState.DELIVERED)
    # Each comes back after its delay, as its workflow waits for it, and passes without another reservation.
    for item, group in zip(held, groups[1:], strict=True):
        back = await registry.attempts.load([group])
        early, late = now + timedelta(seconds=item.delay - 0.2), now + timedelta(seconds=item.delay)
        assert [one.delay for one in (await screen(UNREAD, back, now=early))[1]] == [pytest.approx(0.2)]
        assert await screen(UNREAD, back, now=late) == (back, [])


async def test_retry_of_the_activity_makes_no_second_reservation(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=4)
    now = datetime.now(UTC)
    requests = await registry.attempts.load(groups)
    first = await screen(registry, requests, now=now)
    # By a worker that read the rows before the first one wrote them, and by one that reads them now.
    passed, held = await screen(registry, requests, now=now)
    assert (ids(passed), held) == (ids(first[0]), first[1])
    passed, held = await screen(registry, await registry.attempts.load(groups), now=now)
    assert (ids(passed), held) == (ids(first[0]), first[1])


async def test_next_attempt_is_reserved_behind_the_waiting_ones(registry: Registry) -> None:
    groups = await backlog(registry, rate=2, size=3)
    now = datetime.now(UTC)
    (first,), _ = await screen(registry, await registry.attempts.load(groups), now=now)
    await record(registry, first, DeliveryState.WAITING)
    again = await registry.attempts.load([groups[0].model_copy(update={"attempt": 2})])
    passed, (held,) = await screen(registry, again, now=now)
    assert passed == []
    assert held.attempts == 1
    assert held.delay == pytest.approx(1.5, abs=EARLY_TOLERANCE)


async def test_deliveries_within_the_tolerance_pass_together(registry: Registry) -> None:
    groups = await backlog(registry, rate=1000, size=200)
    passed, held = await screen(registry, await registry.attempts.load(groups), now=datetime.now(UTC))
    assert len(passed) == pytest.approx(1000 * EARLY_TOLERANCE, abs=25)
    assert len(passed) + len(held) == 200
    assert [item.delay for item in held] == sorted(item.delay for item in held)


@pytest.mark.parametrize(("seconds", "spread"), [(1.0, SPREAD_BOUNDS[0]), (60.0, 60.0), (86_400.0, SPREAD_BOUNDS[1])])
async def test_deliveries_to_a_throttled_endpoint_are_held_and_come_back_gradually(
    seconds: float, spread: float
) -> None:
    until = NOW + timedelta(seconds=seconds)
    # The rate limit is not consulted, so the registry is not read.
    throttled = [
        dataclasses.replace(
            send_request(subscription(rate_limit=1), event(id=str(number)), number=4),
            health=EndpointHealth(throttled_until=until),
        )
        for number in range(200)
    ]
    passed, held = await screen(UNREAD, [*throttled, healthy := send_request()], now=NOW)
    assert passed == [healthy]
    assert {(item.attempts, item.from_retry_after, item.reason) for item in held} == {(3, True, "throttled")}
    delays = sorted(item.delay for item in held)
    assert seconds <= delays[0]
    assert delays[-1] <= seconds + spread
    # 200 at random: each fifth of the spread gets some of them.
    fifths = Counter(int((delay - seconds) / spread * 5) for delay in delays)
    assert len(fifths) == 5
    assert max(fifths.values()) < 100


@pytest.mark.parametrize("seconds", [-60.0, 0.0, EARLY_TOLERANCE])
async def test_deliveries_pass_once_the_throttling_has_ended(seconds: float) -> None:
    until = NOW + timedelta(seconds=seconds)
    recovered = dataclasses.replace(send_request(), health=EndpointHealth(throttled_until=until, throttles=3))
    assert await screen(UNREAD, [recovered], now=NOW) == ([recovered], [])


def test_lower_rate_counts_and_a_consented_one_only_with_a_handshake() -> None:
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
