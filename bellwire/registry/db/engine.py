"""Database: connections, transactions and errors of SQLite and PostgreSQL."""

import asyncio
import os
import socket
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg
from pydantic_core import PydanticSerializationError
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

from bellwire.errors import NotSetUp, NotStorable, RegistryUnavailable
from bellwire.formats.storable import storable
from bellwire.keys.keyring import KeyRing
from bellwire.registry.db import auditing
from bellwire.registry.db.sealed import give_ring

#: Seconds that a writer on SQLite waits for another process's transaction. Transactions take milliseconds.
SQLITE_BUSY = 30.0
#: One for the writer and one for readers. SQLite releases the interpreter's lock at each row, so more threads would only
#: contend for it.
SQLITE_THREADS = 2
#: Seconds to connect to PostgreSQL, for one statement there, and for a connection of the pool to become free.
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 60.0
POOL_TIMEOUT = 30.0
#: Seconds after which PostgreSQL rolls back an idle transaction, whose process is frozen or disconnected. Less than the
#: heartbeat timeout of activities, so that the locks are released when another worker takes over.
IDLE_TIMEOUT = 10.0

_DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
#: SQLSTATEs: undefined table, undefined column.
_UNDEFINED = {"42P01", "42703"}
#: Classes of SQLSTATEs for a value that the server refuses: data exception, program limit exceeded.
_REFUSED = ("22", "54")
#: Longest detail of a driver that a message contains, in characters.
_MAX_DETAIL = 200
_FULL = "The registry's disk is full; free some space. Deliveries continue once there is space."
#: Messages for failures of a reachable database, by SQLSTATE or by SQLite's primary result code.
_REMEDIES: dict[object, str] = {
    "53100": _FULL,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: (
        "I/O error on the registry's disk; check whether it is full, over quota or broken. Deliveries continue once it is fixed."
    ),
    sqlite3.SQLITE_READONLY: "The registry's file is read-only; give the worker's user write permission on it and its folder.",
}
#: What errors of connecting mean.
_CAUSES: dict[type[BaseException], str] = {
    ConnectionRefusedError: "connection refused",
    TimeoutError: f"no response within {CONNECT_TIMEOUT:g} s",
    socket.gaierror: "the host name cannot be resolved",
}
#: The execution option of connections whose transactions write.
_WRITES = "bellwire_writes"

P = ParamSpec("P")
T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class Database(ABC):
    """A pool of connections to one database. Translates the drivers' exceptions to RegistryUnavailable, NotSetUp and NotStorable.

    `work` is a coroutine function whose first argument is a connection, and which awaits nothing but that connection.
    """

    def __init__(self, url: URL) -> None:
        self._url = url

    @staticmethod
    def at(url: str, *, pool: int, ring: KeyRing | None = None) -> "Database":
        """Return the database at `url`, not connected yet. `pool`: connections to PostgreSQL. `ring` encrypts Sealed columns."""
        try:
            full = database_url(url)
        except ValueError as error:
            raise RegistryUnavailable(f"BELLWIRE_REGISTRY_URL: {error}") from error
        return _Sqlite(full, ring) if full.get_backend_name() == "sqlite" else _PostgreSql(full, pool, ring)

    async def read(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run work that reads: one statement, or several that need no common snapshot."""
        async with self._translated():
            return await self._read(lambda connection: work(connection, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run work as one transaction, which is rolled back if it fails. It also stores the audit entries of the change."""
        entries = auditing.take()

        async def transaction(connection: AsyncConnection) -> T:
            result = await work(connection, *args, **kwargs)
            if result is not False:
                await auditing.add(connection, entries)
            return result

        async with self._translated():
            return await self._write(transaction)

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
                f"No connection to the registry became free within {POOL_TIMEOUT:.0f} s; increase BELLWIRE_REGISTRY_POOL."
            ) from error
        except DBAPIError as error:
            if _misses_schema(error):
                raise NotSetUp from error
            if _refuses_value(error):
                raise NotStorable from error
            if isinstance(error, IntegrityError | ProgrammingError | NotSupportedError):
                raise  # the database is up: a statement is wrong
            raise self._unavailable(error.orig or error) from error
        except (UnicodeEncodeError, OverflowError, PydanticSerializationError) as error:
            # Raised before the statement is executed: by SQLite's driver, and where models become JSON.
            raise NotStorable from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # SQLAlchemy does not wrap errors of connecting.
            raise self._unavailable(error) from error

    def _unavailable(self, cause: BaseException) -> RegistryUnavailable:
        url = self._url.render_as_string(hide_password=True)
        known = next((text for kind, text in _CAUSES.items() if isinstance(cause, kind)), None)
        said = storable((str(cause).splitlines() or [""])[0], limit=_MAX_DETAIL)
        detail = known or said or type(cause).__name__
        return RegistryUnavailable(f"{_REMEDIES.get(_code(cause), RegistryUnavailable.__doc__)} {url}: {detail}")


