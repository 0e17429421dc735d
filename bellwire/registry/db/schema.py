"""Migrates the schema and checks its revision."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import NotSetUp

#: The advisory lock that a migrating process holds on PostgreSQL. An arbitrary number that must never change.
_LOCK = 0x62656C6C


async def ping(connection: AsyncConnection) -> None:
    await connection.execute(select(1))


async def migrate(connection: AsyncConnection) -> None:
    """Upgrade to the newest revision in the transaction of `connection`. Concurrent processes wait for each other."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    try:
        await connection.run_sync(_upgrade)
    except CommandError as error:
        raise NotSetUp(
            "The registry schema is newer than this version of Bellwire; install the version that created it."
        ) from error


async def check(connection: AsyncConnection) -> None:
    """Raise NotSetUp unless the schema is at the newest revision."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    current = await connection.run_sync(lambda inner: MigrationContext.configure(inner).get_current_revision())
    if current != newest:
        found = (
            f"The registry schema is at {current}, this version needs {newest}."
            if current
            else "The registry is empty."
        )
        raise NotSetUp(f"{NotSetUp.__doc__} {found}")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
