"""The relay, on SQLite and on PostgreSQL, over a client that records what is published, and fails as it is told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from structlog.testing import capture_logs
from temporalio.service import RPCError, RPCStatusCode

from bellwire import Client, Event, EventConflict, EventInvalid, TemporalUnavailable
from bellwire.events import MAX_EVENT_BYTES
from bellwire.outbox import insert, insert_async
from bellwire.registry import Registry
from starter.relay.checking import EventChecks
from starter.relay.opening import open_outbox
from starter.relay.relay import Relay
from starter.relay.store import OutboxStore, OutboxUnavailable
from tests.factories import subscription
from tests.outbox.test_inserting import order_paid

#: What refuses an event: an error, or None.
Refusal = Callable[[Event], Exception | None]


class Publisher:
    """Records publications. `refuse` fails all of one in which it refuses an event."""

    def __init__(self) -> None:
        self.publications: list[list[Event]] = []
        #: When each of them is to be delivered.
        self.times: list[datetime | None] = []
        self.refuse: Refusal = lambda _: None
        self.in_flight: list[set[str | None]] = []
        self.waiting = asyncio.Event()
        self.waiting.set()
        self.called = asyncio.Event()

    async def publish_many(self, events: Sequence[Event], deliver_at: datetime | None = None) -> None:
        subjects = {event.subject for event in events}
        assert all(subjects.isdisjoint(others) for others in self.in_flight), (
            "two publications of one subject at a time"
        )
        self.in_flight.append(subjects)
        self.called.set()
        try:
            await self.waiting.wait()
            for event in events:
                if error := self.refuse(event):
                    raise error
            self.publications.append(list(events))
            self.times.append(deliver_at)
        finally:
            self.in_flight.remove(subjects)

    @property
    def published(self) -> list[str]:
        return [event.id for events in self.publications for event in events]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Registry]:
    """Bellwire's registry, which is not the service's database."""
    opened = await Registry.open(f"sqlite:///{tmp_path / 'platform.db'}")
    await opened.migrate()
    yield opened
    await opened.close()


@asynccontextmanager
async def store(url: str) -> AsyncIterator[OutboxStore]:
    opened = open_outbox(url)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def relay(outbox_url: str, publisher: Publisher, platform: Registry) -> AsyncIterator[Relay]:
    async with store(outbox_url) as opened:
        yield relay_of(opened, publisher, platform)


def relay_of(store: OutboxStore, publisher: Publisher, registry: Registry, **options: Any) -> Relay:
    return Relay(store, cast(Client, publisher), EventChecks(registry), **{"poll": 0.01, **options})


async def execute(url: str, statement: str, *arguments: Any) -> None:
    """Execute a statement of the service, with $1 for parameters."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            connection.execute(statement.replace("$", "?"), arguments)
        connection.close()
    else:
        server = await asyncpg.connect(url)
        await server.execute(statement, *arguments)
        await server.close()


async def add(url: str, *events: Event, **times: Any) -> None:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            insert(connection, *events, **times)
        connection.close()
    else:
        server = await asyncpg.connect(url)
        await insert_async(server, *events, **times)
        await server.close()


def numbered(number: int, *, subjects: int = 7, first: int = 0) -> list[Event]:
    return [order_paid(index, subject=f"order-{index % subjects}") for index in range(first, first + number)]


def by_subject(events: Sequence[Event]) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for event in events:
        found.setdefault(event.subject, []).append(event.id)
    return found


async def backlog(url: str) -> tuple[int, int]:
    """Waiting and refused rows."""
    async with store(url) as opened:
        found = await opened.backlog()
        return found.waiting, found.refused


