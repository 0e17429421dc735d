"""The outbox in PostgreSQL. Relays divide its partitions among themselves by advisory locks, which end with their connection."""

import math
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
import structlog

from bellwire.outbox.schema import PARTITION, PARTITIONS
from starter.relay.store import (
    MAX_READ_BYTES,
    MAX_SHOWN,
    Backlog,
    OutboxStore,
    OutboxUnavailable,
    RefusedRow,
    WaitingRow,
)

log = structlog.get_logger("bellwire")

#: Seconds to connect, and for one statement.
CONNECT_TIMEOUT, STATEMENT_TIMEOUT = 10.0, 60.0
#: Seconds after which the server closes the connection of a relay that says nothing, since it is frozen or its machine is gone.
#: Others then take its partitions. Servers before 14 do not do that.
IDLE_TIMEOUT = 30.0
#: Seconds between two looks at how many relays there are.
BALANCE_SECONDS = 1.0
#: The lock that every relay shares, by which they are counted. The others are numbers of partitions.
MEMBER = PARTITIONS

#: All partitions: by the primary key.
_READ_ALL = """
    SELECT id, event_id, COALESCE(subject, event_id) AS position, event, deliver_at FROM bellwire_outbox
    WHERE refused_at IS NULL ORDER BY id LIMIT $1
"""
#: Some partitions: the oldest rows of each, by the index.
_READ_SOME = f"""
    SELECT found.id, found.event_id, COALESCE(found.subject, found.event_id) AS position, found.event, found.deliver_at
    FROM unnest($2::int[]) AS own (number)
    CROSS JOIN LATERAL (
        SELECT id, subject, event_id, event, deliver_at FROM bellwire_outbox
        WHERE refused_at IS NULL AND {PARTITION} = own.number ORDER BY id LIMIT $3
    ) AS found
    ORDER BY found.id LIMIT $1
"""  # noqa: S608 - constants
_BACKLOG = """
    SELECT count(*) FILTER (WHERE refused_at IS NULL) AS waiting,
        EXTRACT(EPOCH FROM now() - min(created_at) FILTER (WHERE refused_at IS NULL))::float8 AS oldest,
        count(*) FILTER (WHERE refused_at IS NOT NULL) AS refused
    FROM bellwire_outbox
"""
_REFUSED = """
    SELECT id, source, event_id, error, refused_at FROM bellwire_outbox WHERE refused_at IS NOT NULL ORDER BY id LIMIT $1
"""
_MEMBERS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = 'bellwire_outbox'::regclass AND objid = $1 AND objsubid = 2 AND granted
"""
#: Locks are of this table: another outbox in another schema of the database has its own. An oid is unsigned, a key is not.
_KEY = "('bellwire_outbox'::regclass::oid::int8 - CASE WHEN 'bellwire_outbox'::regclass::oid::int8 >= 2147483648 THEN 4294967296 ELSE 0 END)::int4"  # noqa: E501


class PostgresOutbox(OutboxStore):
    def __init__(self, url: str) -> None:
        """`url`: postgresql://USER:PASSWORD@HOST/NAME, of the server itself: a pooler of transactions loses the locks."""
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._partitions = set[int]()
        self._balance_at = 0.0

    async def claim(self) -> bool:
        async with self._translated():
            if self._connection is None:
                self._connection = await self._connect()
                self._balance_at = 0.0
                await self._connection.execute(f"SELECT pg_advisory_lock_shared({_KEY}, {MEMBER})")
            if time.monotonic() >= self._balance_at:
                await self._balance(self._connection)
                self._balance_at = time.monotonic() + BALANCE_SECONDS
        return bool(self._partitions)

    async def waiting(self, limit: int) -> Sequence[WaitingRow]:
        own, rows, size = sorted(self._partitions), list[WaitingRow](), 0
        arguments: tuple[object, ...]
        if len(own) == PARTITIONS:
            query, arguments = _READ_ALL, (limit,)
        else:
            query, arguments = _READ_SOME, (limit, own, math.ceil(2 * limit / len(own)))
        async with self._used() as connection, connection.transaction(readonly=True):
            async for row in connection.cursor(query, *arguments, prefetch=100):
                rows.append(WaitingRow(*row))
                size += len(row["event"])
                if size > MAX_READ_BYTES:
                    break
        return rows

    async def settle(self, published: Sequence[int], refused: Mapping[int, str]) -> None:
        async with self._used() as connection, connection.transaction():
            if refused:
                await connection.executemany(
                    "UPDATE bellwire_outbox SET refused_at = now(), error = $2 WHERE id = $1", list(refused.items())
                )
            await connection.execute("DELETE FROM bellwire_outbox WHERE id = ANY($1::bigint[])", published)

    async def backlog(self) -> Backlog:
        async with self._used() as connection:
            row = await connection.fetchrow(_BACKLOG)
        return Backlog(row["waiting"], max(row["oldest"] or 0.0, 0.0), row["refused"])

    async def refused(self) -> Sequence[RefusedRow]:
        async with self._used() as connection:
            return [RefusedRow(*row) for row in await connection.fetch(_REFUSED, MAX_SHOWN)]

    async def retry_refused(self) -> int:
        async with self._used() as connection:
            done: str = await connection.execute(
                "UPDATE bellwire_outbox SET refused_at = NULL, error = NULL WHERE refused_at IS NOT NULL"
            )
        return int(done.rpartition(" ")[2])

    async def keep_alive(self) -> None:
        async with self._used() as connection:
            await connection.execute("SELECT 1")

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._connection.close(timeout=CONNECT_TIMEOUT)
        self._connection = None
        self._partitions.clear()

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings={"application_name": "bellwire relay", "jit": "off"},
        )
        try:
            if connection.get_server_version().major >= 14:
                await connection.execute(f"SET idle_session_timeout = '{IDLE_TIMEOUT:.0f}s'")
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _balance(self, connection: asyncpg.Connection) -> None:
        """Hold as many partitions as the other relays do: give some up if others need them, take free ones if not."""
        before = set(self._partitions)
        share = math.ceil(PARTITIONS / max(1, await connection.fetchval(_MEMBERS, MEMBER)))
        for partition in sorted(self._partitions)[share:]:
            await connection.execute(f"SELECT pg_advisory_unlock({_KEY}, $1)", partition)
            self._partitions.discard(partition)
        # Relays that start together should not try for the same ones.
        first = secrets.randbelow(PARTITIONS)
        for number in range(PARTITIONS):
            partition = (first + number) % PARTITIONS
            if len(self._partitions) >= share or partition in self._partitions:
                continue
            if await connection.fetchval(f"SELECT pg_try_advisory_lock({_KEY}, $1)", partition):
                self._partitions.add(partition)
        if self._partitions != before:
            log.info("outbox.partitions_changed", partitions=len(self._partitions), of=PARTITIONS)

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._translated():
            if self._connection is None:
                self._connection = await self._connect()
            yield self._connection

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Translate errors. The connection is dropped, and its locks with it."""
        try:
            yield
        except asyncpg.UndefinedTableError as error:
            self._drop()
            raise OutboxUnavailable(
                "the outbox database has no table bellwire_outbox", remedy="create it with bellwire.outbox.create_table"
            ) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._drop()
            reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            raise OutboxUnavailable(f"{OutboxUnavailable.__doc__} {reason}") from error
        except BaseException:
            self._drop()  # a cancelled statement may still run
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._partitions.clear()
