"""What workers depend on goes away for a while, and comes back."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from bellwire.errors import RegistryUnavailable
from tests.faults.breakable import breakable
from tests.faults.conftest import Postgres
from tests.faults.load import Load
from tests.faults.verdict import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize(("immediate", "seconds"), [(False, 10.0), (True, 18.0)], ids=["fast", "immediate"])
async def test_the_registry_goes_away_for_a_while(
    tmp_path: Path, postgres: Postgres, seed: int, immediate: bool, seconds: float
) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario(f"PostgreSQL away for {seconds:g} s, {'crashed' if immediate else 'shut down'}", load)
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.before_fault()
        await asyncio.to_thread(postgres.stop, immediate=immediate)
        await load.publish(singles=3)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(postgres.start)
        with suppress(RegistryUnavailable):
            await system.registry.ping()  # finds the old connections dead, once for all of them
        await scenario.settles(timeout=120)


# The sockets of a server that is cut off in mid-conversation are left to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_the_mail_server_is_restarted_in_mid_conversation(tmp_path: Path, seed: int) -> None:
    async with breakable(tmp_path, f"sqlite:///{tmp_path}/registry.db", seed=seed) as system:
        load = Load(system, hooks=2, mails=25, texts=2)
        await load.subscribe()
        scenario = Scenario("SMTP server restarted, 4 times", load)
        for _ in range(4):
            await load.publish(singles=2, batch=3)
            await load.until_arrived(system.arrived + system.random.randrange(10, 60))
            await scenario.before_fault()
            await system.restart_mailbox()
        await scenario.settles(timeout=90)
