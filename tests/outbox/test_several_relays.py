"""Several relays of one outbox: on PostgreSQL they divide it, on SQLite one works."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import asyncpg
import pytest

from bellwire import Event
from bellwire.outbox import create_table_async
from bellwire.registry import Registry
from starter.relay import postgres as postgres_outbox
from starter.relay.opening import open_outbox
from starter.relay.postgres import PostgresOutbox
from starter.relay.store import OutboxUnavailable
from tests.outbox.test_relay import Publisher, add, backlog, by_subject, numbered, platform, relay_of, store

__all__ = ["platform"]

pytestmark = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


async def shares(*stores: PostgresOutbox) -> list[int]:
    """Partitions of each, once they look at how many they are."""
    for each in stores:
        each._balance_at = 0
        await each.claim()
    return [len(each._partitions) for each in stores]


@asynccontextmanager
async def several(url: str, number: int) -> AsyncIterator[list[PostgresOutbox]]:
    async with AsyncExitStack() as cleanup:
        yield [cast(PostgresOutbox, await cleanup.enter_async_context(store(url))) for _ in range(number)]


async def test_relays_have_equal_shares_when_others_come_and_go(outbox_url: str) -> None:
    async with several(outbox_url, 3) as (first, second, third):
        assert await shares(first) == [16]
        await second.claim()
        assert await shares(first, second) == [8, 8]
        await third.claim()
        assert await shares(first, second, third) == [6, 6, 4]
        assert sorted(first._partitions | second._partitions | third._partitions) == list(range(16))
        await first.close()
        await shares(second, third)
        assert await shares(second, third) == [8, 8]
        assert second._partitions.isdisjoint(third._partitions)


async def test_rows_are_read_by_one_relay_only(outbox_url: str) -> None:
    await add(outbox_url, *numbered(200, subjects=50))
    async with several(outbox_url, 2) as (first, second):
        for _ in range(2):
            await shares(first, second)
        own = [{row.id for row in await each.waiting(1_000)} for each in (first, second)]
        orders = [{row.order for row in await each.waiting(1_000)} for each in (first, second)]
    assert own[0].isdisjoint(own[1])
    assert len(own[0] | own[1]) == 200
    assert orders[0].isdisjoint(orders[1])


async def test_the_partitions_of_a_lost_connection_are_taken_over(outbox_url: str) -> None:
    await add(outbox_url, *numbered(10))
    async with several(outbox_url, 2) as (first, second):
        assert await shares(first) == [16]
        server = await asyncpg.connect(outbox_url)
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bellwire relay' "
            "AND datname = current_database()"
        )
        async with asyncio.timeout(20):
            while (await shares(second)) != [16]:
                await asyncio.sleep(0.01)
        assert len(await second.waiting(100)) == 10
        with pytest.raises(OutboxUnavailable):
            await first.settle([1], {})
        await server.close()
        await first.claim()
        assert await shares(second, first) == [8, 8]


async def test_a_frozen_relay_loses_its_partitions(outbox_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_outbox, "IDLE_TIMEOUT", 1.0)
    async with several(outbox_url, 2) as (frozen, other):
        assert await shares(frozen) == [16]
        async with asyncio.timeout(20):
            while (await shares(other)) != [16]:
                await asyncio.sleep(0.05)


async def test_several_relays_publish_each_event_once_and_in_order(outbox_url: str, platform: Registry) -> None:
    """One of them is there from the start, others come and go while events are inserted."""
    publisher, events, stop = Publisher(), list[Event](), asyncio.Event()
    async with several(outbox_url, 3) as stores, asyncio.timeout(60), asyncio.TaskGroup() as running:
        relays = [relay_of(each, publisher, platform, batch=20) for each in stores]
        ends = [asyncio.Event(), asyncio.Event(), stop]
        for relay, end, own in zip(relays, ends, stores, strict=True):
            tasks = [running.create_task(relay.run(end))]
            for _ in range(10):
                new = numbered(30, subjects=11, first=len(events))
                events += new
                await add(outbox_url, *new)
            if end is not stop:
                end.set()
                await tasks[0]
                await own.close()
        while await backlog(outbox_url) != (0, 0):
            await asyncio.sleep(0.05)
        stop.set()
    published = [event for publication in publisher.publications for event in publication]
    assert by_subject(published) == by_subject(events)


async def test_outboxes_of_two_schemas_of_a_database_do_not_share_locks(outbox_url: str) -> None:
    server = await asyncpg.connect(outbox_url)
    await server.execute("CREATE SCHEMA other")
    await server.execute("SET search_path = other")
    await create_table_async(server)
    await server.close()
    async with several(outbox_url, 1) as (first,), store(f"{outbox_url}&options=-c%20search_path%3Dother") as other:
        assert await shares(first, cast(PostgresOutbox, other)) == [16, 16]


async def test_on_sqlite_one_relay_works_and_another_stands_by(sqlite_file: Path, url: str) -> None:
    first, second = open_outbox(f"sqlite:///{sqlite_file}"), open_outbox(f"sqlite:///{sqlite_file}")
    assert await first.claim()
    assert not await second.claim()
    assert await first.claim()
    await first.close()
    assert await second.claim()
    await second.close()
