"""The engine: how connections are made, how a transaction begins on each database, and what their failures mean."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self

import asyncpg
from sqlalchemy import URL, Connection, Insert, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bellwire.errors import NotSetUp, RegistryUnavailable

#: Seconds that a writer waits for another process to end its transaction on SQLite. Transactions take milliseconds.
SQLITE_BUSY = 30.0
#: Seconds to connect to PostgreSQL, for one statement there, and for a connection of the pool to become free.
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 60.0
POOL_TIMEOUT = 30.0

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
#: SQLSTATEs of a table or a column that does not exist.
_NO_SUCH_THING = {"42P01", "42703"}
_FULL = "The registry's disk is full; free some space there, and the work goes on by itself."
#: What to do about failures of a database that is reached, by SQLSTATE and by SQLite's primary result code.
_REMEDIES: dict[object, str] = {
    "53100": _FULL,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: "The registry's disk fails: full, over its quota or broken; mend it, and the work goes on by itself.",
    sqlite3.SQLITE_READONLY: "The registry's file may not be written; let the worker's user write it and its folder.",
}
#: The mark of a connection whose transactions write.
_WRITES = "bellwire_writes"


class Database:
    """A pool of connections to one database. Raises RegistryUnavailable and NotSetUp for the drivers' exceptions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._writer = engine.execution_options(**{_WRITES: True})
        # A read is one statement or a few that need no common snapshot: no BEGIN and ROLLBACK around them.
        self._reader = engine if self._sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite lets one writer in at a time and polls for its turn; tasks of one process queue here, in order.
        self._turn = asyncio.Lock() if self._sqlite else nullcontext()

    @classmethod
    def at(cls, url: str, *, pool: int) -> Self:
        """The database at `url`, not connected yet, with at most `pool` connections."""
        full = _parsed(url)
        options: dict[str, Any] = {"pool_size": pool, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT}
        if full.get_backend_name() == "sqlite":
            engine = create_async_engine(full, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY}, **options)
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        else:
            arguments = {
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": STATEMENT_TIMEOUT,
                "server_settings": {"application_name": "bellwire", "jit": "off"},
            }
            engine = create_async_engine(full, hide_parameters=True, connect_args=arguments, **options)
        return cls(engine)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._translated(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block, rolled back if the block fails or is cancelled."""
        async with self._translated(), self._turn, self._writer.begin() as connection:
            yield connection

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise RegistryUnavailable(
                f"No connection to the registry became free within {POOL_TIMEOUT:.0f} s; raise BELLWIRE_REGISTRY_POOL."
            ) from error
        except DBAPIError as error:
            if _misses_schema(error):
                raise NotSetUp from error
            if isinstance(error, IntegrityError | DataError | ProgrammingError | NotSupportedError):
                raise  # the database runs and says that a statement of ours is wrong
            raise self._unavailable(error.orig or error) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # SQLAlchemy does not wrap what is raised while connecting.
            raise self._unavailable(error) from error

    def _unavailable(self, cause: BaseException) -> RegistryUnavailable:
        url = self._engine.url.render_as_string(hide_password=True)
        said = (str(cause).splitlines() or [""])[0] or type(cause).__name__
        return RegistryUnavailable(
            f"{_REMEDIES.get(_code(cause), RegistryUnavailable.__doc__)} It is {url} and said: {said}"
        )


def insert_missing(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that leaves rows alone whose primary key exists already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        full = parsed.set(drivername=_DRIVERS[parsed.drivername])
    except (ArgumentError, KeyError, ValueError) as error:
        raise RegistryUnavailable(
            "BELLWIRE_REGISTRY_URL: must start with sqlite:/// or postgresql://, such as sqlite:///bellwire.db"
        ) from error
    if full.get_backend_name() == "sqlite" and full.database in {None, "", ":memory:"}:
        raise RegistryUnavailable(
            "BELLWIRE_REGISTRY_URL: several connections share the registry, so SQLite needs a file"
        )
    return full


def _code(error: BaseException) -> object:
    """The SQLSTATE, or the primary of SQLite's result codes, whose higher bits say more; None if it has neither."""
    code = getattr(error, "sqlite_errorcode", None)
    return getattr(error, "sqlstate", None) if code is None else code & 0xFF


def _misses_schema(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _NO_SUCH_THING:
        return True
    return str(error.orig).startswith(("no such table", "no such column"))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, in its own manner; _begin_sqlite does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: one that read first and wrote later would fail if another wrote in between."""
    if connection.get_execution_options().get(_WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
