"""ChunkRun, the loop of send activities, on a registry in memory: what it attempts, what it records, and when."""

import asyncio
import dataclasses
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending.attempt import decide_retry
from activities.sending.loop import STOPPING
from activities.sending.throttling import Throttled
from bellwire.contract import ChunkResult, Deferred
from bellwire.deliveries import MAX_REASON, MAX_RESPONSE, DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import HEALTHY, Consent, EndpointHealth
from bellwire.errors import RegistryUnavailable
from bellwire.sends import SendRequest
from tests.factories import NOW, event, send_request, subscription
from tests.unit.ledger import BUSY, EVENT, OK, SCHEDULE, Ledger, Sender, of, sent, until


async def test_each_delivery_is_attempted_once_and_returned_as_settled_or_deferred() -> None:
    gone = Outcome(kind=OutcomeKind.REJECTED, reason="HTTP 410", disable=True)
    ledger, sender = Ledger(of("a"), of("b"), of("c"), of("d", number=3)), Sender(b=BUSY, c=gone, d=BUSY)
    result = await sent(ledger, sender)
    assert sorted(sender.attempted) == ["a", "b", "c", "d"]
    assert result.settled == {
        EVENT.key: {DeliveryState.DELIVERED: 1, DeliveryState.REJECTED: 1, DeliveryState.EXHAUSTED: 1}
    }
    assert result.deferred == (
        Deferred(
            event_key=EVENT.key, subscription_id="b", attempts=1, delay=5.0, from_retry_after=False, reason="HTTP 503"
        ),
    )
    assert ledger.names == ["a", "b", "c", "d"]
    assert {attempt.subscription_id: (attempt.number, attempt.state) for attempt in ledger.recorded} == {
        "a": (1, DeliveryState.DELIVERED),
        "b": (1, DeliveryState.WAITING),
        "c": (1, DeliveryState.REJECTED),
        "d": (3, DeliveryState.EXHAUSTED),
    }


async def test_empty_chunk_returns_an_empty_result() -> None:
    ledger = Ledger()
    assert await sent(ledger, Sender()) == ChunkResult(settled={})
    assert ledger.calls == []


async def test_settled_deliveries_are_counted_and_not_attempted() -> None:
    states = [DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED]
    ledger, sender = Ledger(*(of(str(state), state=state) for state in states), of("open")), Sender()
    result = await sent(ledger, sender)
    assert sender.attempted == ["open"]
    assert result.settled == {EVENT.key: {**dict.fromkeys(states, 1), DeliveryState.DELIVERED: 2}}


async def test_deliveries_deleted_while_their_workflow_waited_count_as_cancelled() -> None:
    ledger, sender = Ledger(of("a"), of("b"), of("c")), Sender()
    ledger.load_gate.clear()
    sending = asyncio.create_task(sent(ledger, sender))
    await asyncio.wait([sending], timeout=0.02)
    ledger.requests = ledger.requests[:1]
    ledger.load_gate.set()
    result = await sending
    assert sender.attempted == ["a"]
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 1, DeliveryState.CANCELLED: 2}}


@pytest.mark.parametrize(
    ("from_retry_after", "delay", "returned"), [(False, 300.0, 300.0), (True, 77.0, 77.0), (False, None, 0.0)]
)
async def test_recorded_attempt_is_returned_and_not_repeated(
    from_retry_after: bool, delay: float | None, returned: float
) -> None:
    recorded = of(
        "a",
        number=2,
        attempts=2,
        state=DeliveryState.WAITING,
        delay=delay,
        from_retry_after=from_retry_after,
        reason="HTTP 429",
    )
    ledger, sender = Ledger(recorded), Sender()
    result = await sent(ledger, sender, intent=True)
    assert (sender.attempted, ledger.recorded, ledger.announced) == ([], [], [])
    assert result.deferred == (
        Deferred(
            event_key=EVENT.key,
            subscription_id="a",
            attempts=2,
            delay=returned,
            from_retry_after=from_retry_after,
            reason="HTTP 429",
        ),
    )


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.WAITING])
async def test_delivery_without_a_recorded_attempt_is_attempted(state: DeliveryState) -> None:
    ledger, sender = Ledger(of("a", number=2, state=state)), Sender()
    await sent(ledger, sender)
    assert sender.attempted == ["a"]


