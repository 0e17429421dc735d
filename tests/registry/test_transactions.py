"""Transactions on SQLite, each in one thread: work that awaits something else, failures and cancels."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database
from tests.registry.conftest import execute_sql

Work = Callable[[AsyncConnection], Coroutine[Any, Any, None]]


@pytest.fixture(params=[1, 2])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A file with one table, and one or two connections to it."""
    opened = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=request.param)
    await execute_sql(opened, "CREATE TABLE notes (text TEXT)")
    yield opened
    await opened.close()


async def notes(database: Database) -> list[str]:
    async def read(connection: AsyncConnection) -> list[str]:
        return [row.text for row in await connection.execute(text("SELECT text FROM notes ORDER BY rowid"))]

    return await asyncio.wait_for(database.read(read), 60)


async def insert(connection: AsyncConnection, *texts: str) -> None:
    for value in texts:
        await connection.execute(text("INSERT INTO notes VALUES (:text)"), {"text": value})


async def test_work_that_awaits_something_else_fails_and_is_rolled_back(database: Database) -> None:
    loop = asyncio.get_running_loop()

    async def wait_forever(connection: AsyncConnection) -> None:
        await insert(connection, "half")
        await loop.create_future()

    async def suspend(connection: AsyncConnection) -> None:
        await insert(connection, "half")
        await asyncio.sleep(0)

    for work in (wait_forever, suspend):
        with pytest.raises(RuntimeError, match="must await nothing but its connection"):
            await asyncio.wait_for(database.write(work), 60)
    await asyncio.wait_for(database.write(insert, "whole"), 60)
    assert await notes(database) == ["whole"], "it was rolled back and holds no lock"


async def test_a_read_that_awaits_something_else_returns_its_connection(database: Database) -> None:
    async def suspend(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT text FROM notes"))
        await asyncio.sleep(0)

    for _ in range(3):
        with pytest.raises(RuntimeError, match="must await nothing but its connection"):
            await asyncio.wait_for(database.read(suspend), 60)
    await asyncio.wait_for(database.write(insert, "whole"), 60)
    assert await notes(database) == ["whole"]


async def test_failed_work_is_rolled_back_and_holds_no_lock(database: Database) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await insert(connection, "half")
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await database.write(fail)
    await asyncio.wait_for(database.write(insert, "whole"), 60)
    assert await notes(database) == ["whole"]


@pytest.fixture
def held() -> tuple[threading.Event, threading.Event]:
    """Two events: a transaction has started; it may end."""
    return threading.Event(), threading.Event()


def holding(started: threading.Event, go_on: threading.Event, text: str) -> Work:
    async def work(connection: AsyncConnection) -> None:
        await insert(connection, text)
        started.set()
        assert go_on.wait(60)

    return work


async def test_a_cancelled_write_runs_to_its_end_and_the_next_one_follows(
    database: Database, held: tuple[threading.Event, threading.Event]
) -> None:
    started, go_on = held
    first = asyncio.create_task(database.write(holding(started, go_on, "first")))
    assert await asyncio.to_thread(started.wait, 60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(database.write(insert, "second"))
    await asyncio.wait([second], timeout=0.05)
    assert not second.done(), "one transaction writes at a time"
    go_on.set()
    await asyncio.wait_for(second, 60)
    assert await notes(database) == ["first", "second"]


async def test_a_write_that_is_cancelled_while_it_waits_writes_nothing_and_blocks_nothing(
    database: Database, held: tuple[threading.Event, threading.Event]
) -> None:
    started, go_on = held
    first = asyncio.create_task(database.write(holding(started, go_on, "first")))
    assert await asyncio.to_thread(started.wait, 60)
    second, third = (asyncio.create_task(database.write(insert, text)) for text in ("second", "third"))
    await asyncio.wait([second, third], timeout=0.02)
    second.cancel()
    go_on.set()
    await asyncio.wait_for(asyncio.gather(first, third), 60)
    assert second.cancelled()
    assert await notes(database) == ["first", "third"]
