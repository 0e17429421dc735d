"""The registry in memory behaves like the real one for attempts: every test here runs on both."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import subscription
from tests.unit.ledger import BUSY, EVENT, OK, Ledger, of

MakeLedger = Callable[..., Awaitable[Ledger | Registry]]
UNKNOWN = Outcome(kind=OutcomeKind.UNKNOWN, reason="incomplete response", provider_id="SM1")


@pytest.fixture(params=["memory", "sqlite"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeLedger]:
    """Makes a ledger with pending deliveries of one event for these subscriptions."""
    async with AsyncExitStack() as stack:

        async def make_ledger(*subscription_ids: str) -> Ledger | Registry:
            if request.param == "memory":
                return Ledger(*map(of, subscription_ids))
            registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
            stack.push_async_callback(registry.close)
            await registry.migrate()
            await registry.events.accept([EVENT], "w")
            for each in subscription_ids:
                await registry.subscriptions.create(subscription(id=each))
            await registry.deliveries.add("w", [group(*subscription_ids)])
            return registry

        yield make_ledger


def group(*subscription_ids: str, attempt: int = 1) -> Group:
    return Group(event_key=EVENT.key, channel=Channel.WEBHOOK, subscription_ids=subscription_ids, attempt=attempt)


async def load_one(ledger: Ledger | Registry, subscription_id: str = "a", *, attempt: int = 1) -> SendRequest:
    (request,) = await ledger.attempts.load([group(subscription_id, attempt=attempt)])
    return request


async def delivery(ledger: Ledger | Registry, subscription_id: str = "a") -> Delivery:
    return (await load_one(ledger, subscription_id)).delivery


def attempt(subscription_id: str = "a", outcome: Outcome = OK, *, number: int = 1, **fields: Any) -> Attempt:
    state = DeliveryState.DELIVERED if outcome.kind is OutcomeKind.DELIVERED else DeliveryState.WAITING
    return Attempt(
        event_key=EVENT.key,
        subscription_id=subscription_id,
        number=number,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=outcome,
        state=state,
        delay=None if state.settled else 5.0,
        **fields,
    )


async def test_load_returns_the_existing_deliveries_in_the_order_of_the_groups(make: MakeLedger) -> None:
    ledger = await make("a", "b", "c")
    loaded = await ledger.attempts.load([group("c", "deleted"), group("b", "a", attempt=2)])
    assert [(each.subscription.id, each.number) for each in loaded] == [("c", 1), ("b", 2), ("a", 2)]
    assert all(each.events == (EVENT,) for each in loaded)
    assert {each.events_json for each in loaded} == {(EVENT.to_json(),)}
    assert {each.delivery.state for each in loaded} == {DeliveryState.PENDING}


async def test_load_of_an_unknown_event_returns_nothing(make: MakeLedger) -> None:
    ledger = await make("a")
    unknown = Group(event_key="unknown", channel=Channel.WEBHOOK, subscription_ids=("a",))
    assert list(await ledger.attempts.load([unknown])) == []


async def test_a_recorded_attempt_settles_its_delivery(make: MakeLedger) -> None:
    ledger = await make("a", "b")
    await ledger.attempts.record([attempt()])
    found = await delivery(ledger)
    assert (found.state, found.attempts, found.reason, found.delay) == (DeliveryState.DELIVERED, 1, OK.reason, None)
    assert (await delivery(ledger, "b")).state is DeliveryState.PENDING


async def test_a_recorded_attempt_that_was_deferred_leaves_its_delivery_waiting(make: MakeLedger) -> None:
    ledger = await make("a")
    outcome = BUSY.model_copy(update={"remaining_recipients": ("ann@example.com",)})
    await ledger.attempts.record([attempt(outcome=outcome, from_retry_after=True)])
    found = await delivery(ledger)
    assert (found.state, found.attempts, found.reason) == (DeliveryState.WAITING, 1, BUSY.reason)
    assert (found.delay, found.from_retry_after) == (5.0, True)
    assert found.remaining_recipients == ("ann@example.com",)


async def test_an_attempt_that_is_recorded_twice_changes_its_delivery_once(make: MakeLedger) -> None:
    ledger = await make("a")
    await ledger.attempts.record([attempt(outcome=BUSY)])
    await ledger.attempts.record([attempt(outcome=OK)])
    assert (await delivery(ledger)).state is DeliveryState.WAITING


async def test_an_attempt_recorded_after_settling_changes_nothing(make: MakeLedger) -> None:
    ledger = await make("a")
    await ledger.attempts.record([attempt()])
    await ledger.attempts.record([attempt(outcome=BUSY, number=2)])
    found = await delivery(ledger)
    assert (found.state, found.attempts) == (DeliveryState.DELIVERED, 1)


async def test_the_attempts_of_a_delivery_are_recorded_in_order(make: MakeLedger) -> None:
    ledger = await make("a")
    await ledger.attempts.record([attempt(outcome=BUSY, number=1), attempt(outcome=OK, number=2)])
    found = await delivery(ledger)
    assert (found.state, found.attempts) == (DeliveryState.DELIVERED, 2)


async def test_a_lease_shows_that_a_delivery_is_being_attempted(make: MakeLedger) -> None:
    ledger = await make("a", "b")
    await ledger.attempts.lease([await load_one(ledger)])
    found = await delivery(ledger)
    assert (found.state, found.leased(datetime.now(UTC))) == (DeliveryState.SENDING, True)
    assert not (await delivery(ledger, "b")).leased(datetime.now(UTC))


async def test_a_lease_is_renewed(make: MakeLedger) -> None:
    ledger = await make("a")
    request = await load_one(ledger)
    await ledger.attempts.lease([request])
    first = (await delivery(ledger)).intent_at
    await ledger.attempts.lease([request])
    second = (await delivery(ledger)).intent_at
    assert first
    assert second
    assert second > first


@pytest.mark.parametrize("outcome", [OK, BUSY])
async def test_a_lease_or_an_intent_for_a_recorded_attempt_changes_nothing(make: MakeLedger, outcome: Outcome) -> None:
    ledger = await make("a")
    request = await load_one(ledger)
    await ledger.attempts.record([attempt(outcome=outcome)])
    before = await delivery(ledger)
    await ledger.attempts.lease([request])
    await ledger.attempts.record_intent([request])
    assert await delivery(ledger) == before


async def test_an_intent_is_visible_until_the_outcome_is_known(make: MakeLedger) -> None:
    ledger = await make("a")
    await ledger.attempts.record_intent([await load_one(ledger)])
    intended = await delivery(ledger)
    assert intended.state is DeliveryState.SENDING
    assert intended.intent_at
    await ledger.attempts.record([attempt(outcome=UNKNOWN)])
    unknown = await delivery(ledger)
    assert (unknown.intent_at, unknown.provider_id) == (intended.intent_at, "SM1")
    await ledger.attempts.record([attempt(outcome=BUSY, number=2)])
    assert (await delivery(ledger)).intent_at is None


async def test_an_intent_whose_outcome_is_unknown_is_kept(make: MakeLedger) -> None:
    ledger = await make("a")
    await ledger.attempts.record_intent([await load_one(ledger)])
    first = await delivery(ledger)
    await ledger.attempts.record_intent([await load_one(ledger)])
    assert (await delivery(ledger)).intent_at == first.intent_at


async def test_an_intent_does_not_change_when_a_delivery_was_updated(make: MakeLedger) -> None:
    """Until the attempt is claimed nothing has been sent, so another worker that has read the delivery may still send it."""
    ledger = await make("a")
    before = await delivery(ledger)
    await ledger.attempts.record_intent([await load_one(ledger)])
    assert (await delivery(ledger)).updated_at == before.updated_at


async def test_a_probe_changes_nothing_but_the_time_of_the_update(make: MakeLedger) -> None:
    ledger = await make("a")
    before = await delivery(ledger)
    await ledger.attempts.probe(await load_one(ledger))
    after = await delivery(ledger)
    assert after.updated_at > before.updated_at
    assert after == before.model_copy(update={"updated_at": after.updated_at})