async def test_delivery_to_a_disabled_subscription_is_rejected_without_an_attempt() -> None:
    ledger, sender = (
        Ledger(of("a", subscribed={"state": "disabled"}), of("b", subscribed={"state": "paused"})),
        Sender(),
    )
    await sent(ledger, sender)
    assert sender.attempted == ["b"]
    (rejected,) = [attempt for attempt in ledger.recorded if attempt.subscription_id == "a"]
    assert (rejected.state, rejected.outcome.reason) == (DeliveryState.REJECTED, "subscription disabled")


async def test_intents_are_recorded_before_the_first_attempt_and_only_for_deliveries_to_attempt() -> None:
    ledger = Ledger(of("a"), of("b", state=DeliveryState.DELIVERED), of("c"))

    async def attempt(one: SendRequest) -> Outcome:
        ledger.calls.append("attempt")
        return OK

    await sent(ledger, attempt, intent=True)
    assert ledger.calls == ["intent", "attempt", "attempt", "record"]
    assert ledger.announced == ["a", "c"]


async def test_no_intent_is_recorded_without_the_option() -> None:
    ledger = Ledger(of("a"))
    await sent(ledger, Sender())
    assert ledger.calls == ["record"]


async def test_concurrency_limits_the_attempts_in_flight() -> None:
    ledger, sender = Ledger(*(of(f"s{number}") for number in range(20))), Sender()
    await sent(ledger, sender, concurrency=3)
    assert sender.most_in_flight == 3
    assert len(ledger.recorded) == 20


async def test_slow_receivers_of_one_tenant_hold_up_no_other_tenant_of_the_chunk() -> None:
    gate = asyncio.Event()
    slow = [of(f"slow{number}", subscribed={"tenant": "evil"}) for number in range(5)]
    ledger = Ledger(*slow, of("a", subscribed={"tenant": "good"}))
    sender = Sender(**dict.fromkeys((f"slow{number}" for number in range(5)), gate))
    sending = asyncio.create_task(sent(ledger, sender, concurrency=2))
    await asyncio.wait_for(ledger.written.wait(), 10)
    assert ledger.names == ["a"]
    assert sorted(sender.attempted) == ["a", "slow0", "slow1"]
    gate.set()
    await sending
    assert len(ledger.recorded) == 6


async def test_outcomes_are_recorded_while_other_attempts_run() -> None:
    gate = asyncio.Event()
    ledger, sender = Ledger(of("fast"), of("slow")), Sender(slow=gate)
    sending = asyncio.create_task(sent(ledger, sender))
    await asyncio.wait_for(ledger.written.wait(), 10)
    assert ledger.names == ["fast"]
    assert not sending.done()
    gate.set()
    await sending
    assert ledger.names == ["fast", "slow"]


async def test_long_reasons_and_responses_are_cut() -> None:
    wordy = Outcome(kind=OutcomeKind.DEFERRED, reason="r" * 500, response="a" * 5000)
    ledger = Ledger(of("a"))
    result = await sent(ledger, Sender(a=wordy))
    (attempt,) = ledger.recorded
    assert attempt.outcome.reason == result.deferred[0].reason == "r" * MAX_REASON
    assert attempt.outcome.response == "a" * MAX_RESPONSE


async def test_heartbeats_continue_while_the_registry_is_slow() -> None:
    ledger, env, beats, beaten = Ledger(of("a")), ActivityEnvironment(), list[Any](), asyncio.Event()
    ledger.load_gate.clear()
    ledger.record_gate.clear()

    def on_heartbeat(*details: Any) -> None:
        beats.append(details)
        beaten.set()

    async def next_beat() -> None:
        beaten.clear()
        await asyncio.wait_for(beaten.wait(), 10)

    env.on_heartbeat = on_heartbeat
    sending = asyncio.create_task(sent(ledger, Sender(), env=env))
    await next_beat()
    await next_beat()
    ledger.load_gate.set()
    await asyncio.wait_for(ledger.recording.wait(), 10)
    await next_beat()
    assert not sending.done()
    ledger.record_gate.set()
    await sending
    assert beats[:2] == [(0,), (0,)]
    assert beats[-1] == (1,)


