"""Creating the schema, and checking that it is the one this version needs."""

import asyncio
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import NotSetUp
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import metadata
from tests.factories import event
from tests.registry.conftest import execute_sql

MIGRATE = """
import asyncio, sys
from bellwire.registry import Registry

async def main():
    registry = await Registry.open(sys.argv[1])
    await registry.migrate()
    await registry.check()
    await registry.close()

asyncio.run(main())
"""


async def test_without_tables_the_error_names_the_setup_command(url: str) -> None:
    registry = await Registry.open(url)
    with pytest.raises(NotSetUp, match=r"python -m starter setup.* The registry is empty"):
        await registry.check()
    for call in (registry.limits.by_channel(), registry.subscriptions.list(), registry.deliveries.list()):
        with pytest.raises(NotSetUp, match="python -m starter setup"):
            await call
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.events.accept([event()], "workflow")
    await registry.migrate()
    await registry.check()
    await registry.close()


async def test_migrating_again_changes_nothing(registry: Registry) -> None:
    await registry.events.accept([event(id="1")], "workflow")
    await registry.migrate()
    assert [found.event.id for found in await registry.events.list()] == ["1"]


@pytest.mark.slow
async def test_four_processes_may_migrate_at_once(url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, url, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    errors = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors


async def test_four_tasks_may_migrate_at_once(url: str) -> None:
    registry = await Registry.open(url)
    await asyncio.gather(*(registry.migrate() for _ in range(4)))
    await registry.check()
    await registry.close()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
    found: list[object] = compare_metadata(context, metadata)
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        columns = [column["name"] for column in inspector.get_columns(table.name)]
        if columns != [column.name for column in table.c]:
            found.append(("columns", table.name))
        indexes = {item["name"]: item.get("dialect_options", {}) for item in inspector.get_indexes(table.name)}
        for index in table.indexes:
            name = f"{connection.dialect.name}_where"
            partial = index.dialect_options[connection.dialect.name]["where"] is not None
            if partial != (indexes[index.name].get(name) is not None):
                found.append(("partial", index.name))
        primary = inspector.get_pk_constraint(table.name)
        expected = (table.primary_key.name, [column.name for column in table.primary_key])
        if (primary["name"], primary["constrained_columns"]) != expected:
            found.append(("primary key", table.name))
        foreign = {
            (key["name"], key.get("options", {}).get("ondelete")) for key in inspector.get_foreign_keys(table.name)
        }
        if foreign != {(key.name, key.ondelete) for key in table.foreign_key_constraints}:
            found.append(("foreign keys", table.name))
    return found


async def test_the_migration_creates_the_tables_of_the_metadata(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)

    async def differences(connection: AsyncConnection) -> list[object]:
        return await connection.run_sync(_differences)

    assert await database.read(differences) == []
    await database.close()


async def test_a_newer_schema_is_refused_by_its_revision(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    await execute_sql(database, "UPDATE alembic_version SET version_num = '9999'")
    await database.close()
    with pytest.raises(NotSetUp, match="9999"):
        await registry.check()
    with pytest.raises(NotSetUp, match="newer than this version"):
        await registry.migrate()
