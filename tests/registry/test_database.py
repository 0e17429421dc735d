"""Failures of the databases: unreachable, full, read-only, locked by other processes, cancelled tasks."""

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
import threading
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
        own = event(id=f"{sys.argv[2]}-{number}")
        await registry.events.accept([own, event(id=f"shared-{number}")], sys.argv[2])
        groups = [Group(event_key=own.key, channel="webhook", subscription_ids=("a",))]
        await registry.deliveries.add(sys.argv[2], groups)
        await registry.deliveries.settle(groups, reason="cancelled")
        assert await registry.deliveries.redeliver(sys.argv[2], groups)
    await asyncio.gather(*(one(number) for number in range(100)))
    await registry.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("bad", ["mysql://host/name", "nonsense", "", "sqlite://", "sqlite:///:memory:"])
async def test_an_invalid_url_names_the_variable(bad: str) -> None:
    with pytest.raises(RegistryUnavailable, match="BELLWIRE_REGISTRY_URL"):
        await Registry.open(bad)


@pytest.mark.parametrize("path", ["{}/missing/registry.db", "{}"])
async def test_the_error_names_a_file_that_cannot_be_opened(tmp_path: Path, path: str) -> None:
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL") as raised:
        await Registry.open(f"sqlite:///{path.format(tmp_path)}")
    assert str(tmp_path) in str(raised.value)


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
async def test_a_new_database_and_its_journals_are_for_their_owner_only(tmp_path: Path, form: str) -> None:
    umask = os.umask(0o022)
    try:
        registry = await Registry.open(form.format(tmp_path / "registry.db"))
        await registry.migrate()
        await registry.subscriptions.create(subscription())
        modes = modes_in(tmp_path)
        await registry.close()
    finally:
        os.umask(umask)
    assert modes == {"registry.db": 0o600, "registry.db-wal": 0o600, "registry.db-shm": 0o600}


READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM written").fetchone()[0])
connection.close()
"""


async def test_another_process_that_opens_and_closes_the_database_leaves_the_journal_of_this_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "registry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE written (number INTEGER)")
    connection.close()
    both = threading.Barrier(2)

    async def meet(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("SELECT 1")
        both.wait(10)

    async def add(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("INSERT INTO written VALUES (1)")

    database = Database.at(f"sqlite:///{file}", pool=1)
    await database.write(add)
    await asyncio.gather(database.read(meet), database.read(meet))  # the second connection of this process
    for expected in (1, 2):
        found = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", READ, str(file)])
        assert int(found) == expected
        await database.write(add)
    await database.close()


async def test_the_mode_of_a_database_that_exists_is_kept(tmp_path: Path) -> None:
    database = tmp_path / "registry.db"
    database.touch()
    database.chmod(0o660)
    registry = await Registry.open(f"sqlite:///{database}")
    await registry.migrate()
    await registry.close()
    assert database.stat().st_mode & 0o777 == 0o660


async def test_the_error_says_that_a_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(RegistryUnavailable, match="not a database"):
        await Registry.open(f"sqlite:///{tmp_path}/notes.txt")


async def test_the_error_names_an_unreachable_server_without_the_password() -> None:
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL") as raised:
        await Registry.open("postgresql://ann:hunter2@127.0.0.1:1/bellwire")
    assert "127.0.0.1:1/bellwire" in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_the_error_names_a_missing_database(postgres: str) -> None:
    with pytest.raises(RegistryUnavailable, match='database "nowhere" does not exist'):
        await Registry.open(postgres.replace("/postgres?", "/nowhere?"))


async def test_a_lost_connection_is_reported_and_replaced(postgres: str) -> None:
    registry = await Registry.open(postgres, pool=1)
    await registry.ping()
    admin = await asyncpg.connect(postgres)
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bellwire'")
    await admin.close()
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL and that it runs"):
        await registry.ping()
    await registry.ping()
    await registry.close()


async def test_an_idle_transaction_is_rolled_back_and_releases_its_locks(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process that is frozen or disconnected; its later statements fail."""
    monkeypatch.setattr("bellwire.registry.db.engine.IDLE_TIMEOUT", 0.5)
    database = Database.at(postgres, pool=2)
    await execute_sql(database, "CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('none')")
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def stay_idle(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("UPDATE notes SET text = 'late'")
        locked.set()
        await go_on.wait()
        await connection.exec_driver_sql("UPDATE notes SET text = 'later'")

    idle = asyncio.create_task(database.write(stay_idle))
    await locked.wait()
    await asyncio.wait_for(execute_sql(database, "UPDATE notes SET text = 'first'"), 60)
    go_on.set()
    with pytest.raises(RegistryUnavailable, match="check BELLWIRE_REGISTRY_URL"):
        await idle

    async def read(connection: AsyncConnection) -> list[str]:
        return [row.text for row in await connection.exec_driver_sql("SELECT text FROM notes")]

    assert await database.read(read) == ["first"]
    await execute_sql(database, "DROP TABLE notes")
    await database.close()


async def test_a_full_disk_has_an_error_of_its_own_and_writing_works_again_afterwards(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=1)
    registry = Registry(database)
    await registry.migrate()
    many = [event(id=f"large-{number}", data="x" * 4000) for number in range(50)]
    await _limit(database, pages=60)
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="disk is full; free some space") as raised:
            await registry.events.accept(many, "workflow")
        assert f"{tmp_path}/registry.db: database or disk is full" in str(raised.value)
    assert await registry.events.list() == [], "the transaction was rolled back"
    await _limit(database, pages=10_000)
    await registry.events.accept(many, "workflow")
    assert len(await registry.events.list(limit=100)) == 50
    await registry.close()