async def test_no_task_outlives_the_activity() -> None:
    before = asyncio.all_tasks()
    await sent(Ledger(of("a"), of("b")), Sender(b=BUSY))
    with pytest.raises(ValueError, match="bug"):
        await sent(Ledger(of("a")), Sender(a=ValueError("bug")))
    assert asyncio.all_tasks() == before


async def test_failed_write_is_tried_once_more_before_the_activity_fails() -> None:
    ledger, sender = Ledger(of("fast"), of("slow")), Sender(slow=asyncio.Event())
    ledger.failures = [RegistryUnavailable("locked")]
    with pytest.raises(RegistryUnavailable, match="locked"):
        await sent(ledger, sender)
    assert ledger.names == ["fast"]
    assert sender.in_flight == 0


async def test_activity_fails_with_the_first_error_while_the_registry_is_unavailable() -> None:
    ledger = Ledger(of("a"))
    ledger.failures = [RegistryUnavailable("first"), RegistryUnavailable("second")]
    with capture_logs() as logs, pytest.raises(RegistryUnavailable, match="first"):
        await sent(ledger, Sender())
    assert ledger.recorded == []
    assert [line for line in logs if line["event"] == "attempts.record_failed"] == [
        {"event": "attempts.record_failed", "log_level": "error", "channel": "webhook", "error": "RegistryUnavailable"}
    ]


async def test_attempt_that_raises_fails_the_activity_after_the_other_attempts() -> None:
    gate = asyncio.Event()
    ledger, sender = Ledger(of("bad"), of("good"), of("slow")), Sender(bad=ValueError("bug"), slow=gate)
    sending = asyncio.create_task(sent(ledger, sender))
    await asyncio.wait_for(ledger.written.wait(), 10)
    gate.set()
    with pytest.raises(ValueError, match="bug"):
        await sending
    assert ledger.names == ["good", "slow"]


async def test_cancel_records_ended_attempts_and_drops_the_others() -> None:
    ledger, sender, env = (
        Ledger(of("fast"), of("slow"), of("later")),
        Sender(slow=asyncio.Event()),
        ActivityEnvironment(),
    )
    sending = asyncio.create_task(sent(ledger, sender, env=env, concurrency=1))
    await until(lambda: sender.attempted == ["fast", "slow"])
    assert ledger.recorded == []
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert ledger.names == ["fast"]
    assert sender.attempted == ["fast", "slow"]


async def test_cancel_during_a_write_writes_again() -> None:
    ledger, sender, env = Ledger(of("a")), Sender(), ActivityEnvironment()
    ledger.record_gate.clear()
    sending = asyncio.create_task(sent(ledger, sender, env=env))
    await asyncio.wait_for(ledger.recording.wait(), 10)
    env.cancel()
    await until(lambda: ledger.calls == ["record", "record"])
    ledger.record_gate.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert ledger.names == ["a"]


async def test_further_cancels_do_not_interrupt_the_recording() -> None:
    ledger, sender, running = Ledger(of("fast"), of("slow")), Sender(slow=asyncio.Event()), list[asyncio.Task[Any]]()
    ledger.record_gate.clear()
    sending = asyncio.create_task(sent(ledger, sender, running=running))
    await until(lambda: sorted(sender.attempted) == ["fast", "slow"] and sender.in_flight == 1)
    (activity,) = running
    activity.cancel("by the workflow")
    await asyncio.wait_for(ledger.recording.wait(), 10)
    for _ in range(2):
        activity.cancel("by the stopping worker")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not activity.done()
    ledger.record_gate.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert ledger.names == ["fast"]


async def test_cancel_is_reported_as_a_cancel_while_the_registry_is_unavailable() -> None:
    ledger, sender, env = Ledger(of("fast"), of("slow")), Sender(slow=asyncio.Event()), ActivityEnvironment()
    ledger.failures = [RegistryUnavailable("away")]
    sending = asyncio.create_task(sent(ledger, sender, env=env))
    await until(lambda: sorted(sender.attempted) == ["fast", "slow"] and sender.in_flight == 1)
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert ledger.recorded == []


