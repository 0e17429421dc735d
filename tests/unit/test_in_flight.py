"""Attempts that go on although what began them has returned: kept, leased, put on record, and never made twice."""

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
    """What is waited for between two looks is over at once; leases need no renewal unless a test says so."""
    monkeypatch.setattr(module, "RENEW_SECONDS", 60.0)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)


def flights_of(ledger: Ledger) -> InFlightAttempts:
    return InFlightAttempts(cast("Registry", ledger))


async def begun(one: SendRequest, attempt: Sender) -> asyncio.Task[Attempt]:
    """An attempt under way, as an activity that has returned meanwhile left it."""

    async def begin() -> asyncio.Task[Attempt]:
        return asyncio.create_task(run_attempt(one, attempt, SCHEDULE))

    task: asyncio.Task[Attempt] = await ActivityEnvironment().run(begin)
    return task


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def flying(gate: asyncio.Event) -> AsyncIterator[tuple[Ledger, Sender, InFlightAttempts, SendRequest]]:
    """One delivery whose attempt goes on until `gate` opens, leased and kept."""
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    in_flight = flights_of(ledger)
    in_flight.keep(one, await begun(one, sender), leased=True)
    yield ledger, sender, in_flight, one
    await in_flight.close(0)


Flying = tuple[Ledger, Sender, InFlightAttempts, SendRequest]


async def test_an_attempt_that_is_kept_goes_on_is_leased_again_and_again_and_put_on_record_when_it_ends(
    gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.005)
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    in_flight, attempt = flights_of(ledger), await begun(one, sender)
    in_flight.keep(one, attempt, leased=True)
    await until(lambda: ledger.leased == ["a"] * 3)
    assert in_flight.among(groups_of(one, of("b"))) == {(EVENT.key, "a", 1): attempt}
    assert in_flight.among(groups_of(of("a", number=2))) == {}
    assert ledger.recorded == []
    gate.set()
    await until(lambda: not in_flight.among(groups_of(one)))
    assert [(made.subscription_id, made.number, made.state) for made in ledger.recorded] == [
        ("a", 1, DeliveryState.DELIVERED)
    ]
    assert sender.attempted == ["a"]


@pytest.mark.parametrize(("leased", "leases"), [(False, ["a"]), (True, [])])
async def test_what_is_not_leased_yet_is_leased_at_once(leased: bool, leases: list[str], gate: asyncio.Event) -> None:
    one = of("a")
    ledger = Ledger(one)
    in_flight = flights_of(ledger)
    in_flight.keep(one, await begun(one, Sender(a=gate)), leased=leased)
    if leases:
        await until(lambda: ledger.leased == leases)
    gate.set()
    await asyncio.wait_for(ledger.written.wait(), 10)
    assert ledger.leased == leases
    await in_flight.close(10)


async def test_what_has_ended_already_is_put_on_record_and_not_leased() -> None:
    one = of("a")
    ledger = Ledger(one)
    in_flight, attempt = flights_of(ledger), await begun(one, Sender(a=BUSY))
    await asyncio.wait([attempt])
    in_flight.keep(one, attempt)
    await until(lambda: not in_flight.among(groups_of(one)))
    assert [made.state for made in ledger.recorded] == [DeliveryState.WAITING]
    assert ledger.leased == []


