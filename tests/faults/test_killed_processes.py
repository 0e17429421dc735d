"""Workers and the Temporal server are killed or replaced at times that the seed chooses, and nothing is lost."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.faults.breakable import breakable
from tests.faults.conftest import BreakablePostgres
from tests.faults.load import Load
from tests.faults.scenario import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


KILLS = 20


async def test_one_of_two_workers_is_killed_repeatedly(tmp_path: Path, postgres: BreakablePostgres, seed: int) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario(f"kill -9 of one worker, {KILLS} times", load)
        for _ in range(KILLS):
            await load.publish(singles=1, batch=2)
            await load.until_arrived(system.arrived + system.random.randrange(100))
            await scenario.kill(system.random.choice(system.workers))
            await system.start_worker()
        await scenario.settles(timeout=300)


@pytest.mark.parametrize("registry", ["postgresql", "sqlite"])
async def test_both_workers_are_killed(tmp_path: Path, postgres: BreakablePostgres, seed: int, registry: str) -> None:
    url = await postgres.database() if registry == "postgresql" else f"sqlite:///{tmp_path}/registry.db"
    async with breakable(tmp_path, url, seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario(f"kill -9 of both workers, {registry}", load)
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.kill(*system.workers)
        await load.publish(singles=3)
        for _ in range(2):
            await system.start_worker()
        await scenario.settles(timeout=300)


async def test_the_temporal_server_is_killed_and_restarted(
    tmp_path: Path, postgres: BreakablePostgres, seed: int
) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario("kill -9 of the Temporal server", load, bounded=False)
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.before_fault()
        await system.kill_server()
        await system.start_server()
        await load.publish(singles=3)
        await scenario.settles(timeout=300)


async def test_workers_are_replaced_one_by_one_under_load(
    tmp_path: Path, postgres: BreakablePostgres, seed: int
) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario("rolling restart", load)
        for worker in list(system.workers):
            await load.publish(singles=4, batch=6)
            await load.until_arrived(system.arrived + system.random.randrange(10, 80))
            await scenario.before_fault()
            await system.start_worker()
            await system.stop_worker(worker)
        await scenario.settles(timeout=300)
        assert_nothing_was_sent_twice(load)


async def test_all_workers_stop_at_once_under_load(tmp_path: Path, postgres: BreakablePostgres, seed: int) -> None:
    """Receivers are so slow that no chunk ends within a worker's grace; other workers attempt what it has not started."""
    async with breakable(tmp_path, await postgres.database(), seed=seed, BELLWIRE_SHUTDOWN_GRACE="3") as system:
        load = Load(system, response_delay=0.3)
        await load.subscribe()
        scenario = Scenario("SIGTERM of all workers at once", load)
        await load.publish(singles=1, batch=8)
        await load.until_arrived(system.random.randrange(10, 150))
        await scenario.before_fault()
        await system.stop_workers()
        await load.publish(singles=1)
        for _ in range(2):
            await system.start_worker()
        await scenario.settles(timeout=300)
        assert_nothing_was_sent_twice(load)


def assert_nothing_was_sent_twice(load: Load) -> None:
    repeated = {name: times for name, times in load.accepted().items() if times > 1}
    assert not repeated, "a stopping worker finishes its attempts in flight, so nothing is sent twice"


async def test_a_worker_that_was_frozen_sends_nothing_that_another_has_sent(
    tmp_path: Path, postgres: BreakablePostgres, seed: int
) -> None:
    """As when a virtual machine is paused: another worker does the work of the frozen one, which then continues.

    The frozen worker has an open transaction, whose locks must not block the other worker.
    """
    url = await postgres.database()
    async with breakable(tmp_path, url, seed=seed, BELLWIRE_SEND_CONCURRENCY="2") as system:
        load = Load(system, hooks=2, mails=2, texts=60)
        await load.subscribe()
        (frozen, other) = system.workers
        await system.stop_worker(other)
        scenario = Scenario("one worker frozen and resumed", load, bounded=False)
        await load.publish(singles=1)
        await load.until_texted(system.random.randrange(5, 20))
        await scenario.before_fault()
        while True:
            os.kill(frozen.pid, signal.SIGSTOP)
            await asyncio.sleep(0.02)  # PostgreSQL has finished the current statement by then
            if await postgres.holds_locks(url):
                break
            os.kill(frozen.pid, signal.SIGCONT)
            await asyncio.sleep(system.random.uniform(0, 0.02))
        try:
            await system.start_worker()
            texted = len(system.twilio.messages)
            # The server may give the work to the frozen worker's open polls first, and waits 15 s each time.
            await load.until_texted(texted + system.random.randrange(10, 25), timeout=120)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        await scenario.settles(timeout=300)
