"""The outbox in SQLite. One relay at a time has it, by a lock on a file beside the database; others stand by."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from starter.relay.store import (
    MAX_READ_BYTES,
    MAX_SHOWN,
    Backlog,
    OutboxStore,
    OutboxUnavailable,
    RefusedRow,
    WaitingRow,
)

#: Seconds that the relay waits for the service's transactions.
BUSY_TIMEOUT = 30.0
#: Ends the name of the lock's file.
LOCK_SUFFIX = ".relay-lock"

_READ = """
    SELECT id, event_id, COALESCE(subject, event_id), event, deliver_at FROM bellwire_outbox
    WHERE refused_at IS NULL ORDER BY id LIMIT ?
"""
_BACKLOG = """
    SELECT count(*) FILTER (WHERE refused_at IS NULL),
        (julianday('now') - julianday(min(created_at) FILTER (WHERE refused_at IS NULL))) * 86400,
        count(*) FILTER (WHERE refused_at IS NOT NULL)
    FROM bellwire_outbox
"""
_REFUSED = """
    SELECT id, source, event_id, error, refused_at FROM bellwire_outbox WHERE refused_at IS NOT NULL ORDER BY id LIMIT ?
"""
_REFUSE = "UPDATE bellwire_outbox SET refused_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), error = ? WHERE id = ?"

T = TypeVar("T")


class SqliteOutbox(OutboxStore):
    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None

    async def claim(self) -> bool:
        return await self._run(lambda _: self._locked())

    async def waiting(self, limit: int) -> Sequence[WaitingRow]:
        def read(connection: sqlite3.Connection) -> list[WaitingRow]:
            rows, size = list[WaitingRow](), 0
            cursor = connection.execute(_READ, (limit,))
            for row in cursor:
                rows.append(WaitingRow(*row))
                size += len(row[3])
                if size > MAX_READ_BYTES:
                    break
            cursor.close()  # a read that is not finished would keep the service from writing
            return rows

        return await self._run(read)

    async def settle(self, published: Sequence[int], refused: Mapping[int, str]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_REFUSE, [(error, row) for row, error in refused.items()])
            connection.executemany("DELETE FROM bellwire_outbox WHERE id = ?", [(row,) for row in published])
            connection.execute("COMMIT")

        await self._run(write)

    async def backlog(self) -> Backlog:
        waiting, oldest, refused = await self._run(lambda connection: connection.execute(_BACKLOG).fetchone())
        return Backlog(waiting, max(oldest or 0.0, 0.0), refused)

    async def refused(self) -> Sequence[RefusedRow]:
        rows = await self._run(lambda connection: connection.execute(_REFUSED, (MAX_SHOWN,)).fetchall())
        return [
            RefusedRow(row, source, event_id, error, datetime.fromisoformat(refused_at))
            for row, source, event_id, error, refused_at in rows
        ]

    async def retry_refused(self) -> int:
        return await self._run(
            lambda connection: (
                connection.execute(
                    "UPDATE bellwire_outbox SET refused_at = NULL, error = NULL WHERE refused_at IS NOT NULL"
                ).rowcount
            )
        )

    async def keep_alive(self) -> None:
        """The lock is held while the process lives."""

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> bool:
        if self._lock is None:
            lock = os.open(f"{self._file}{LOCK_SUFFIX}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                self._lock = lock
        return self._lock is not None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work in the store's thread, and translate errors."""

        def run() -> T:
            if self._connection is None:
                # A misspelt file must not be created.
                self._connection = sqlite3.connect(
                    f"file:{quote(str(self._file))}?mode=rw",
                    uri=True,
                    timeout=BUSY_TIMEOUT,
                    isolation_level=None,
                    check_same_thread=False,
                )
                # A text that is not UTF-8 must not keep all others from being read.
                self._connection.text_factory = lambda text: text.decode(errors="replace")
            return work(self._connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except (sqlite3.Error, OSError) as error:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
            if str(error).startswith("no such table"):
                raise OutboxUnavailable(
                    f"{self._file} has no table bellwire_outbox", remedy="create it with bellwire.outbox.create_table"
                ) from error
            raise OutboxUnavailable(f"{OutboxUnavailable.__doc__} {self._file}: {error}") from error

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