async def test_events_are_published_in_order_for_each_subject_and_their_rows_deleted(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    events = numbered(950)
    await add(outbox_url, *events)
    assert await relay.publish_all() == 950
    published = [event for publication in publisher.publications for event in publication]
    assert by_subject(published) == by_subject(events)
    assert {event.id: event for event in published} == {event.id: event for event in events}
    assert max(map(len, publisher.publications)) == 100
    # Seven subjects fill no more than seven lanes, of which each has one part that is not full.
    assert len(publisher.publications) <= 950 // 100 + 7
    assert await backlog(outbox_url) == (0, 0)


async def test_few_events_are_one_publication(outbox_url: str, relay: Relay, publisher: Publisher) -> None:
    await add(outbox_url, *numbered(100, subjects=50))
    await relay.publish_all()
    assert [len(publication) for publication in publisher.publications] == [100]


async def test_events_for_later_are_published_with_their_time(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    await add(outbox_url, order_paid(1, subject="one"))
    await add(outbox_url, order_paid(2, subject="one"), order_paid(3, subject="one"), deliver_at=later)
    await add(outbox_url, order_paid(4, subject="one"), delay="1h")
    await add(outbox_url, order_paid(5, subject="one"), deliver_at=later)
    await execute(
        outbox_url, "UPDATE bellwire_outbox SET deliver_at = '2020-01-01T00:00:00Z' WHERE event_id = 'order-5-paid'"
    )
    await add(outbox_url, order_paid(6, subject="one"), deliver_at=later)
    await execute(outbox_url, "UPDATE bellwire_outbox SET deliver_at = 'soon' WHERE event_id = 'order-6-paid'")
    await relay.publish_all()
    assert [[event.id for event in events] for events in publisher.publications] == [
        ["order-1-paid"],
        ["order-2-paid", "order-3-paid"],
        ["order-4-paid"],
        ["order-5-paid"],
    ]
    first, second, third, past = publisher.times
    assert (first, second, past) == (None, later, None)
    assert third is not None
    assert abs(third - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    async with store(outbox_url) as opened:
        (row,) = await opened.refused()
    assert row.error.startswith("deliver_at: ")


async def test_a_publication_is_at_most_a_megabyte(outbox_url: str, relay: Relay, publisher: Publisher) -> None:
    data = "x" * (MAX_EVENT_BYTES - 1_000)
    await add(outbox_url, *(order_paid(number, subject="one", data=data) for number in range(10)))
    await relay.publish_all()
    assert [len(publication) for publication in publisher.publications] == [3, 3, 3, 1]


async def test_a_row_that_commits_late_is_published_although_later_ones_were(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    await add(outbox_url, *numbered(3))
    await execute(outbox_url, "UPDATE bellwire_outbox SET id = id + 100")
    await relay.publish_all()
    event = order_paid(50)
    await execute(
        outbox_url,
        "INSERT INTO bellwire_outbox (id, source, event_id, event) VALUES (2, '/shop', 'order-50-paid', $1)",
        event.to_json(),
    )
    await relay.publish_all()
    assert publisher.published[-1] == "order-50-paid"
    assert await backlog(outbox_url) == (0, 0)


@pytest.mark.parametrize("error", [EventConflict, EventInvalid, lambda: rpc_error(RPCStatusCode.INVALID_ARGUMENT)])
async def test_a_refused_event_keeps_its_row_and_stops_no_other(
    outbox_url: str, relay: Relay, publisher: Publisher, error: Callable[[], Exception]
) -> None:
    publisher.refuse = lambda event: error() if event.id in {"order-5-paid", "order-31-paid"} else None
    events = numbered(60)
    await add(outbox_url, *events)
    with capture_logs() as logs:
        await relay.publish_all()
    kept = [event for event in events if event.id not in {"order-5-paid", "order-31-paid"}]
    published = [event for publication in publisher.publications for event in publication]
    assert by_subject(published) == by_subject(kept)
    assert await backlog(outbox_url) == (0, 2)
    refused = [line for line in logs if line["event"] == "outbox.refused"]
    assert [line["event_id"] for line in refused] == ["order-5-paid", "order-31-paid"]
    assert all(line["reason"] for line in refused)


async def test_a_reason_that_cannot_be_stored_as_it_is_stops_no_other(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    await add(outbox_url, *numbered(3))
    content = r'{"specversion": "1.0", "id": "order-1-paid", "source": "/shop", "type": "order.paid", "x\u0000y": "1"}'
    await execute(outbox_url, "UPDATE bellwire_outbox SET event = $1 WHERE event_id = 'order-1-paid'", content)
    publisher.refuse = lambda event: EventInvalid("a\0b\ud800") if event.id == "order-2-paid" else None
    assert await relay.publish_all() == 3
    assert publisher.published == ["order-0-paid"]
    async with store(outbox_url) as opened:
        refused = await opened.refused()
    assert [(row.event_id, "\0" in row.error, "\ufffd" in row.error) for row in refused] == [
        ("order-1-paid", False, True),
        ("order-2-paid", False, True),
    ]


async def test_a_text_that_is_not_utf8_stops_no_other(
    sqlite_file: Path, publisher: Publisher, platform: Registry
) -> None:
    url = f"sqlite:///{sqlite_file}"
    await add(url, *numbered(2))
    broken = "CAST(x'6f726465722dff' AS TEXT)"
    await execute(url, f"UPDATE bellwire_outbox SET event_id = {broken}, subject = {broken} WHERE id = 1")
    async with store(url) as opened:
        assert await relay_of(opened, publisher, platform).publish_all() == 2
        assert [row.event_id for row in await opened.refused()] == ["order-\ufffd"]
    assert publisher.published == ["order-1-paid"]


async def test_refused_rows_are_listed_and_can_wait_again(outbox_url: str, relay: Relay, publisher: Publisher) -> None:
    publisher.refuse = lambda _: EventInvalid("too large")
    await add(outbox_url, order_paid())
    await relay.publish_all()
    async with store(outbox_url) as opened:
        (row,) = await opened.refused()
        assert (row.source, row.event_id, row.error) == ("/shop", "order-1-paid", "too large")
        assert row.refused_at.tzinfo
        publisher.refuse = lambda _: None
        assert await opened.retry_refused() == 1
        assert await opened.retry_refused() == 0
    await relay.publish_all()
    assert publisher.published == ["order-1-paid"]
    assert await backlog(outbox_url) == (0, 0)


@pytest.mark.parametrize(
    ("event_id", "text", "reason"),
    [
        ("1", "not JSON", "is not valid JSON"),
        ("1", '{"specversion": "1.0", "id": "1", "source": "/shop"}', "type: is missing"),
        ("1", '{"specversion": "1.0", "source": "/shop", "type": "a"}', "event_id: is not the `id` in `event`"),
        ("2", '{"specversion": "1.0", "id": "1", "source": "/shop", "type": "a"}', "event_id: is not the `id`"),
    ],
)
async def test_rows_of_other_languages_are_checked(
    outbox_url: str, relay: Relay, publisher: Publisher, event_id: str, text: str, reason: str
) -> None:
    await execute(
        outbox_url,
        f"INSERT INTO bellwire_outbox (source, event_id, event) VALUES ('/shop', '{event_id}', $1)",
        text,
    )
    await add(outbox_url, order_paid())
    await relay.publish_all()
    assert publisher.published == ["order-1-paid"]
    async with store(outbox_url) as opened:
        (row,) = await opened.refused()
    assert reason in row.error


async def test_the_registry_knows_what_was_published_and_what_conflicts(
    outbox_url: str, relay: Relay, publisher: Publisher, platform: Registry
) -> None:
    """A relay that was killed had published the first; another publisher has used the id of the second."""
    await platform.events.accept([order_paid(1), order_paid(2, data="other")], "event/x", "run")
    await add(outbox_url, *map(order_paid, range(1, 4)))
    await relay.publish_all()
    assert publisher.published == ["order-3-paid"]
    async with store(outbox_url) as opened:
        (row,) = await opened.refused()
    assert row.event_id == "order-2-paid"
    assert "other content was published before" in row.error


async def test_two_rows_with_one_id_and_different_content_are_one_event_and_one_refused(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    await add(outbox_url, order_paid(data={"total": 1}), order_paid(data={"total": 2}))
    await relay.publish_all()
    assert [[event.data for event in events] for events in publisher.publications] == [[{"total": 1}]]
    assert await backlog(outbox_url) == (0, 1)


async def test_unknown_tenants_and_types_are_refused_where_the_platform_refuses_them(
    outbox_url: str, publisher: Publisher, platform: Registry
) -> None:
    await platform.subscriptions.create(subscription(tenant="acme"))
    await add(outbox_url, order_paid(1, tenant="acme"), order_paid(2, tenant="amce"), order_paid(3, tenant="*"))
    async with store(outbox_url) as opened:
        checks = EventChecks(platform, refuse_tenants=True)
        await Relay(opened, cast(Client, publisher), checks).publish_all()
        assert [row.error for row in await opened.refused()] == [
            "The event was refused: its tenant never had a subscription. Correct `tenant`, and publish the event with a new id."
        ]
        await add(outbox_url, order_paid(4))
        await Relay(opened, cast(Client, publisher), EventChecks(platform, refuse_types=True)).publish_all()
        assert "order.paid is not in the catalog" in (await opened.refused())[-1].error
    assert publisher.published == ["order-1-paid", "order-3-paid"]


def rpc_error(status: RPCStatusCode) -> RPCError:
    return RPCError("said so", status, b"")


async def test_nothing_is_lost_while_temporal_is_away_and_the_relay_is_not_ready(
    outbox_url: str, relay: Relay, publisher: Publisher
) -> None:
    publisher.refuse = lambda _: TemporalUnavailable("cannot reach Temporal")
    await add(outbox_url, *numbered(3))
    stop = asyncio.Event()
    with capture_logs() as logs:
        running = asyncio.create_task(relay.run(stop))
        async with asyncio.timeout(20):
            while not any(line["event"] == "outbox.publish_failed" for line in logs):
                await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="cannot reach Temporal"):
                relay.check()
            assert await backlog(outbox_url) == (3, 0)
            publisher.refuse = lambda _: None
            while len(publisher.published) < 3 or await backlog(outbox_url) != (0, 0):
                await asyncio.sleep(0.01)
            while not any(line["event"] == "outbox.publish_restored" for line in logs):
                await asyncio.sleep(0.01)
            relay.check()
            stop.set()
            await running
    assert [line["event"] for line in logs].count("outbox.publish_failed") == 1


async def test_what_was_published_before_a_failure_is_deleted(
    outbox_url: str, publisher: Publisher, platform: Registry
) -> None:
    publisher.refuse = lambda event: TemporalUnavailable() if event.id == "order-25-paid" else None
    await add(outbox_url, *numbered(30, subjects=1))
    async with store(outbox_url) as opened:
        relay = relay_of(opened, publisher, platform, batch=10)
        with pytest.raises(TemporalUnavailable):
            await relay.publish_all()
        assert await backlog(outbox_url) == (10, 0)
        publisher.refuse = lambda _: None
        await relay.publish_all()
    assert publisher.published == [f"order-{number}-paid" for number in range(30)]


async def test_a_stopped_relay_finishes_what_it_publishes(outbox_url: str, relay: Relay, publisher: Publisher) -> None:
    publisher.waiting.clear()
    await add(outbox_url, *numbered(3))
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    async with asyncio.timeout(20):
        await publisher.called.wait()
        stop.set()
        publisher.waiting.set()
        await running
    assert len(publisher.published) == 3
    assert await backlog(outbox_url) == (0, 0)


@pytest.mark.parametrize("url", ["mysql://shop", "sqlite://", "sqlite:///:memory:", "shop.db", ""])
def test_other_urls_are_errors(url: str) -> None:
    with pytest.raises(ValueError, match="url: must be sqlite:///FILE or postgresql://"):
        open_outbox(url)


async def test_a_missing_table_and_a_missing_database_are_named(url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        (tmp_path / "registry.db").touch()
    async with store(url) as opened:
        await opened.keep_alive()
        with pytest.raises(
            OutboxUnavailable, match=r"no table bellwire_outbox; create it with bellwire\.outbox\.create"
        ):
            await opened.backlog()
    gone = f"sqlite:///{tmp_path}/gone.db" if url.startswith("sqlite") else "postgresql://shop@127.0.0.1:1/shop"
    async with store(gone) as opened:
        with pytest.raises(OutboxUnavailable, match="BELLWIRE_OUTBOX_URL"):
            await opened.claim()
    assert not (tmp_path / "gone.db").exists()
