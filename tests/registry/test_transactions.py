"""Transactions on SQLite, each at one go in a thread: what may not be awaited there, and what a cancel leaves behind."""

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
    await execute_sql(opened, "CREATE TABLE notes (said TEXT)")
    yield opened
    await opened.close()


async def said(database: Database) -> list[str]:
    async def read(connection: AsyncConnection) -> list[str]:
        return [row.said for row in await connection.execute(text("SELECT said FROM notes ORDER BY rowid"))]

    return await asyncio.wait_for(database.read(read), 10)


async def say(connection: AsyncConnection, *words: str) -> None:
    for word in words:
        await connection.execute(text("INSERT INTO notes VALUES (:said)"), {"said": word})


async def test_work_that_awaits_something_else_is_told_so_and_leaves_nothing_behind(database: Database) -> None:
    loop = asyncio.get_running_loop()

    async def wait_for_another(connection: AsyncConnection) -> None:
        await say(connection, "half")
        await loop.create_future()

    async def give_way(connection: AsyncConnection) -> None:
        await say(connection, "half")
        await asyncio.sleep(0)

    for work in (wait_for_another, give_way):
        with pytest.raises(RuntimeError, match="must await nothing but its connection"):
            await asyncio.wait_for(database.write(work), 10)
    await asyncio.wait_for(database.write(say, "whole"), 5)
    assert await said(database) == ["whole"], "nothing of it was written, and nobody holds a lock"


async def test_a_read_that_awaits_something_else_gives_its_connection_back(database: Database) -> None:
    async def give_way(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT said FROM notes"))
        await asyncio.sleep(0)

    for _ in range(3):
        with pytest.raises(RuntimeError, match="must await nothing but its connection"):
            await asyncio.wait_for(database.read(give_way), 10)
    await asyncio.wait_for(database.write(say, "whole"), 5)
    assert await said(database) == ["whole"]


async def test_work_that_fails_is_rolled_back_and_locks_nothing(database: Database) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await say(connection, "half")
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await database.write(fail)
    await asyncio.wait_for(database.write(say, "whole"), 5)
    assert await said(database) == ["whole"]


@pytest.fixture
def held() -> tuple[threading.Event, threading.Event]:
    """Set when a transaction has begun; to be set to let it end."""
    return threading.Event(), threading.Event()


def holding(begun: threading.Event, go_on: threading.Event, word: str) -> Work:
    async def work(connection: AsyncConnection) -> None:
        await say(connection, word)
        begun.set()
        assert go_on.wait(10)

    return work


async def test_a_write_that_is_cancelled_goes_on_to_its_end_and_the_next_one_follows(
    database: Database, held: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = held
    first = asyncio.create_task(database.write(holding(begun, go_on, "first")))
    assert await asyncio.to_thread(begun.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(database.write(say, "second"))
    await asyncio.wait([second], timeout=0.05)
    assert not second.done(), "one writes at a time"
    go_on.set()
    await asyncio.wait_for(second, 10)
    assert await said(database) == ["first", "second"]


async def test_a_write_that_is_cancelled_before_its_turn_writes_nothing_and_blocks_nobody(
    database: Database, held: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = held
    first = asyncio.create_task(database.write(holding(begun, go_on, "first")))
    assert await asyncio.to_thread(begun.wait, 10)
    second, third = (asyncio.create_task(database.write(say, word)) for word in ("second", "third"))
    await asyncio.wait([second, third], timeout=0.02)
    second.cancel()
    go_on.set()
    await asyncio.wait_for(asyncio.gather(first, third), 10)
    assert second.cancelled()
    assert await said(database) == ["first", "third"]