class _PostgreSql(Database):
    """PostgreSQL."""

    def __init__(self, url: URL, pool: int, ring: KeyRing | None) -> None:
        super().__init__(url)
        arguments = {
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": STATEMENT_TIMEOUT,
            "server_settings": {
                "application_name": "bellwire",
                "jit": "off",
                "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT * 1000:.0f}",
            },
        }
        self._engine = create_async_engine(
            url, connect_args=arguments, hide_parameters=True, pool_size=pool, max_overflow=0, pool_timeout=POOL_TIMEOUT
        )
        give_ring(self._engine.dialect, ring)
        # Saves BEGIN and ROLLBACK around each read.
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def _read(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        async with self._reader.connect() as connection:
            return await work(connection)

    async def _write(self, work: Callable[[AsyncConnection], Work[T]]) -> T:
        async with self._engine.begin() as connection:
            return await work(connection)

    async def close(self) -> None:
        await self._engine.dispose()


class _Sqlite(Database):
    """SQLite. A whole transaction runs in one thread, without switching.

    The asynchronous driver switches to a thread and back four times for each statement, which costs several times what
    SQLite itself does. A transaction runs to its end even if the task that waits for it is cancelled.
    """

    def __init__(self, url: URL, ring: KeyRing | None) -> None:
        super().__init__(url)
        self._engine = create_engine(
            url, connect_args={"timeout": SQLITE_BUSY}, hide_parameters=True, pool_size=SQLITE_THREADS, max_overflow=0
        )
        give_ring(self._engine.dialect, ring)
        event.listen(self._engine, "do_connect", _create_private_file)
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._threads = ThreadPoolExecutor(SQLITE_THREADS, "registry")
        # SQLite allows one writer at a time, and waiting for it is polling; tasks of one process queue here, in order.
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
                return _run_without_suspending(work(cast(AsyncConnection, _Direct(connection))))

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()


class _Direct:
    """A synchronous connection with the interface of an asynchronous one; it never suspends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(statement, parameters)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        return work(self._connection)


def _run_without_suspending(work: Work[T]) -> T:
    """Return the result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        work.close()
    raise RuntimeError("registry work must await nothing but its connection")


def insert_missing(connection: AsyncConnection, table: Table) -> Insert:
    """Return an INSERT that skips rows whose primary key exists; always the same statement for a table."""
    return _insert_missing(connection.dialect.name, table)


@cache
def _insert_missing(database: str, table: Table) -> Insert:
    insert = sqlite.insert if database == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def database_url(text: str) -> URL:
    """Parse the URL of a registry and set its driver. Raises ValueError."""
    try:
        parsed = make_url(text)
        url = parsed.set(drivername=_DRIVERS[parsed.drivername])
    except (ArgumentError, KeyError, ValueError) as error:
        raise ValueError("must start with sqlite:/// or postgresql://, such as sqlite:///bellwire.db") from error
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("must name a file, since an in-memory SQLite database cannot be shared")
    return url


def missing_file(text: str) -> Path | None:
    """The file of a registry on SQLite that does not exist yet; to connect would make an empty one. None for any other URL."""
    try:
        url = database_url(text)
    except ValueError:
        return None  # connecting says what is wrong
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return None
    file = Path(url.database).absolute()
    return None if file.exists() else file


def _code(error: BaseException) -> object:
    """Return the SQLSTATE or SQLite's primary result code; None if it has neither."""
    code = getattr(error, "sqlite_errorcode", None)
    return getattr(error, "sqlstate", None) if code is None else code & 0xFF


def _misses_schema(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _UNDEFINED:
        return True
    return str(error.orig).startswith(("no such table", "no such column"))


def _refuses_value(error: DBAPIError) -> bool:
    """Whether the server refuses a value of the statement, or the driver cannot encode it. The database is up."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state.startswith(_REFUSED)
    # The PostgreSQL driver's errors about arguments are ValueErrors.
    return isinstance(error, DataError) or isinstance(getattr(error.orig, "__cause__", None), ValueError)


def _create_private_file(_dialect: object, _record: object, arguments: list[str], _options: object) -> None:
    """Create a missing database for its owner only. SQLite gives its journal files the mode of the database.

    One that exists is not opened: to close any descriptor of a file releases all locks that this process holds on it. Another
    process would then delete the journal that this one writes to, and all further writes would be lost.
    """
    path = urlsplit(arguments[0]).path if arguments[0].startswith("file:") else arguments[0]
    with suppress(OSError):  # it exists, or SQLite says what is wrong
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Keep the driver from beginning transactions itself; _begin_sqlite does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Lock for writing at once: a transaction that reads first and writes later fails if another writes in between."""
    if connection.get_execution_options().get(_WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
