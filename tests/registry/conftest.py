"""A registry on each database: a file of SQLite, and a database of its own on one real PostgreSQL for all tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from starter.local.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running PostgreSQL, whose databases are lost with it."""
    with running_postgres(in_memory=True) as running:
        yield running


@pytest.fixture(scope="session")
def postgres(postgres_server: Postgres) -> str:
    """URL of its own database: postgresql://…?host=… with a Unix socket."""
    return postgres_server.uri


async def execute_sql(database: Database, *statements: str) -> None:
    """Execute SQL statements in one transaction."""

    async def execute(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.exec_driver_sql(statement)

    await database.write(execute)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/registry.db"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    name = await server.create_database()
    yield server.url(name)
    await server.drop_database(name)


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
