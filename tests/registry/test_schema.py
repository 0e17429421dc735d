"""Making the tables, and telling whether they are there."""

import asyncio
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from bellwire.errors import NotSetUp
from bellwire.registry import Registry
from bellwire.registry.database import Database
from bellwire.registry.tables import metadata
from tests.factories import event

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


async def test_a_registry_without_tables_says_how_to_make_them(url: str) -> None:
    registry = await Registry.open(url)
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.check()
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.accept([event()], "run")
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.subscriptions()
    await registry.migrate()
    await registry.check()
    await registry.close()


async def test_migrating_again_changes_nothing(registry: Registry) -> None:
    await registry.accept([event(id="1")], "run")
    await registry.migrate()
    assert [found.event.id for found in await registry.events()] == ["1"]


async def test_four_processes_may_migrate_at_once(url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, url, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], said


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
        made = {item["name"]: item.get("dialect_options", {}) for item in inspector.get_indexes(table.name)}
        for index in table.indexes:
            name = f"{connection.dialect.name}_where"
            wanted = index.dialect_options[connection.dialect.name]["where"] is not None
            if wanted != (made[index.name].get(name) is not None):
                found.append(("partial", index.name))
        primary = inspector.get_pk_constraint(table.name)
        if primary["constrained_columns"] != [column.name for column in table.primary_key]:
            found.append(("primary key", table.name))
    return found


async def test_the_migrations_make_the_tables_that_the_code_names(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    async with database.reading() as connection:
        assert await connection.run_sync(_differences) == []
    await database.close()


async def test_a_schema_from_the_future_is_named(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    async with database.writing() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await database.close()
    with pytest.raises(NotSetUp, match="9999"):
        await registry.check()
    with pytest.raises(NotSetUp, match="newer than this version"):
        await registry.migrate()
