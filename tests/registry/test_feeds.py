"""Feeds: entries are placed once and in order, no reader skips one, and cursors know what was removed."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind, delivery_id
from bellwire.errors import CursorExpired, SubscriptionNotFound
from bellwire.events import Event
from bellwire.keys.keyring import KeyRing, new_entry
from bellwire.registry import Registry
from bellwire.registry.api import feeds
from bellwire.registry.db.engine import Database
from bellwire.registry.upkeep.rekeying import COLUMNS
from bellwire.targets import Channel
from starter.operations.delivery.polling import FeedCursor, FeedWatcher, poll
from tests.factories import event, subscription
from tests.registry.conftest import execute_sql

POLL = {"channel": "poll"}


async def subscribe(registry: Registry, *names: str) -> None:
    for name in names:
        await registry.subscriptions.create(subscription(POLL, id=name))


async def pending(registry: Registry, events: Sequence[Event], *names: str) -> None:
    """Store the events, with pending deliveries for these subscriptions."""
    await registry.events.accept(events, "workflow")
    groups = [Group(event_key=each.key, channel=Channel.POLL, subscription_ids=names) for each in events]
    await registry.deliveries.add("workflow", groups)


def placed(event_: Event, name: str = "app", number: int = 1, at: datetime | None = None) -> Attempt:
    return Attempt(
        event_key=event_.key,
        subscription_id=name,
        number=number,
        started_at=at or datetime.now(UTC),
        duration=0.001,
        outcome=Outcome(kind=OutcomeKind.DELIVERED, reason="placed", to_feed=True),
        state=DeliveryState.DELIVERED,
    )


async def ids(registry: Registry, name: str = "app", after: int = 0, limit: int = 100) -> list[str]:
    return [entry.event.id for entry in (await registry.feeds.read(name, after=after, limit=limit)).entries]


async def deliver(registry: Registry, *event_ids: str, name: str = "app") -> list[Event]:
    """Deliver events one after another."""
    found = [event(id=each) for each in event_ids]
    await pending(registry, found, name)
    for each in found:
        await registry.attempts.record([placed(each, name)])
    return found


async def test_a_feed_has_what_was_delivered_in_the_order_of_the_attempts(registry: Registry) -> None:
    await subscribe(registry, "app", "other")
    events = [event(id=str(number)) for number in range(30)]
    await pending(registry, events, "app", "other")
    now = datetime.now(UTC)
    await registry.attempts.record(
        [placed(each, "app", at=now + timedelta(seconds=number)) for number, each in enumerate(events)]
    )
    await registry.attempts.record([placed(each, "other") for each in events[:3]])
    page = await registry.feeds.read("app", after=0, limit=20)
    assert [entry.event.id for entry in page.entries] == [str(number) for number in range(20)]
    assert page.entries[0].delivery_id == delivery_id(events[0].key, "app")
    assert page.entries[0].event == events[0]
    assert (page.reached, page.more, page.feed.last_position) == (20, True, 30)
    rest = await registry.feeds.read("app", after=page.reached, limit=20)
    assert [entry.event.id for entry in rest.entries] == [str(number) for number in range(20, 30)]
    assert (rest.reached, rest.more) == (30, False)
    assert await registry.feeds.read("app", after=0, limit=20) == page
    assert sorted(await ids(registry, "other")) == ["0", "1", "2"]
    assert (await registry.feeds.get("other")).feed_id != page.feed.feed_id


async def test_an_empty_feed_is_no_error(registry: Registry) -> None:
    await subscribe(registry, "app")
    page = await registry.feeds.read("app", after=0, limit=20)
    assert (page.entries, page.reached, page.more, page.feed) == ([], 0, False, feeds.Feed())


async def test_an_attempt_that_is_recorded_again_is_not_placed_again(registry: Registry) -> None:
    await subscribe(registry, "app")
    one, two = event(id="1"), event(id="2")
    await pending(registry, [one, two], "app")
    # As by two activities that waited for one attempt, whose outcomes are written together.
    await asyncio.gather(*(registry.attempts.record([placed(one), placed(one)]) for _ in range(3)))
    await registry.attempts.record([placed(one)])
    await registry.attempts.record([placed(one, number=2), placed(two)])
    assert await ids(registry) == ["1", "2"]


async def test_what_was_cancelled_meanwhile_is_not_placed(registry: Registry) -> None:
    await subscribe(registry, "app")
    one, two = event(id="1"), event(id="2")
    await pending(registry, [one, two], "app")
    group = Group(event_key=one.key, channel=Channel.POLL, subscription_ids=("app",))
    await registry.deliveries.settle([group], reason="cancelled")
    await registry.attempts.record([placed(one), placed(two)])
    assert await ids(registry) == ["2"]


async def test_a_redelivery_is_placed_at_the_end_and_keeps_its_id(registry: Registry) -> None:
    await subscribe(registry, "app")
    one, _ = await deliver(registry, "1", "2")
    group = Group(event_key=one.key, channel=Channel.POLL, subscription_ids=("app",), attempt=2)
    await registry.deliveries.redeliver("redeliver/1", [group])
    await registry.attempts.record([placed(one, number=2)])
    page = await registry.feeds.read("app", after=0, limit=10)
    assert [entry.event.id for entry in page.entries] == ["1", "2", "1"]
    assert page.entries[0].delivery_id == page.entries[2].delivery_id


async def test_attempts_of_other_channels_have_no_feed(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="hook"))
    one = event(id="1")
    await registry.events.accept([one], "workflow")
    await registry.deliveries.add(
        "workflow", [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=("hook",))]
    )
    attempt = placed(one, "hook")
    await registry.attempts.record(
        [attempt.model_copy(update={"outcome": Outcome(kind=OutcomeKind.DELIVERED, reason="HTTP 204")})]
    )
    assert await ids(registry, "hook") == []


async def test_a_reader_skips_nothing_while_others_write(registry: Registry, url: str) -> None:
    """Writers of several registries, which are several processes to the database, and readers that follow their cursors."""
    writers, number = 4, 40
    await subscribe(registry, "app", "second")
    events = [[event(id=f"{writer}-{each}") for each in range(number)] for writer in range(writers)]
    for each in events:
        await pending(registry, each, "app", "second")
    done = asyncio.Event()

    async def write(own: list[Event]) -> None:
        writing = await Registry.open(url, pool=4)
        try:
            for start in range(0, number, 4):
                # Both feeds in one transaction, and transactions that overlap.
                some = own[start : start + 4]
                await asyncio.gather(
                    writing.attempts.record([placed(each, name) for each in some[:2] for name in ("second", "app")]),
                    writing.attempts.record([placed(each, name) for each in some[2:] for name in ("app", "second")]),
                )
        finally:
            await writing.close()

    async def follow(name: str, limit: int) -> list[str]:
        found, after, last = list[str](), 0, False
        while True:
            page = await registry.feeds.read(name, after=after, limit=limit)
            found += [entry.event.id for entry in page.entries]
            after = page.reached
            if last and not page.entries:
                return found
            last = done.is_set()

    readers = [asyncio.create_task(follow(name, limit)) for name in ("app", "second") for limit in (1, 7, 100)]
    await asyncio.gather(*map(write, events))
    done.set()
    expected = sorted(each.id for own in events for each in own)
    for found in await asyncio.gather(*readers):
        assert sorted(found) == expected, "each event once"
    assert await ids(registry, limit=1000) == await readers[0]


async def test_a_later_transaction_waits_for_an_earlier_one_of_the_same_feed(registry: Registry, url: str) -> None:
    """Else it could end first, and a reader would go past positions that appear later."""
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer")
    await subscribe(registry, "app", "other")
    one, two, three = (event(id=each) for each in "123")
    await pending(registry, [one, two, three], "app", "other")
    first, second, third = [Database.at(url, pool=2) for _ in range(3)]
    placed_first, may_end = asyncio.Event(), asyncio.Event()

    async def hold(connection: object) -> None:
        await feeds.add(connection, [feeds.NewEntry("app", one.key)], at=datetime.now(UTC))  # type: ignore[arg-type]
        placed_first.set()
        await may_end.wait()

    holding = asyncio.create_task(first.write(hold))
    await placed_first.wait()
    now = datetime.now(UTC)
    waiting = asyncio.create_task(second.write(feeds.add, [feeds.NewEntry("app", two.key)], at=now))
    # A feed of its own does not wait.
    await third.write(feeds.add, [feeds.NewEntry("other", three.key)], at=now)
    assert await ids(registry, "other") == ["3"]
    assert await ids(registry) == []
    assert not waiting.done()
    may_end.set()
    await asyncio.gather(holding, waiting)
    assert await ids(registry) == ["1", "2"]
    for database in (first, second, third):
        await database.close()


async def test_writers_of_the_same_feeds_do_not_deadlock(registry: Registry, url: str) -> None:
    names = [f"app{number}" for number in range(8)]
    await subscribe(registry, *names)
    database = Database.at(url, pool=8)
    entries = [feeds.NewEntry(name, event(id="1").key) for name in names]
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(
                database.write(feeds.add, entries if number % 2 else entries[::-1], at=datetime.now(UTC))
                for number in range(16)
            )
        )
    await database.close()
    assert await registry.feeds.last_positions(names) == dict.fromkeys(names, 16)


async def test_a_page_ends_after_a_megabyte(registry: Registry) -> None:
    await subscribe(registry, "app")
    events = [event(id=str(number), data={"text": "x" * 240_000}) for number in range(6)]
    await pending(registry, events, "app")
    for each in events:
        await registry.attempts.record([placed(each)])
    page = await registry.feeds.read("app", after=0, limit=100)
    assert ([entry.event.id for entry in page.entries], page.more) == (["0", "1", "2", "3"], True)
    rest = await registry.feeds.read("app", after=page.reached, limit=100)
    assert ([entry.event.id for entry in rest.entries], rest.more) == (["4", "5"], False)


async def test_purging_removes_entries_and_remembers_how_far(registry: Registry) -> None:
    await subscribe(registry, "app", "other")
    await deliver(registry, "1", "2")
    before = datetime.now(UTC)
    await deliver(registry, "3")
    await deliver(registry, "4", name="other")
    await registry.retention.purge(before)
    page = await registry.feeds.read("app", after=0, limit=10)
    assert [entry.event.id for entry in page.entries] == ["3"]
    assert (page.feed.removed_to, page.feed.last_position) == (2, 3)
    assert (await registry.feeds.get("other")).removed_to == 0
    await registry.retention.purge(datetime.now(UTC))
    page = await registry.feeds.read("app", after=0, limit=10)
    assert (page.entries, page.feed.removed_to, page.feed.last_position) == ([], 3, 3)
    await deliver(registry, "5")
    page = await registry.feeds.read("app", after=3, limit=10)
    assert ([entry.event.id for entry in page.entries], page.reached) == (["5"], 4)


async def polled(registry: Registry, cursor: str = "", *, limit: int = 2, wait: float = 0) -> tuple[list[str], str]:
    """Ids of events, and the cursor for the next ones."""
    read = await poll(
        registry, FeedWatcher(registry), subscription(POLL, id="app"), cursor=cursor, limit=limit, wait=wait
    )
    return [each["id"] for each in read.events], read.cursor


async def test_a_reader_passes_what_was_removed_before_it_began(registry: Registry, database: Database) -> None:
    """Entries are removed out of order, if an old event was redelivered."""
    await subscribe(registry, "app")
    *_, fifth, _ = await deliver(registry, *"123456")
    _, earlier = await polled(registry)
    await database.write(feeds.remove, [fifth.key])
    found, cursor = await polled(registry)
    for expected in (["1", "2"], ["3", "4"], ["6"], []):
        assert found == expected
        found, cursor = await polled(registry, cursor)
    # One that was given before, and one without what is known of removals.
    for expired in (earlier, str(FeedCursor("app", (await registry.feeds.get("app")).feed_id, 2))):
        with pytest.raises(CursorExpired, match="deleted"):
            await polled(registry, expired)


async def test_a_reader_learns_what_is_removed_before_it_arrives(registry: Registry, database: Database) -> None:
    await subscribe(registry, "app")
    one, _, third, _, fifth, sixth = await deliver(registry, *"123456")
    await database.write(feeds.remove, [fifth.key])
    _, cursor = await polled(registry)
    await database.write(feeds.remove, [one.key])
    assert (await polled(registry, cursor))[0] == ["3", "4"], "what it has read may go"
    await database.write(feeds.remove, [third.key])
    with pytest.raises(CursorExpired, match="deleted"):
        await polled(registry, cursor)
    found, cursor = await polled(registry)
    assert found == ["2", "4"]
    await database.write(feeds.remove, [sixth.key])
    with pytest.raises(CursorExpired, match="deleted"):
        await polled(registry, cursor)


async def test_a_reader_of_a_feed_without_entries_waits_for_the_next(registry: Registry, database: Database) -> None:
    await subscribe(registry, "app")
    await database.write(feeds.remove, [each.key for each in await deliver(registry, *"123")])
    found, cursor = await polled(registry)
    assert found == []
    waiting = asyncio.create_task(polled(registry, cursor, wait=30))
    await deliver(registry, "4")
    async with asyncio.timeout(20):
        assert (await waiting)[0] == ["4"]


async def test_an_event_that_is_gone_is_left_out(registry: Registry, database: Database) -> None:
    await subscribe(registry, "app")
    _, two, _ = await deliver(registry, "1", "2", "3")
    await execute_sql(
        database,
        f"DELETE FROM deliveries WHERE event_key = '{two.key}'",
        f"DELETE FROM events WHERE key = '{two.key}'",
    )
    assert await ids(registry) == ["1", "3"]
    page = await registry.feeds.read("app", after=1, limit=1)
    assert (page.entries, page.reached, page.more) == ([], 2, True)


async def test_a_deleted_subscription_leaves_no_feed_and_its_id_starts_another(registry: Registry) -> None:
    await subscribe(registry, "app")
    await deliver(registry, "1", "2")
    first = await registry.feeds.get("app")
    await registry.feeds.place_test("app", event(id="test"))
    await registry.retention.delete("app")
    assert await registry.feeds.get("app") == feeds.Feed()
    await subscribe(registry, "app")
    assert await ids(registry) == []
    await deliver(registry, "3")
    again = await registry.feeds.get("app")
    assert (again.last_position, again.removed_to) == (1, 0)
    assert again.feed_id != first.feed_id


async def test_the_event_of_a_test_send_is_placed_and_purged(registry: Registry) -> None:
    await subscribe(registry, "app")
    await deliver(registry, "1")
    await registry.feeds.place_test("app", event(id="test", data={"a": 1}))
    page = await registry.feeds.read("app", after=0, limit=10)
    assert [(entry.event.id, entry.event.data) for entry in page.entries][1:] == [("test", {"a": 1})]
    with pytest.raises(SubscriptionNotFound, match="nobody"):
        await registry.feeds.place_test("nobody", event())
    await registry.retention.purge(datetime.now(UTC) - timedelta(minutes=1))
    assert len(await ids(registry)) == 2
    await registry.retention.purge(datetime.now(UTC), open_workflow_ids={"workflow"})
    assert await ids(registry) == ["1"]
    assert (await registry.feeds.get("app")).removed_to == 2


async def test_events_of_feeds_are_encrypted(url: str, database: Database) -> None:
    key = KeyRing.parse(new_entry("key"))
    registry = await Registry.open(url, ring=key)
    await registry.migrate()
    await subscribe(registry, "app")
    await deliver(registry, "1")
    await registry.feeds.place_test("app", event(id="canary-in-a-test"))
    assert await ids(registry) == ["1", "canary-in-a-test"]
    await registry.close()

    async def stored(connection: object) -> list[str]:
        found = await connection.exec_driver_sql("SELECT body FROM feed_entries WHERE body IS NOT NULL")  # type: ignore[attr-defined]
        return [row.body for row in found]

    (body,) = await database.read(stored)
    assert body.startswith("sealed:")
    assert "feed_entries.body" in COLUMNS
