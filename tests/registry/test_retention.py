"""Purging old events and deleting subscriptions: what is deleted, what is kept, and that deliveries continue meanwhile."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import EventNotFound, SubscriptionNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import (
    attempts,
    deliveries,
    events,
    subscription_types,
    subscriptions,
)
from bellwire.registry.upkeep.results import Deleted, Purged
from bellwire.registry.upkeep.retention import Retention
from bellwire.targets import Channel
from tests.factories import event, subscription

DELIVERED, WAITING = DeliveryState.DELIVERED, DeliveryState.WAITING


@pytest.fixture
def retention(database: Database) -> Retention:
    """Retention with batches so small that a few rows fill several."""
    return Retention(database, events=4, deliveries=3)


async def rows(database: Database) -> tuple[int, int, int]:
    """The numbers of events, deliveries and attempts."""

    async def count(connection: AsyncConnection) -> list[int]:
        return [
            (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (events, deliveries, attempts)
        ]

    first, second, third = await database.read(count)
    return first, second, third


def group(published: Event, *ids: str) -> Group:
    return Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=ids)


def attempt_at(published: Event, name: str, state: DeliveryState = DELIVERED, number: int = 1) -> Attempt:
    kind = OutcomeKind.DELIVERED if state is DELIVERED else OutcomeKind.DEFERRED
    return Attempt(
        event_key=published.key,
        subscription_id=name,
        number=number,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=Outcome(kind=kind, reason="HTTP 204"),
        state=state,
        delay=None if state.settled else 300,
    )


async def deliver(
    registry: Registry,
    event_id: str,
    *names: str,
    state: DeliveryState = DELIVERED,
    workflow_id: str = "workflow",
) -> Event:
    """Store an event with one attempt at each of its deliveries to these subscriptions."""
    published = event(id=event_id)
    await registry.events.accept([published], workflow_id)
    await registry.deliveries.add(workflow_id, [group(published, *names)])
    await registry.attempts.record([attempt_at(published, name, state) for name in names])
    return published


@pytest.fixture
async def subscribed(registry: Registry) -> Sequence[str]:
    names = [f"s{number}" for number in range(8)]
    for name in names:
        await registry.subscriptions.create(subscription(id=name))
    return names


async def test_old_events_are_purged_with_their_deliveries_and_attempts(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    for number in range(10):
        await deliver(registry, f"old-{number}", *subscribed[: number % 3])
    before = datetime.now(UTC)
    recent = await deliver(registry, "recent", "s0", "s1")
    reported: list[Purged] = []
    purged = await retention.purge(before, report=reported.append)
    assert purged == Purged(events=10, deliveries=9, attempts=9, kept=0)
    assert [so_far.events for so_far in reported] == [4, 8, 10]
    assert await rows(database) == (1, 2, 2)
    assert [found.event.id for found in await registry.events.list()] == [recent.id]
    assert len(await registry.subscriptions.list()) == 8
    with pytest.raises(EventNotFound):
        await registry.events.lookup("/shop", "old-1")


async def test_an_event_with_an_unsettled_delivery_is_kept_and_counted(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    waiting = await deliver(registry, "waiting", *subscribed[:2])
    await registry.deliveries.add("workflow", [group(waiting, "s2")])
    await registry.attempts.record([attempt_at(waiting, "s2", WAITING)])
    pending = event(id="pending")
    await registry.events.accept([pending], "workflow")
    await registry.deliveries.add("workflow", [group(pending, "s0")])
    await deliver(registry, "done", *subscribed[:2])
    now = datetime.now(UTC)
    assert await retention.purge(now) == Purged(events=1, deliveries=2, attempts=2, kept=2)
    assert await rows(database) == (2, 4, 3)
    await registry.attempts.record([attempt_at(waiting, "s2", number=2), attempt_at(pending, "s0")])
    assert await retention.purge(now) == Purged(events=2, deliveries=4, attempts=5, kept=0)
    assert await rows(database) == (0, 0, 0)


async def test_events_of_open_workflows_are_kept(
    registry: Registry, retention: Retention, subscribed: Sequence[str]
) -> None:
    await deliver(registry, "matching", "s0", workflow_id="event//shop/matching")
    await deliver(registry, "done", "s0")
    purged = await retention.purge(datetime.now(UTC), open_workflow_ids={"event//shop/matching"})
    assert (purged.events, purged.kept) == (1, 1)
    assert [found.event.id for found in await registry.events.list()] == ["matching"]


async def test_a_dry_run_counts_and_deletes_nothing(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    for number in range(3):
        await deliver(registry, f"old-{number}", *subscribed[:5])
    await deliver(registry, "waiting", "s0", state=WAITING)
    now = datetime.now(UTC)
    expected = await retention.purge(now, dry_run=True)
    assert expected == Purged(events=3, deliveries=15, attempts=15, kept=1)
    assert await rows(database) == (4, 16, 16)
    assert await retention.purge(now) == expected


async def test_an_event_with_many_deliveries_is_purged_in_several_transactions(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    await deliver(registry, "large", *subscribed)
    now = datetime.now(UTC)
    assert await retention.purge(now) == Purged(events=1, deliveries=8, attempts=8)
    assert await rows(database) == (0, 0, 0)


async def test_an_interrupted_purge_can_be_repeated(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    for number in range(6):
        await deliver(registry, f"old-{number}", *subscribed[:4])
    now = datetime.now(UTC)

    def interrupt(so_far: Purged) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await retention.purge(now, report=interrupt)
    assert await rows(database) == (2, 8, 8)
    assert await retention.purge(now) == Purged(events=2, deliveries=8, attempts=8)


async def test_orphaned_attempts_are_purged_once_they_are_old(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    kept = await deliver(registry, "kept", "s0", state=WAITING)
    purged = event(id="gone")
    await registry.attempts.record([attempt_at(purged, "s0"), attempt_at(kept, "deleted")])
    now = datetime.now(UTC)
    await registry.attempts.record([attempt_at(purged, "s1")])
    assert (await retention.purge(now, dry_run=True)).attempts == 2
    assert (await retention.purge(now)).attempts == 2
    assert [found.subscription_id for found in await registry.attempts.list(purged.key)] == ["s1"]
    assert [found.subscription_id for found in await registry.attempts.list(kept.key)] == ["s0"]


async def test_an_event_that_is_redelivered_during_a_purge_is_deleted_or_kept_as_a_whole(
    registry: Registry, retention: Retention, subscribed: Sequence[str]
) -> None:
    """Either the event was purged, and there is nothing to redeliver, or it was redelivered, and all its deliveries exist."""
    published = [await deliver(registry, f"event-{number:02}", "s0", "s1") for number in range(30)]
    now = datetime.now(UTC)

    async def redeliver() -> dict[str, bool]:
        reset = {}
        for one in reversed(published):
            reset[one.key] = bool(await registry.deliveries.redeliver(f"redeliver/{one.id}", [group(one, "s1")]))
        return reset

    purged, reset = await asyncio.gather(retention.purge(now), redeliver())
    assert purged.events + purged.kept == 30
    assert purged.events + sum(reset.values()) == 30
    for one in published:
        states = {found.subscription_id: found.state for found in await registry.deliveries.list(event_key=one.key)}
        assert states == ({"s0": DELIVERED, "s1": DeliveryState.PENDING} if reset[one.key] else {})


async def test_publishing_and_delivering_continue_during_a_purge(
    registry: Registry, retention: Retention, subscribed: Sequence[str]
) -> None:
    for number in range(40):
        await deliver(registry, f"old-{number}", *subscribed[:3])
    now = datetime.now(UTC)

    async def deliver_more() -> None:
        for number in range(40):
            await deliver(registry, f"new-{number}", *subscribed[:3])

    purged, _ = await asyncio.gather(retention.purge(now), deliver_more())
    assert purged == Purged(events=40, deliveries=120, attempts=120)
    found = await registry.events.list(limit=100)
    assert {one.event.id for one in found} == {f"new-{number}" for number in range(40)}
    assert all(one.counts.delivered == 3 for one in found)


async def test_a_purged_event_may_be_published_again(registry: Registry, subscribed: Sequence[str]) -> None:
    published = await deliver(registry, "1", "s0")
    assert (await registry.events.accept([published], "other"))[published.key].workflow_id == "workflow"
    await registry.retention.purge(datetime.now(UTC) + timedelta(seconds=1))
    assert (await registry.events.accept([published], "other"))[published.key].workflow_id == "other"


async def test_a_subscription_is_deleted_with_its_deliveries_and_attempts(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    published = [await deliver(registry, f"event-{number}", "s0", "s1") for number in range(7)]
    assert await retention.delete("s0") == Deleted(gone=True, deliveries=7, attempts=7)
    assert await rows(database) == (7, 7, 7)
    assert (await registry.matching.match(published[0], limit=100, scan=100)).found[0][0] == "s1"
    for call in (registry.subscriptions.get("s0"), retention.delete("s0")):
        with pytest.raises(SubscriptionNotFound):
            await call
    await registry.subscriptions.create(subscription(id="s0"))


async def test_a_subscription_with_unsettled_deliveries_is_kept_unless_they_are_cancelled(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    await deliver(registry, "done", "s0", "s1")
    for number in range(5):
        await deliver(registry, f"waiting-{number}", "s0", "s1", state=WAITING)
    assert await retention.delete("s0") == Deleted(gone=False, unsettled=5)
    assert (await registry.subscriptions.get("s0")).state == "active"
    assert await rows(database) == (6, 12, 12)
    assert await retention.delete("s0", cancel=True) == Deleted(gone=True, deliveries=6, attempts=6, unsettled=5)
    assert {found.subscription_id for found in await registry.deliveries.list()} == {"s1"}


async def test_a_workflow_that_matched_a_deleted_subscription_matches_again(
    registry: Registry, retention: Retention, subscribed: Sequence[str]
) -> None:
    published = event(id="1")
    await registry.events.accept([published], "workflow")
    found = await registry.matching.match(published, limit=100, scan=100)
    await retention.delete("s0")
    with pytest.raises(IntegrityError):
        await registry.deliveries.add("workflow", [group(published, *(name for name, _ in found.found))])
    again = await registry.matching.match(published, limit=100, scan=100)
    await registry.deliveries.add("workflow", [group(published, *(name for name, _ in again.found))])
    assert [one.subscription_id for one in await registry.deliveries.list()] == subscribed[1:]


async def test_deliveries_added_while_a_subscription_is_deleted_leave_nothing_behind(
    registry: Registry, retention: Retention, database: Database, subscribed: Sequence[str]
) -> None:
    published = [event(id=f"event-{number:02}") for number in range(20)]
    await registry.events.accept(published, "workflow")

    async def add() -> None:
        for one in published:
            try:
                await registry.deliveries.add("workflow", [group(one, "s0")])
            except IntegrityError:
                return

    deleted, _ = await asyncio.gather(retention.delete("s0", cancel=True), add())

    async def remaining(connection: AsyncConnection) -> list[int]:
        tables = (
            (subscriptions, subscriptions.c.id),
            (subscription_types, subscription_types.c.subscription_id),
            (deliveries, deliveries.c.subscription_id),
        )
        return [
            (await connection.execute(select(func.count()).select_from(table).where(name == "s0"))).scalar_one()
            for table, name in tables
        ]

    assert deleted.gone
    assert await database.read(remaining) == [0, 0, 0]
