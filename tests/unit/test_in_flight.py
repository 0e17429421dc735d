"""InFlightAttempts: attempts that outlast what started them are leased, recorded, and never repeated."""

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from activities.sending import in_flight as module
from activities.sending.attempt import run_attempt
from activities.sending.in_flight import InFlightAttempts
from bellwire.contract import ChunkResult
from bellwire.deliveries import LEASE, Attempt, DeliveryState, Outcome
from bellwire.errors import RegistryUnavailable
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from tests.unit.ledger import BUSY, EVENT, OK, SCHEDULE, Ledger, Sender, groups_of, of, sent, until

AWAY = RegistryUnavailable("away")
DELIVERED_ONCE = ChunkResult(settled={EVENT.key: {DeliveryState.DELIVERED: 1}})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks come quickly; leases are not renewed unless a test says so."""
    monkeypatch.setattr(module, "RENEW_SECONDS", 60.0)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)


def in_flight_of(ledger: Ledger) -> InFlightAttempts:
    return InFlightAttempts(cast("Registry", ledger))


async def start(one: SendRequest, attempt: Sender) -> asyncio.Task[Attempt]:
    """An attempt in flight, whose activity has returned."""

    async def begin() -> asyncio.Task[Attempt]:
        return asyncio.create_task(run_attempt(one, attempt, SCHEDULE))

    task: asyncio.Task[Attempt] = await ActivityEnvironment().run(begin)
    return task


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def running(gate: asyncio.Event) -> AsyncIterator[tuple[Ledger, Sender, InFlightAttempts, SendRequest]]:
    """One leased delivery, whose attempt runs until `gate` opens."""
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    in_flight = in_flight_of(ledger)
    in_flight.keep(one, await start(one, sender), leased=True)
    yield ledger, sender, in_flight, one
    await in_flight.close(0)


Running = tuple[Ledger, Sender, InFlightAttempts, SendRequest]


async def test_kept_attempt_is_leased_while_it_runs_and_recorded_when_it_ends(
    gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.005)
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    in_flight, attempt = in_flight_of(ledger), await start(one, sender)
    in_flight.keep(one, attempt, leased=True)
    await until(lambda: ledger.leased == ["a"] * 3)
    assert in_flight.among(groups_of(one, of("b"))) == {(EVENT.key, "a", 1): attempt}
    assert in_flight.among(groups_of(of("a", number=2))) == {}
    assert ledger.recorded == []
    gate.set()
    await until(lambda: not in_flight.among(groups_of(one)))
    assert [(each.subscription_id, each.number, each.state) for each in ledger.recorded] == [
        ("a", 1, DeliveryState.DELIVERED)
    ]
    assert sender.attempted == ["a"]


@pytest.mark.parametrize(("leased", "leases"), [(False, ["a"]), (True, [])])
async def test_attempt_without_a_lease_is_leased_at_once(leased: bool, leases: list[str], gate: asyncio.Event) -> None:
    one = of("a")
    ledger = Ledger(one)
    in_flight = in_flight_of(ledger)
    in_flight.keep(one, await start(one, Sender(a=gate)), leased=leased)
    if leases:
        await until(lambda: ledger.leased == leases)
    gate.set()
    await asyncio.wait_for(ledger.written.wait(), 10)
    assert ledger.leased == leases
    await in_flight.close(10)


async def test_attempt_that_has_ended_is_recorded_and_not_leased() -> None:
    one = of("a")
    ledger = Ledger(one)
    in_flight, attempt = in_flight_of(ledger), await start(one, Sender(a=BUSY))
    await asyncio.wait([attempt])
    in_flight.keep(one, attempt)
    await until(lambda: not in_flight.among(groups_of(one)))
    assert [each.state for each in ledger.recorded] == [DeliveryState.WAITING]
    assert ledger.leased == []


async def test_lease_and_record_are_tried_until_the_registry_is_available(gate: asyncio.Event) -> None:
    one = of("a")
    ledger = Ledger(one)
    ledger.lease_failures, ledger.failures = [AWAY, AWAY], [AWAY, AWAY, AWAY]
    in_flight, attempt = in_flight_of(ledger), await start(one, Sender(a=gate))
    with capture_logs() as logs:
        in_flight.keep(one, attempt)
        await until(lambda: ledger.leased == ["a"])
        gate.set()
        await until(lambda: len(ledger.failures) == 1)
        assert in_flight.among(groups_of(one)) == {(EVENT.key, "a", 1): attempt}, "it is not recorded yet"
        await until(lambda: not in_flight.among(groups_of(one)))
    assert ledger.names == ["a"]
    warnings = [line for line in logs if line["event"] == "attempt.record_failed"]
    assert (
        warnings
        == [
            {
                "event": "attempt.record_failed",
                "log_level": "warning",
                "delivery": f"dlv_{EVENT.key}_a",
                "error": "RegistryUnavailable",
            }
        ]
        * 5
    )


async def test_closing_waits_for_attempts_to_end(running: Running, gate: asyncio.Event) -> None:
    ledger, _, in_flight, one = running
    closing = asyncio.create_task(in_flight.close(10))
    await asyncio.wait([closing], timeout=0.02)
    assert not closing.done()
    gate.set()
    await asyncio.wait_for(closing, 10)
    assert ledger.names == ["a"]
    assert in_flight.among(groups_of(one)) == {}


async def test_closing_cancels_attempts_that_do_not_end_in_time(running: Running) -> None:
    ledger, sender, in_flight, one = running
    await until(lambda: sender.in_flight == 1)
    await in_flight.close(0.01)
    assert (sender.in_flight, ledger.recorded, in_flight.among(groups_of(one))) == (0, [], {})


async def test_closing_records_ended_attempts_even_after_the_grace_period(
    running: Running, gate: asyncio.Event
) -> None:
    ledger, _, in_flight, _ = running
    ledger.record_gate.clear()
    gate.set()
    await asyncio.wait_for(ledger.recording.wait(), 10)
    closing = asyncio.create_task(in_flight.close(0))
    await asyncio.wait([closing], timeout=0.02)
    ledger.record_gate.set()
    await asyncio.wait_for(closing, 10)
    assert ledger.names == ["a"]


async def test_closing_gives_up_on_an_unavailable_registry(
    running: Running, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.02)
    ledger, _, in_flight, _ = running
    ledger.failures = [AWAY] * 10_000
    gate.set()
    before = asyncio.all_tasks()
    await asyncio.wait_for(in_flight.close(0.02), 10)
    assert ledger.recorded == []
    assert asyncio.all_tasks() < before, "the keeper is gone"


async def test_closing_without_attempts_returns_at_once() -> None:
    await asyncio.wait_for(in_flight_of(Ledger()).close(60), 30)


async def test_activity_joins_an_attempt_in_flight_and_makes_none_itself(running: Running, gate: asyncio.Event) -> None:
    ledger, sender, in_flight, _ = running
    own = Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    assert not sending.done()
    gate.set()
    assert await sending == DELIVERED_ONCE
    assert (sender.attempted, own.attempted) == (["a"], [])
    assert set(ledger.names) == {"a"}


async def test_attempt_that_ends_while_the_registry_is_read_is_not_repeated(
    running: Running, gate: asyncio.Event
) -> None:
    ledger, _, in_flight, one = running
    ledger.load_gate.clear()
    own = Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    # The ledger returns the row as it was, like a read that began before the outcome was written.
    gate.set()
    await until(lambda: not in_flight.among(groups_of(one)))
    ledger.load_gate.set()
    assert await sending == DELIVERED_ONCE
    assert own.attempted == []


async def test_error_of_an_attempt_is_raised_by_the_activity_that_joins_it_and_not_recorded() -> None:
    one, failing = of("a"), asyncio.Event()

    async def attempt(_: SendRequest) -> Outcome:
        await failing.wait()
        raise ValueError("bug")

    ledger, own, unhandled = Ledger(one), Sender(), list[str]()
    in_flight = in_flight_of(ledger)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
    in_flight.keep(one, await start(one, cast("Sender", attempt)), leased=True)
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    failing.set()
    with pytest.raises(ValueError, match="bug"):
        await sending
    assert (ledger.recorded, own.attempted, in_flight.among(groups_of(one))) == ([], [], {})
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert unhandled == [], "the keeper did not fail"


async def test_attempt_that_cannot_be_leased_is_cancelled_and_fails_the_activity_that_joins_it(
    gate: asyncio.Event,
) -> None:
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    ledger.lease_failures = [ValueError("bug")]
    in_flight = in_flight_of(ledger)
    attempt = await start(one, sender)
    in_flight.keep(one, attempt)
    with pytest.raises(RuntimeError, match="cancelled from outside"):
        await sent(ledger, Sender(), in_flight=in_flight)
    assert attempt.cancelled()
    assert (sender.in_flight, in_flight.among(groups_of(one))) == (0, {})


async def test_attempt_in_flight_continues_if_an_activity_that_joins_it_is_cancelled(
    running: Running, gate: asyncio.Event
) -> None:
    ledger, sender, in_flight, _ = running
    env = ActivityEnvironment()
    first = asyncio.create_task(sent(ledger, Sender(), env=env, in_flight=in_flight))
    second = asyncio.create_task(sent(ledger, Sender(), in_flight=in_flight))
    await asyncio.wait([first], timeout=0.02)
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert sender.in_flight == 1
    gate.set()
    assert await second == DELIVERED_ONCE
    assert sender.attempted == ["a"]


async def test_cancelled_attempt_in_flight_does_not_count_as_settled(running: Running) -> None:
    ledger, _, in_flight, _ = running
    sending = asyncio.create_task(sent(ledger, Sender(), in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    await in_flight.close(0)
    with pytest.raises(RuntimeError, match="cancelled from outside"):
        await sending
    assert ledger.recorded == []


def leased(**fields: object) -> SendRequest:
    """A delivery that another process attempts or has attempted."""
    return of("a", **{"state": DeliveryState.SENDING, "intent_at": datetime.now(UTC), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "later",
    [
        pytest.param((of("a", state=DeliveryState.DELIVERED, attempts=1),), id="delivered"),
        pytest.param((of("a", state=DeliveryState.WAITING, attempts=1),), id="deferred"),
        pytest.param((), id="deleted"),
    ],
)
async def test_activity_waits_for_the_attempt_of_another_process(later: tuple[SendRequest, ...]) -> None:
    ledger = Ledger(leased())
    waiting = asyncio.create_task(in_flight_of(ledger).wait_for_other_worker(leased()))
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done()
    ledger.requests = later
    assert await asyncio.wait_for(waiting, 10) == (later[0] if later else None)


async def test_activity_waits_for_another_process_only_until_the_lease_expires() -> None:
    nearly = datetime.now(UTC) - LEASE + timedelta(seconds=0.1)
    ledger = Ledger(leased(intent_at=nearly))
    current = await asyncio.wait_for(in_flight_of(ledger).wait_for_other_worker(ledger.requests[0]), 10)
    assert current == ledger.requests[0]
    assert datetime.now(UTC) - nearly >= LEASE


async def test_activity_returns_what_another_process_recorded() -> None:
    ledger, own = Ledger(leased()), Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight_of(ledger)))
    await asyncio.wait([sending], timeout=0.02)
    assert not sending.done()
    ledger.requests = (of("a", state=DeliveryState.DELIVERED, attempts=1),)
    assert await sending == DELIVERED_ONCE
    assert own.attempted == []


async def test_delivery_deleted_during_the_wait_counts_as_cancelled() -> None:
    ledger, own = Ledger(leased()), Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight_of(ledger)))
    await asyncio.wait([sending], timeout=0.02)
    ledger.requests = ()
    assert await sending == ChunkResult(settled={EVENT.key: {DeliveryState.CANCELLED: 1}})
    assert own.attempted == []


async def test_delivery_of_a_dead_process_is_attempted() -> None:
    ledger, own = Ledger(leased(intent_at=datetime.now(UTC) - LEASE)), Sender()
    assert await sent(ledger, own, in_flight=in_flight_of(ledger)) == DELIVERED_ONCE
    assert own.attempted == ["a"]


async def test_lease_of_another_process_is_read_when_the_delivery_has_its_turn() -> None:
    """A lease that was read much earlier would seem to have expired by then."""
    gate, ledger = asyncio.Event(), Ledger(of("first"), leased(intent_at=datetime.now(UTC) - LEASE))
    own = Sender(first=gate)
    sending = asyncio.create_task(sent(ledger, own, concurrency=1, in_flight=in_flight_of(ledger)))
    await until(lambda: own.in_flight == 1)
    ledger.requests = (ledger.requests[0], of("a", state=DeliveryState.DELIVERED, attempts=1))
    gate.set()
    result = await sending
    assert own.attempted == ["first"]
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 2}}


async def test_channel_without_attempts_in_flight_does_not_wait_for_leases() -> None:
    ledger, own = Ledger(leased()), Sender(a=OK)
    await sent(ledger, own)
    assert own.attempted == ["a"]
