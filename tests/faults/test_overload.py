"""Far more work than the workers may do at a time: they stay within their limits, and the rest waits in Temporal."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from tests.faults.breakable import ACTIVITIES, CONCURRENCY, breakable
from tests.faults.conftest import BreakablePostgres
from tests.faults.load import Load
from tests.faults.scenario import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: Bellwire's connections to the database, this test's one among them.
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bellwire'"
)

EVENTS, POOL, SMTP_CONNECTIONS = 50, 3, 2


async def test_overloaded_workers_stay_within_their_limits(
    tmp_path: Path, postgres: BreakablePostgres, seed: int
) -> None:
    url = await postgres.database()
    limits = {"BELLWIRE_REGISTRY_POOL": str(POOL), "BELLWIRE_SMTP_CONNECTIONS": str(SMTP_CONNECTIONS)}
    async with breakable(tmp_path, url, seed=seed, **limits) as system:
        load, workers = Load(system, hooks=6, mails=1, texts=1, response_delay=0.1), len(system.workers)
        await load.subscribe()
        scenario = Scenario(f"{EVENTS} concurrent runs for two small workers", load)
        connections = [0]
        await load.publish_concurrently(EVENTS)
        settling = asyncio.create_task(scenario.settles(timeout=300))
        watching = await asyncpg.connect(url)
        while not settling.done():
            connections.append(await watching.fetchval(CONNECTIONS))
            await asyncio.wait([settling], timeout=0.2)
        await watching.close()
        await settling
        # Inline first rounds have as many attempts in flight as one more activity.
        maximum = workers * (ACTIVITIES + 1) * CONCURRENCY
        assert CONCURRENCY < system.hooks.max_open <= maximum, "concurrent requests"
        assert 0 < system.mailbox.max_connections <= workers * SMTP_CONNECTIONS
        assert POOL < max(connections) <= workers * POOL + 1
