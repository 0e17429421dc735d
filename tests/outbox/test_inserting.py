"""Inserting into the outbox: by every kind of connection, in the service's own transaction."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from bellwire import Catalog, Event, EventInvalid, outbox
from bellwire.outbox.connections import with_style
from tests.registry.conftest import postgres, postgres_server
from tests.unit.test_catalog import event_type

__all__ = ["postgres", "postgres_server"]

#: A transaction: it is committed unless its body raises.
Transaction = Callable[[str], AbstractAsyncContextManager[Any]]


class Undo(Exception):
    """Rolls a transaction back."""


def order_paid(number: int = 1, **fields: Any) -> Event:
    content = {"source": "/shop", "id": f"order-{number}-paid", "type": "order.paid", "subject": f"order-{number}"}
    return Event.parse({"specversion": "1.0", **content, **fields})


@asynccontextmanager
async def by_sqlite3(url: str) -> AsyncIterator[Any]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        with connection:
            yield connection
    finally:
        connection.close()


@asynccontextmanager
async def by_psycopg(url: str) -> AsyncIterator[Any]:
    with psycopg.connect(url) as connection:
        yield connection


@asynccontextmanager
async def by_psycopg_async(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


@asynccontextmanager
async def by_asyncpg(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(url: str) -> AsyncIterator[Any]:
    pooled = asyncpg.create_pool(url, min_size=1, max_size=1)
    async with pooled as pool, pool.acquire() as connection, connection.transaction():
        yield connection


@contextmanager
def sync_engine(url: str) -> Iterator[Any]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def by_connection(url: str) -> AsyncIterator[Any]:
    with sync_engine(url) as engine, engine.begin() as connection:
        yield connection


@asynccontextmanager
async def by_session(url: str) -> AsyncIterator[Any]:
    with sync_engine(url) as engine, Session(engine) as session, session.begin():
        yield session


@asynccontextmanager
async def by_scoped_session(url: str) -> AsyncIterator[Any]:
    with sync_engine(url) as engine:
        session = scoped_session(sessionmaker(engine))
        try:
            with session.begin():
                yield session
        finally:
            session.remove()


@asynccontextmanager
async def by_async_connection(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def by_async_session(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    try:
        async with async_sessionmaker(engine)() as session, session.begin():
            yield session
    finally:
        await engine.dispose()


SYNC = [by_sqlite3, by_psycopg, by_connection, by_session, by_scoped_session]
ASYNC = [by_psycopg_async, by_asyncpg, by_asyncpg_pool, by_async_connection, by_async_session]
WITH_DATABASES = [
    *((opened, "sqlite") for opened in (by_sqlite3, by_connection, by_session, by_scoped_session)),
    *((opened, "postgresql") for opened in [*SYNC[1:], *ASYNC]),
]


@pytest.fixture(params=WITH_DATABASES, ids=lambda pair: f"{pair[0].__name__}-{pair[1]}")
def database(request: pytest.FixtureRequest) -> tuple[Transaction, str]:
    """A kind of connection, and the URL of a database without an outbox."""
    opened, name = request.param
    return opened, empty_database(request, name)


def empty_database(request: pytest.FixtureRequest, name: str) -> str:
    if name == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/shop.db"
    server: str = request.getfixturevalue("postgres")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS shop")
        connection.execute("CREATE DATABASE shop STRATEGY file_copy")
    return server.replace("/postgres?", "/shop?", 1)


async def create(opened: Transaction, url: str) -> None:
    async with opened(url) as connection:
        if opened in ASYNC:
            await outbox.create_table_async(connection)
        else:
            outbox.create_table(connection)


async def insert(opened: Transaction, connection: Any, *events: Event, **options: Any) -> None:
    if opened in ASYNC:
        await outbox.insert_async(connection, *events, **options)
    else:
        outbox.insert(connection, *events, **options)


def rows(url: str) -> list[Any]:
    query = "SELECT id, source, event_id, subject, tenant, event, created_at FROM bellwire_outbox ORDER BY id"
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
    with psycopg.connect(url) as server:
        return server.execute(query).fetchall()


async def test_events_are_rows_once_their_transaction_is_committed(database: tuple[Transaction, str]) -> None:
    opened, url = database
    await create(opened, url)
    await create(opened, url)  # again: nothing changes
    events = [order_paid(1, tenant="acme", data={"text": "ü ✓ :x %s ? $1"}), order_paid(2), order_paid(3, subject=None)]
    async with opened(url) as connection:
        await insert(opened, connection, *events)
        await insert(opened, connection)
    stored = rows(url)
    assert [row[1:5] for row in stored] == [
        ("/shop", "order-1-paid", "order-1", "acme"),
        ("/shop", "order-2-paid", "order-2", "default"),
        ("/shop", "order-3-paid", None, "default"),
    ]
    assert [Event.parse(row[5]) for row in stored] == events
    assert all(row[6] for row in stored)


async def test_a_transaction_that_is_rolled_back_leaves_nothing(database: tuple[Transaction, str]) -> None:
    opened, url = database
    await create(opened, url)
    inserted = False
    with suppress(Undo):
        async with opened(url) as connection:
            await insert(opened, connection, order_paid())
            inserted = True
            raise Undo
    assert inserted
    assert rows(url) == []


async def test_the_same_event_again_is_the_same_row(database: tuple[Transaction, str]) -> None:
    opened, url = database
    await create(opened, url)
    for _ in range(2):
        async with opened(url) as connection:
            await insert(opened, connection, order_paid(1), order_paid(2), order_paid(1))
    assert [row[2] for row in rows(url)] == ["order-1-paid", "order-2-paid"]


async def test_other_content_under_the_same_id_does_not_fail_the_transaction(
    database: tuple[Transaction, str],
) -> None:
    opened, url = database
    await create(opened, url)
    async with opened(url) as connection:
        await insert(opened, connection, order_paid(data={"total": 1}))
        await insert(opened, connection, order_paid(data={"total": 2}))
    assert [json.loads(row[5])["data"]["total"] for row in rows(url)] == [1, 2]


def test_the_catalog_refuses_before_anything_is_inserted(sqlite_file: Path) -> None:
    catalog = Catalog([event_type({"type": "object", "required": ["total"]})])
    with sqlite3.connect(sqlite_file) as connection:
        with pytest.raises(EventInvalid, match=r"events\[1\].*total"):
            outbox.insert(connection, order_paid(1, data={"total": 1}), order_paid(2, data={}), catalog=catalog)
        outbox.insert(connection, order_paid(1, data={"total": 1}), catalog=catalog)
    connection.close()
    assert len(rows(f"sqlite:///{sqlite_file}")) == 1


@pytest.mark.parametrize(
    "times", [{"delay": "2y"}, {"deliver_at": "2020-01-01T00:00:00Z"}, {"delay": 1, "deliver_at": "x"}]
)
def test_a_time_that_cannot_be_is_an_error(sqlite_file: Path, times: dict[str, Any]) -> None:
    with sqlite3.connect(sqlite_file) as connection, pytest.raises(EventInvalid, match=r"^(delay|deliver_at): "):
        outbox.insert(connection, order_paid(), **times)
    connection.close()


@pytest.mark.parametrize("wrong", [{"type": "order.paid"}, "order.paid", None, [order_paid()]])
def test_what_is_no_event_is_an_error(sqlite_file: Path, wrong: Any) -> None:
    with sqlite3.connect(sqlite_file) as connection, pytest.raises(TypeError, match=r"events\[0\].*not an Event"):
        outbox.insert(connection, wrong)
    connection.close()


async def test_what_is_no_connection_is_an_error() -> None:
    engine = create_engine("sqlite://")
    for wrong in ("sqlite:///shop.db", None, engine, sessionmaker(engine)):
        with pytest.raises(
            TypeError, match=r"connection: .* cannot be used; give a connection or session of SQLAlchemy"
        ):
            outbox.insert(wrong, order_paid())
        with pytest.raises(TypeError, match="connection: "):
            await outbox.insert_async(wrong, order_paid())


async def test_the_wrong_twin_names_the_right_one(sqlite_file: Path) -> None:
    with pytest.raises(TypeError, match=r"AsyncSession is asynchronous; write `await …_async\(connection, …\)`"):
        outbox.insert(AsyncSession(), order_paid())
    connection = sqlite3.connect(sqlite_file)
    with pytest.raises(TypeError, match=r"sqlite3\.Connection is not asynchronous; use the function without _async"):
        await outbox.insert_async(connection, order_paid())
    connection.close()


def test_a_subclass_of_a_session_is_a_session(sqlite_file: Path) -> None:
    class OwnSession(Session):
        pass

    with sync_engine(f"sqlite:///{sqlite_file}") as engine, OwnSession(engine) as session, session.begin():
        outbox.insert(session, order_paid())
    assert len(rows(f"sqlite:///{sqlite_file}")) == 1


def test_several_events_are_one_statement(sqlite_file: Path) -> None:
    with sync_engine(f"sqlite:///{sqlite_file}") as engine:
        statements: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        with engine.begin() as connection:
            outbox.insert(connection, *map(order_paid, range(50)))
            assert connection.execute(text("SELECT count(*) FROM bellwire_outbox")).scalar() == 50
    assert len(statements) == 2


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("qmark", "(?, ?) :: ?"),
        ("pyformat", "(%s, %s) :: %s"),
        ("numeric_dollar", "($1, $2) :: $1"),
        ("numeric", "(:1, :2) :: :1"),
        ("named", "(:a, :b_c) :: :a"),
    ],
)
def test_placeholders_are_those_of_the_driver(style: str, expected: str) -> None:
    assert with_style("(:a, :b_c) :: :a", style) == expected


def test_the_schema_is_text_for_migrations() -> None:
    assert outbox.SCHEMA.keys() == {"postgresql", "sqlite"}
    for statements in outbox.SCHEMA.values():
        assert all("IF NOT EXISTS" in statement for statement in statements)


def test_the_outbox_needs_no_library_of_databases() -> None:
    code = (
        "import sys, bellwire.outbox\n"
        "print(sorted({'sqlalchemy', 'asyncpg', 'psycopg', 'structlog', 'sqlite3'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
