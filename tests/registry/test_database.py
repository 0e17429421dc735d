"""What the databases do to us: other processes, lost connections, cancelled tasks."""

import asyncio
import resource
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryState
from bellwire.errors import RegistryUnavailable
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from tests.factories import event, subscription
from tests.registry.conftest import execute_sql

WRITE = """
import asyncio, sys
from bellwire.contract import Group
from bellwire.registry import Registry
from tests.factories import event

async def main():
    registry = await Registry.open(sys.argv[1])
    async def one(number):
        mine = event(id=f"{sys.argv[2]}-{number}")
        await registry.events.accept([mine, event(id=f"shared-{number}")], sys.argv[2])
        groups = [Group(event_key=mine.key, channel="webhook", subscription_ids=("a",))]
        await registry.deliveries.add(sys.argv[2], groups)
        await registry.deliveries.settle(groups, reason="cancelled")
        assert await registry.deliveries.redeliver(sys.argv[2], groups)
    await asyncio.gather(*(one(number) for number in range(100)))
    await registry.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("bad", ["mysql://host/name", "nonsense", "", "sqlite://", "sqlite:///:memory:"])
async def test_a_url_that_cannot_work_names_the_variable(bad: str) -> None:
    with pytest.raises(RegistryUnavailable, match="BELLWIRE_REGISTRY_URL"):
        await Registry.open(bad)


@pytest.mark.parametrize("path", ["{}/missing/registry.db", "{}"])
async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL") as raised:
        await Registry.open(f"sqlite:///{path.format(tmp_path)}")
    assert str(tmp_path) in str(raised.value)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(RegistryUnavailable, match="not a database"):
        await Registry.open(f"sqlite:///{tmp_path}/notes.txt")


async def test_a_server_that_does_not_run_is_named_without_its_password() -> None:
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL") as raised:
        await Registry.open("postgresql://ann:hunter2@127.0.0.1:1/bellwire")
    assert "127.0.0.1:1/bellwire" in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_a_database_that_does_not_exist_is_named(postgres: str) -> None:
    with pytest.raises(RegistryUnavailable, match='database "nowhere" does not exist'):
        await Registry.open(postgres.replace("/postgres?", "/nowhere?"))


async def test_a_lost_connection_is_reported_and_the_next_call_has_a_new_one(postgres: str) -> None:
    registry = await Registry.open(postgres, pool=1)
    await registry.ping()
    admin = await asyncpg.connect(postgres)
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bellwire'")
    await admin.close()
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL and that it runs"):
        await registry.ping()
    await registry.ping()
    await registry.close()


async def test_a_program_that_falls_silent_in_a_transaction_loses_it_and_its_locks(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is frozen, or cut off; what it then has to say is too late."""
    monkeypatch.setattr("bellwire.registry.db.engine.IDLE_TIMEOUT", 0.5)
    database = Database.at(postgres, pool=2)
    await execute_sql(database, "CREATE TABLE silence (said TEXT)", "INSERT INTO silence VALUES ('nothing')")
    locked = asyncio.Event()

    async def fall_silent(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("UPDATE silence SET said = 'late'")
        locked.set()
        await asyncio.sleep(1.5)
        await connection.exec_driver_sql("UPDATE silence SET said = 'later'")

    silent = asyncio.create_task(database.write(fall_silent))
    await locked.wait()
    await asyncio.wait_for(execute_sql(database, "UPDATE silence SET said = 'first'"), 1.2)
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL"):
        await silent

    async def read(connection: AsyncConnection) -> list[str]:
        return [row.said for row in await connection.exec_driver_sql("SELECT said FROM silence")]

    assert await database.read(read) == ["first"]
    await execute_sql(database, "DROP TABLE silence")
    await database.close()


async def test_a_full_disk_is_told_from_a_database_that_is_away_and_goes_by_itself(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=1)
    registry = Registry(database)
    await registry.migrate()
    many = [event(id=f"large-{number}", data="x" * 4000) for number in range(50)]
    await _limit(database, pages=60)
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="disk is full; free some space") as raised:
            await registry.events.accept(many, "run")
        assert f"{tmp_path}/registry.db and said: database or disk is full" in str(raised.value)
    assert await registry.events.list() == [], "half a transaction"
    await _limit(database, pages=10_000)
    await registry.events.accept(many, "run")
    assert len(await registry.events.list(limit=100)) == 50
    await registry.close()


async def _limit(database: Database, *, pages: int) -> None:
    await execute_sql(database, f"PRAGMA max_page_count = {pages}")


async def test_a_disk_that_cannot_be_written_is_named_and_goes_by_itself(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RegistryUnavailable, match=r"disk fails: full.* said: disk I/O error"):
            await registry.events.accept([event(id="a")], "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await registry.events.accept([event(id="a")], "run")
    await registry.close()


async def test_a_full_disk_of_postgresql_is_told_too(postgres: str) -> None:
    database = Database.at(postgres, pool=1)
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(RegistryUnavailable, match=r"disk is full; free some space.*could not extend file"):
        await execute_sql(database, full)
    await database.close()


async def test_a_file_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=1)
    # The pragma is what a file without the right to write says, even to root.
    await execute_sql(database, "CREATE TABLE notes (said TEXT)", "PRAGMA query_only = ON")
    with pytest.raises(RegistryUnavailable, match="is read-only; give the worker's user write permission on it"):
        await execute_sql(database, "INSERT INTO notes VALUES ('hello')")
    await database.close()


async def test_a_statement_that_is_wrong_is_not_taken_for_an_outage(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    with pytest.raises(exc.IntegrityError):
        await execute_sql(
            database, "INSERT INTO subscription_types (pattern, subscription_id, tenant) VALUES ('*', 'none', 'acme')"
        )
    await database.close()


async def test_two_processes_and_this_one_write_at_once(registry: Registry, url: str) -> None:
    await registry.subscriptions.create(subscription(id="a"))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITE, url, name, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    talks = asyncio.gather(*(process.communicate() for process in processes))
    while not talks.done():
        await registry.events.accept([event(id=f"shared-{number}") for number in range(100)], "c")
        await asyncio.gather(*(registry.ping() for _ in range(20)))
    said = [errors.decode() for _, errors in await talks]
    assert [process.returncode for process in processes] == [0, 0], said
    accepted = [found.event.id for found in await registry.events.list(limit=1000)]
    assert len(accepted) == 300
    assert len(set(accepted)) == 300
    assert len(await registry.deliveries.list(state=DeliveryState.PENDING, limit=1000)) == 200


async def test_a_writer_that_is_cancelled_leaves_nothing_locked(registry: Registry) -> None:
    for moment in range(30):
        task = asyncio.create_task(
            registry.events.accept([event(id=f"{moment}-{number}") for number in range(20)], "run")
        )
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(registry.events.accept([event(id="last")], "run"), timeout=10)
    assert [found.event.id for found in await registry.events.with_id("last")] == ["last"]


async def test_cancelled_readers_give_their_connections_back(registry: Registry) -> None:
    for moment in range(30):
        tasks = [asyncio.create_task(registry.events.list()) for _ in range(5)]
        for _ in range(moment):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*(registry.ping() for _ in range(50))), timeout=10)
    assert await registry.events.list() == []
