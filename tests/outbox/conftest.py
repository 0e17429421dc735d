"""The database of a service, on SQLite and on PostgreSQL, with the table of the outbox."""

import sqlite3
from pathlib import Path

import asyncpg
import pytest

from bellwire.outbox import create_table, create_table_async
from tests.registry.conftest import postgres, postgres_server, url

__all__ = ["postgres", "postgres_server", "url"]


@pytest.fixture
async def outbox_url(url: str) -> str:
    """URL of a database with an empty outbox."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        create_table(connection)
        connection.commit()
        connection.close()
    else:
        server = await asyncpg.connect(url)
        await create_table_async(server)
        await server.close()
    return url


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """A file of SQLite with an empty outbox."""
    file = tmp_path / "shop.db"
    connection = sqlite3.connect(file)
    create_table(connection)
    connection.commit()
    connection.close()
    return file