async def _limit(database: Database, *, pages: int) -> None:
    await execute_sql(database, f"PRAGMA max_page_count = {pages}")


async def test_a_disk_error_has_an_error_of_its_own_and_writing_works_again_afterwards(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RegistryUnavailable, match=r"I/O error on the registry's disk.*: disk I/O error"):
            await registry.events.accept([event(id="a")], "workflow")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await registry.events.accept([event(id="a")], "workflow")
    await registry.close()


async def test_a_full_disk_of_postgresql_has_the_same_error(postgres: str) -> None:
    database = Database.at(postgres, pool=1)
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(RegistryUnavailable, match=r"disk is full; free some space.*could not extend file"):
        await execute_sql(database, full)
    await database.close()


async def test_a_read_only_file_has_an_error_of_its_own(tmp_path: Path) -> None:
    database = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=1)
    # The pragma fails as a file without write permission does, also for root.
    await execute_sql(database, "CREATE TABLE notes (text TEXT)", "PRAGMA query_only = ON")
    with pytest.raises(RegistryUnavailable, match="is read-only; give the worker's user write permission on it"):
        await execute_sql(database, "INSERT INTO notes VALUES ('hello')")
    await database.close()


async def test_a_wrong_statement_is_not_reported_as_an_outage(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    with pytest.raises(exc.IntegrityError):
        await execute_sql(
            database, "INSERT INTO subscription_types (pattern, subscription_id, tenant) VALUES ('*', 'none', 'acme')"
        )
    await database.close()


@pytest.mark.slow
async def test_three_processes_may_write_concurrently(registry: Registry, url: str) -> None:
    await registry.subscriptions.create(subscription(id="a"))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITE, url, name, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    running = asyncio.gather(*(process.communicate() for process in processes))
    while not running.done():
        await registry.events.accept([event(id=f"shared-{number}") for number in range(100)], "c")
        await asyncio.gather(*(registry.ping() for _ in range(20)))
    stderr = [errors.decode() for _, errors in await running]
    assert [process.returncode for process in processes] == [0, 0], stderr
    accepted = [found.event.id for found in await registry.events.list(limit=1000)]
    assert len(accepted) == 300
    assert len(set(accepted)) == 300
    assert len(await registry.deliveries.list(state=DeliveryState.PENDING, limit=1000)) == 200


async def test_a_cancelled_writer_leaves_nothing_locked(registry: Registry) -> None:
    for steps in range(30):
        task = asyncio.create_task(
            registry.events.accept([event(id=f"{steps}-{number}") for number in range(20)], "workflow")
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(registry.events.accept([event(id="last")], "workflow"), timeout=60)
    assert [found.event.id for found in await registry.events.with_id("last")] == ["last"]


async def test_cancelled_readers_return_their_connections(registry: Registry) -> None:
    for steps in range(30):
        tasks = [asyncio.create_task(registry.events.list()) for _ in range(5)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*(registry.ping() for _ in range(50))), timeout=60)
    assert await registry.events.list() == []