async def test_each_attempt_logs_one_wide_line() -> None:
    with capture_logs() as logs:
        await sent(Ledger(of("a"), of("b")), Sender(b=BUSY))
    lines = {line["subscription"]: line for line in logs if line["event"] == "delivery.attempted"}
    assert set(lines) == {"a", "b"}
    wide = lines["b"]
    assert wide["delivery"] == f"dlv_{EVENT.key}_b"
    expected = {
        "event_source": "/shop",
        "event_id": "42",
        "event_type": "order.paid",
        "tenant": "acme",
        "channel": "webhook",
        "attempt": 1,
        "outcome": "deferred",
        "reason": "HTTP 503",
        "state": "waiting",
        "next_attempt_in": 5.0,
    }
    assert {name: wide[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "retry_after", "number", "fields", "schedule", "expected"),
    [
        (OutcomeKind.DELIVERED, None, 1, {}, None, (DeliveryState.DELIVERED, None, False)),
        (OutcomeKind.DELIVERED, 60.0, 3, {}, None, (DeliveryState.DELIVERED, None, False)),
        (OutcomeKind.REJECTED, 60.0, 1, {}, None, (DeliveryState.REJECTED, None, False)),
        (OutcomeKind.DEFERRED, None, 1, {}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, None, 2, {}, None, (DeliveryState.WAITING, 300.0, False)),
        (OutcomeKind.DEFERRED, None, 3, {}, None, (DeliveryState.EXHAUSTED, None, False)),
        (OutcomeKind.UNKNOWN, None, 1, {}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.UNKNOWN, None, 3, {}, None, (DeliveryState.EXHAUSTED, None, False)),
        (OutcomeKind.DEFERRED, 77.0, 1, {}, None, (DeliveryState.WAITING, 77.0, True)),
        (OutcomeKind.DEFERRED, 0.0, 1, {}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, -5.0, 1, {}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, 4.0, 1, {}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, 77.0, 2, {}, None, (DeliveryState.WAITING, 300.0, False)),
        (OutcomeKind.DEFERRED, 100_000.0, 1, {}, (90_000.0,), (DeliveryState.WAITING, 90_000.0, False)),
        (OutcomeKind.DEFERRED, 1e9, 1, {}, None, (DeliveryState.WAITING, 86_400.0, True)),
        (OutcomeKind.DEFERRED, 77.0, 3, {}, None, (DeliveryState.EXHAUSTED, None, False)),
        (OutcomeKind.DEFERRED, None, 1, {}, (9.0,), (DeliveryState.WAITING, 9.0, False)),
        (OutcomeKind.DEFERRED, None, 2, {}, (9.0,), (DeliveryState.EXHAUSTED, None, False)),
        (OutcomeKind.DEFERRED, None, 1, {}, (), (DeliveryState.EXHAUSTED, None, False)),
        (OutcomeKind.DEFERRED, None, 4, {"schedule_from": 3}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, None, 6, {"schedule_from": 3}, None, (DeliveryState.EXHAUSTED, None, False)),
        # Attempts that retry_now requested.
        (OutcomeKind.DEFERRED, None, 3, {"extra": True}, None, (DeliveryState.WAITING, 300.0, False)),
        (OutcomeKind.DEFERRED, None, 1, {"extra": True}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, None, 4, {"extra": True, "schedule_from": 3}, None, (DeliveryState.WAITING, 5.0, False)),
        (OutcomeKind.DEFERRED, None, 5, {"extra": True, "schedule_from": 3}, None, (DeliveryState.WAITING, 5.0, False)),
    ],
)
def test_retry_decision_follows_the_outcome_and_the_schedule(
    kind: OutcomeKind,
    retry_after: float | None,
    number: int,
    fields: dict[str, Any],
    schedule: tuple[float, ...] | None,
    expected: tuple[DeliveryState, float | None, bool],
) -> None:
    outcome = Outcome(kind=kind, reason="", retry_after=retry_after)
    assert (
        decide_retry(outcome, of("a", number=number, subscribed={"retry_schedule": schedule}, **fields), SCHEDULE)
        == expected
    )


