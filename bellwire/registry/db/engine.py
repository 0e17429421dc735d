"""The engine: how connections are made, how a transaction begins on each database, and what their failures mean."""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import cache
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import asyncpg
from sqlalchemy import URL, Connection, CursorResult, Executable, Insert, Table, create_engine, event, make_url
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
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bellwire.errors import NotSetUp, RegistryUnavailable
from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.sealed import give_ring

#: Seconds that a writer waits for another process to end its transaction on SQLite. Transactions take milliseconds.
SQLITE_BUSY = 30.0
#: One for the writer and one for readers. SQLite gives the interpreter's lock back at each row, and more threads would pass
#: it among themselves.
SQLITE_THREADS = 2
#: Seconds to connect to PostgreSQL, for one statement there, and for a connection of the pool to become free.
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 60.0
POOL_TIMEOUT = 30.0
#: Seconds after which PostgreSQL rolls back a transaction whose program is silent: frozen, or cut off. Fewer than its heartbeats
#: may be late, so that the locks are gone when another worker is given its work.
SILENT_TIMEOUT = 10.0

_DRIVERS = {
    "sqlite": "sqlite",
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

P = ParamSpec("P")
T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class Database(ABC):
    """A pool of connections to one database. Raises RegistryUnavailable and NotSetUp for the drivers' exceptions.

    Work is a coroutine function that takes a connection first, and awaits nothing else.
    """

    def __init__(self, url: URL) -> None:
        self._url = url

    @staticmethod
    def at(url: str, *, pool: int, ring: KeyRing | None = None) -> "Database":
        """The database at `url`, not connected yet; `pool` is for PostgreSQL. Sealed columns are encrypted by `ring`."""
        full = _parsed(url)
        return _File(full, ring) if full.get_backend_name() == "sqlite" else _Server(full, pool, ring)

    async def read(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the work comes to: one statement, or a few that need no common snapshot."""
        async with self._translated():
            return await self._read(lambda connection: work(connection, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the work comes to, as one transaction, rolled back if it fails."""
        async with self._translated():
            return await self._write(lambda connection: work(connection, *args, **kwargs))

    @abstractmethod
    async def _read(self, work: Callable[[AsyncConnection], Work[T]]) -> T: ...

    @abstractmethod
    async def _write(self, work: Callable[[AsyncConnection], Work[T]]) -> T: ...

    @abstractmethod
    async def close(self) -> None: ...

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
        url = self._url.render_as_string(hide_password=True)
        said = (str(cause).splitlines() or [""])[0] or type(cause).__name__
        return RegistryUnavailable(
            f"{_REMEDIES.get(_code(cause), RegistryUnavailable.__doc__)} It is {url} and said: {said}"
        )


class _Server(Database):
    """PostgreSQL."""

    def __init__(self, url: URL, pool: int, ring: KeyRing | None) -> None:
        super().__init__(url)
        arguments = {
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": STATEMENT_TIMEOUT,
            "server_settings": {
                "application_name": "bellwire",
                "jit": "off",
                "idle_in_transaction_session_timeout": f"{SILENT_TIMEOUT * 1000:.0f}",
            },
        }
        self._engine = create_async_engine(
            url, connect_args=arguments, hide_parameters=True, pool_size=pool, max_overflow=0, pool_timeout=POOL_TIMEOUT
        )
        give_ring(self._engine.dialect, ring)
        # Without BEGIN and ROLLBACK around each read.
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def _read(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        async with self._reader.connect() as connection:
            return await work(connection)

    async def _write(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        async with self._engine.begin() as connection:
            return await work(connection)

    async def close(self) -> None:
        await self._engine.dispose()


class _File(Database):
    """SQLite. All of a transaction happens in one thread, at one go.

    The asynchronous driver would go to a thread and back four times for each statement, which costs several times what
    SQLite itself does. A transaction goes on to its end though the task that waits for it is cancelled.
    """

    def __init__(self, url: URL, ring: KeyRing | None) -> None:
        super().__init__(url)
        self._engine = create_engine(
            url, connect_args={"timeout": SQLITE_BUSY}, hide_parameters=True, pool_size=SQLITE_THREADS, max_overflow=0
        )
        give_ring(self._engine.dialect, ring)
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._threads = ThreadPoolExecutor(SQLITE_THREADS, "registry")
        # SQLite lets one writer in at a time and polls for its turn; tasks of one process queue here, in order.
        self._turn = asyncio.Lock()

    async def _read(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        return await self._in_thread(self._engine.connect, work)

    async def _write(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        async with self._turn:
            return await self._in_thread(self._writer.begin, work)

    async def _in_thread(
        self, opened: Callable[[], AbstractContextManager[Connection]], work: Callable[[AsyncConnection], Work[T]]
    ) -> T:
        def run() -> T:
            with opened() as connection:
                return _at_one_go(work(cast(AsyncConnection, _Direct(connection))))

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()


class _Direct:
    """A connection with the face of an asynchronous one that never waits, since it has a thread for itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(statement, parameters)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        return work(self._connection)


def _at_one_go(work: Work[T]) -> T:
    """What a coroutine comes to that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        work.close()
    raise RuntimeError("work on the registry awaited something else than its connection")


def insert_missing(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that leaves rows alone whose primary key exists already; one statement for each table."""
    return _insert_missing(connection.dialect.name, table)


@cache
def _insert_missing(database: str, table: Table) -> Insert:
    insert = sqlite.insert if database == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


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
