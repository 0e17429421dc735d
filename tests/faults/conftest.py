"""Seeds, a PostgreSQL that can be stopped, and the summary table."""

import os
import secrets
import signal
from collections.abc import Generator, Iterator

import asyncpg
import pytest

from starter.local.postgres import Postgres, running_postgres
from tests.faults import scenario

#: Variable with the seed of an earlier run, which its table shows: the same choices are made.
SEED = "BELLWIRE_FAULT_SEED"


@pytest.fixture
def seed() -> int:
    """The seed of all choices of a scenario: BELLWIRE_FAULT_SEED, or a new one each time. It is printed if the test fails."""
    chosen = int(os.environ.get(SEED) or secrets.randbits(32))
    print(f"{SEED}={chosen}")  # noqa: T201 - needed to repeat a failure
    return chosen


class BreakablePostgres(Postgres):
    """One that can be stopped and started again."""

    async def database(self) -> str:
        """URL of a new, empty database."""
        return self.url(await self.create_database())

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
        info = self.server.get_postmaster_info()
        assert info.process is not None
        os.kill(info.pid, signal.SIGQUIT if immediate else signal.SIGINT)
        info.process.wait(10)

    def start(self) -> None:
        self.server.ensure_postgres_running()


@pytest.fixture(scope="package")
def postgres() -> Iterator[BreakablePostgres]:
    with running_postgres() as running:
        yield BreakablePostgres(running.server)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand the result and the seed of a scenario, of a failed one too, to the process that prints the summary."""
    report = yield
    report.user_properties += [(scenario.PROPERTY, line) for line in scenario.LINES]
    scenario.LINES.clear()
    return report