@pytest.mark.parametrize(
    ("own", "of_type", "delay"),
    [(None, None, 5.0), (None, (7.0,), 7.0), ((9.0,), (7.0,), 9.0), (None, (), None), ((), (7.0,), None)],
)
def test_the_schedule_is_the_subscriptions_then_the_event_types_then_the_channels(
    own: tuple[float, ...] | None, of_type: tuple[float, ...] | None, delay: float | None
) -> None:
    request = dataclasses.replace(of("a", subscribed={"retry_schedule": own}), type_schedule=of_type)
    decision = decide_retry(Outcome(kind=OutcomeKind.DEFERRED, reason=""), request, SCHEDULE)
    assert decision.delay == delay


async def test_stopping_worker_ends_attempts_in_flight_and_leaves_the_others_to_another_worker() -> None:
    gate, env, ledger = asyncio.Event(), ActivityEnvironment(), Ledger(of("a"), of("b"), of("c"))
    attempt = Sender(a=gate)
    sending = asyncio.create_task(sent(ledger, attempt, env=env, concurrency=1))
    await until(lambda: attempt.in_flight == 1)
    env.worker_shutdown()
    gate.set()
    with pytest.raises(ApplicationError, match="2 of 3 attempts are left to another") as raised:
        await sending
    assert (raised.value.type, raised.value.non_retryable) == (STOPPING, False)
    assert (attempt.attempted, ledger.names) == (["a"], ["a"])


async def test_retry_sends_nothing_before_the_registry_takes_a_write() -> None:
    env, ledger = ActivityEnvironment(), Ledger(of("a"))
    env.info = dataclasses.replace(env.info, attempt=2)
    await sent(ledger, Sender(), env=env)
    assert ledger.calls == ["probe", "record"]


def three_deliveries_to(name: str) -> tuple[SendRequest, ...]:
    """Deliveries of three events to one subscription."""
    overloaded = subscription(id=name)
    return tuple(send_request(overloaded, event(id=str(number)), number=2) for number in range(3))


async def test_rest_of_a_chunk_is_held_once_the_endpoint_throttles() -> None:
    busy = Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 429", retry_after=600.0, throttle=True)
    ledger, sender = Ledger(*three_deliveries_to("overloaded"), of("healthy")), Sender(overloaded=busy)
    result = await sent(ledger, sender, concurrency=1)
    assert sender.attempted == ["overloaded", "healthy"]
    assert ledger.names == ["healthy", "overloaded"]
    throttled, *held = result.deferred[-1:] + result.deferred[:-1]
    assert (throttled.reason, throttled.attempts, throttled.delay) == ("HTTP 429", 2, 600.0)
    assert [(item.reason, item.attempts, item.from_retry_after) for item in held] == [("throttled", 1, True)] * 2
    assert all(599 < item.delay < 901 for item in held)


async def test_delivery_that_turns_out_to_exceed_a_rate_limit_is_held_and_not_recorded() -> None:
    ledger, sender = Ledger(of("a", number=2), of("b")), Sender(a=Throttled())
    result = await sent(ledger, sender)
    assert ledger.names == ["b"]
    assert result.deferred == (
        Deferred(
            event_key=EVENT.key, subscription_id="a", attempts=1, delay=0.0, from_retry_after=True, reason="rate limit"
        ),
    )


@pytest.mark.parametrize(
    ("health", "degraded"),
    [
        (HEALTHY, False),
        (EndpointHealth(consent=Consent("digest", NOW)), False),
        (EndpointHealth(failing_since=NOW, failures=1), True),
        (EndpointHealth(throttled_until=NOW, throttles=1), True),
    ],
)
async def test_attempt_says_whether_the_endpoint_was_degraded(health: EndpointHealth, degraded: bool) -> None:
    ledger = Ledger(dataclasses.replace(of("a"), health=health))
    await sent(ledger, Sender())
    assert [attempt.degraded for attempt in ledger.recorded] == [degraded]


async def test_rejection_of_a_disabled_subscription_is_not_the_receivers_fault() -> None:
    ledger = Ledger(of("a", subscribed={"state": "disabled"}))
    await sent(ledger, Sender())
    assert [(attempt.outcome.reason, attempt.outcome.fault) for attempt in ledger.recorded] == [
        ("subscription disabled", Fault.OPERATOR)
    ]