async def test_a_registry_that_is_away_is_tried_again_until_all_is_on_record(gate: asyncio.Event) -> None:
    one = of("a")
    ledger = Ledger(one)
    ledger.lease_failures, ledger.failures = [AWAY, AWAY], [AWAY, AWAY, AWAY]
    in_flight, attempt = flights_of(ledger), await begun(one, Sender(a=gate))
    with capture_logs() as logs:
        in_flight.keep(one, attempt)
        await until(lambda: ledger.leased == ["a"])
        gate.set()
        await until(lambda: len(ledger.failures) == 1)
        assert in_flight.among(groups_of(one)) == {(EVENT.key, "a", 1): attempt}, "it is not on record yet"
        await until(lambda: not in_flight.among(groups_of(one)))
    assert ledger.names == ["a"]
    told = [line for line in logs if line["event"] == "attempt.record_failed"]
    assert (
        told
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


async def test_closing_waits_for_flights_to_end(flying: Flying, gate: asyncio.Event) -> None:
    ledger, _, in_flight, one = flying
    closing = asyncio.create_task(in_flight.close(10))
    await asyncio.wait([closing], timeout=0.02)
    assert not closing.done()
    gate.set()
    await asyncio.wait_for(closing, 10)
    assert ledger.names == ["a"]
    assert in_flight.among(groups_of(one)) == {}


async def test_closing_breaks_off_what_does_not_end_in_time(flying: Flying) -> None:
    ledger, sender, in_flight, one = flying
    await until(lambda: sender.in_flight == 1)
    await in_flight.close(0.01)
    assert (sender.in_flight, ledger.recorded, in_flight.among(groups_of(one))) == (0, [], {})


async def test_closing_leaves_nothing_unrecorded_that_had_ended_though_the_grace_is_over(
    flying: Flying, gate: asyncio.Event
) -> None:
    ledger, _, in_flight, _ = flying
    ledger.record_gate.clear()
    gate.set()
    await asyncio.wait_for(ledger.recording.wait(), 10)
    closing = asyncio.create_task(in_flight.close(0))
    await asyncio.wait([closing], timeout=0.02)
    ledger.record_gate.set()
    await asyncio.wait_for(closing, 10)
    assert ledger.names == ["a"]


async def test_closing_gives_up_on_a_registry_that_stays_away(
    flying: Flying, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.02)
    ledger, _, in_flight, _ = flying
    ledger.failures = [AWAY] * 10_000
    gate.set()
    before = asyncio.all_tasks()
    await asyncio.wait_for(in_flight.close(0.02), 10)
    assert ledger.recorded == []
    assert asyncio.all_tasks() < before, "the keeper is gone"


async def test_closing_without_flights_is_over_at_once() -> None:
    await asyncio.wait_for(flights_of(Ledger()).close(60), 1)


async def test_an_activity_takes_part_in_a_flight_and_makes_no_attempt(flying: Flying, gate: asyncio.Event) -> None:
    ledger, sender, in_flight, _ = flying
    own = Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    assert not sending.done()
    gate.set()
    assert await sending == DELIVERED_ONCE
    assert (sender.attempted, own.attempted) == (["a"], [])
    assert set(ledger.names) == {"a"}


async def test_a_flight_that_ends_while_the_registry_is_asked_is_not_made_again(
    flying: Flying, gate: asyncio.Event
) -> None:
    ledger, _, in_flight, one = flying
    ledger.load_gate.clear()
    own = Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    # The ledger still answers with the row as it was, as does a read that began before the outcome was written.
    gate.set()
    await until(lambda: not in_flight.among(groups_of(one)))
    ledger.load_gate.set()
    assert await sending == DELIVERED_ONCE
    assert own.attempted == []


async def test_a_flight_that_failed_by_a_bug_is_not_recorded_and_who_takes_part_hears_of_it() -> None:
    one, failing = of("a"), asyncio.Event()

    async def attempt(_: SendRequest) -> Outcome:
        await failing.wait()
        raise ValueError("bug")

    ledger, own, unheard = Ledger(one), Sender(), list[str]()
    in_flight = flights_of(ledger)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context["message"]))
    in_flight.keep(one, await begun(one, cast("Sender", attempt)), leased=True)
    sending = asyncio.create_task(sent(ledger, own, in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    failing.set()
    with pytest.raises(ValueError, match="bug"):
        await sending
    assert (ledger.recorded, own.attempted, in_flight.among(groups_of(one))) == ([], [], {})
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert unheard == [], "the keeper has not failed"


async def test_what_cannot_be_kept_by_a_bug_is_broken_off_and_who_takes_part_hears_of_it(gate: asyncio.Event) -> None:
    one = of("a")
    ledger, sender = Ledger(one), Sender(a=gate)
    ledger.lease_failures = [ValueError("bug")]
    in_flight = flights_of(ledger)
    attempt = await begun(one, sender)
    in_flight.keep(one, attempt)
    with pytest.raises(RuntimeError, match="cancelled from outside"):
        await sent(ledger, Sender(), in_flight=in_flight)
    assert attempt.cancelled()
    assert (sender.in_flight, in_flight.among(groups_of(one))) == (0, {})


async def test_a_flight_goes_on_though_an_activity_that_takes_part_in_it_is_cancelled(
    flying: Flying, gate: asyncio.Event
) -> None:
    ledger, sender, in_flight, _ = flying
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


async def test_a_flight_that_is_broken_off_is_not_taken_for_settled(flying: Flying) -> None:
    ledger, _, in_flight, _ = flying
    sending = asyncio.create_task(sent(ledger, Sender(), in_flight=in_flight))
    await asyncio.wait([sending], timeout=0.02)
    await in_flight.close(0)
    with pytest.raises(RuntimeError, match="cancelled from outside"):
        await sending
    assert ledger.recorded == []


def leased(**fields: object) -> SendRequest:
    """A delivery that another process attempts, or has attempted."""
    return of("a", **{"state": DeliveryState.SENDING, "intent_at": datetime.now(UTC), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "later",
    [
        pytest.param((of("a", state=DeliveryState.DELIVERED, attempts=1),), id="until it is on record"),
        pytest.param((of("a", state=DeliveryState.WAITING, attempts=1),), id="until it is on record as deferred"),
        pytest.param((), id="until the row is gone"),
    ],
)
async def test_what_another_process_attempts_is_waited_for(later: tuple[SendRequest, ...]) -> None:
    ledger = Ledger(leased())
    waiting = asyncio.create_task(flights_of(ledger).wait_for_other_worker(leased()))
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done()
    ledger.requests = later
    assert await asyncio.wait_for(waiting, 10) == (later[0] if later else None)


async def test_what_another_process_attempts_is_waited_for_until_its_lease_has_run_out() -> None:
    nearly = datetime.now(UTC) - LEASE + timedelta(seconds=0.1)
    ledger = Ledger(leased(intent_at=nearly))
    stands = await asyncio.wait_for(flights_of(ledger).wait_for_other_worker(ledger.requests[0]), 10)
    assert stands == ledger.requests[0]
    assert datetime.now(UTC) - nearly >= LEASE


async def test_an_activity_answers_from_the_record_of_another_process() -> None:
    ledger, own = Ledger(leased()), Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=flights_of(ledger)))
    await asyncio.wait([sending], timeout=0.02)
    assert not sending.done()
    ledger.requests = (of("a", state=DeliveryState.DELIVERED, attempts=1),)
    assert await sending == DELIVERED_ONCE
    assert own.attempted == []


async def test_a_delivery_that_is_deleted_meanwhile_counts_as_cancelled() -> None:
    ledger, own = Ledger(leased()), Sender()
    sending = asyncio.create_task(sent(ledger, own, in_flight=flights_of(ledger)))
    await asyncio.wait([sending], timeout=0.02)
    ledger.requests = ()
    assert await sending == ChunkResult(settled={EVENT.key: {DeliveryState.CANCELLED: 1}})
    assert own.attempted == []


async def test_what_a_dead_process_was_attempting_is_taken_over() -> None:
    ledger, own = Ledger(leased(intent_at=datetime.now(UTC) - LEASE)), Sender()
    assert await sent(ledger, own, in_flight=flights_of(ledger)) == DELIVERED_ONCE
    assert own.attempted == ["a"]


async def test_how_another_process_stands_is_asked_when_its_turn_comes_and_not_before() -> None:
    """A lease that had been read long before would seem to have run out by then."""
    gate, ledger = asyncio.Event(), Ledger(of("first"), leased(intent_at=datetime.now(UTC) - LEASE))
    own = Sender(first=gate)
    sending = asyncio.create_task(sent(ledger, own, concurrency=1, in_flight=flights_of(ledger)))
    await until(lambda: own.in_flight == 1)
    ledger.requests = (ledger.requests[0], of("a", state=DeliveryState.DELIVERED, attempts=1))
    gate.set()
    result = await sending
    assert own.attempted == ["first"]
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 2}}


async def test_without_flights_nothing_is_waited_for() -> None:
    ledger, own = Ledger(leased()), Sender(a=OK)
    await sent(ledger, own)
    assert own.attempted == ["a"]
