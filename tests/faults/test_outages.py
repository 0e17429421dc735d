"""What workers depend on goes away for a while, and comes back."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url

from bellwire.errors import RegistryUnavailable
from tests.faults.breakable import breakable
from tests.faults.conftest import Postgres
from tests.faults.load import Load
from tests.faults.verdict import Scenario
from tests.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: What PostgreSQL calls its Unix socket.
SOCKET = ".s.PGSQL.5432"


@pytest.mark.parametrize(("immediate", "seconds"), [(False, 6.0), (True, 20.0)], ids=["fast", "immediate"])
async def test_the_registry_goes_away_for_a_while(
    tmp_path: Path, postgres: Postgres, seed: int, immediate: bool, seconds: float
) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        how = "crashed" if immediate else "shut down"
        scenario = Scenario(f"PostgreSQL away for {seconds:g} s, {how}", load, bounded=False)
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.before_fault()
        await asyncio.to_thread(postgres.stop, immediate=immediate)
        await accepted_at_once(load)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(postgres.start)
        with suppress(RegistryUnavailable):
            await system.registry.ping()  # finds the old connections dead, once for all of them
        await scenario.settles(timeout=120)


async def test_the_registry_stalls_for_a_while(tmp_path: Path, postgres: Postgres, seed: int) -> None:
    """Connections that neither answer nor break, until something on the way cuts them off."""
    url = make_url(await postgres.database())
    socket = f"{url.query['host']}/{SOCKET}"
    async with AsyncExitStack() as cleaning:
        # The path of a Unix socket is short.
        folder = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="bellwire-proxy-")))
        proxy = Proxy(lambda: asyncio.open_unix_connection(socket), path=folder / SOCKET)
        await cleaning.enter_async_context(proxy)
        detour = url.set(query={"host": str(folder)}).render_as_string(hide_password=False)
        system = await cleaning.enter_async_context(breakable(tmp_path, detour, seed=seed))
        load = Load(system)
        await load.subscribe()
        scenario = Scenario("PostgreSQL stalls for 6 s, then is cut off", load, bounded=False)
        proxy.delay = 0.005
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        async with asyncio.timeout(30):
            while not (await scenario.before_fault()).arrivals:
                await asyncio.sleep(0.01)
        proxy.stall(requests=system.random.choice((True, False)))
        await accepted_at_once(load)
        await asyncio.sleep(6)
        await proxy.cut()
        proxy.resume()
        with suppress(RegistryUnavailable):
            await system.registry.ping()  # finds the old connections dead, once for all of them
        await scenario.settles(timeout=120)


async def test_the_disk_of_an_sqlite_registry_is_full_for_a_while(tmp_path: Path, seed: int) -> None:
    async with breakable(tmp_path, f"sqlite:///{tmp_path}/registry.db", seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        scenario = Scenario("disk of the SQLite registry full for 5 s", load, bounded=False)
        await load.publish(singles=4, batch=8)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.before_fault()
        workers = list(system.workers)
        system.fill_disk()
        sizes = {worker.log: worker.log.stat().st_size for worker in workers}
        await accepted_at_once(load)
        await asyncio.sleep(5)
        assert {worker.log: worker.log.stat().st_size for worker in workers} == sizes, "the disk was not full"
        system.free_disk()
        await scenario.settles(timeout=90)
        often = {name: times for name, times in load.taken().items() if times > 2}
        assert not often, "sent over and over, since what came of it could not be written down"
        assert any(worker.log.stat().st_size > sizes[worker.log] for worker in workers), "they log again"
        assert system.workers == workers
        await system.stop_workers()  # which they would not do in order if the full disk had ended one


async def accepted_at_once(load: Load) -> None:
    """Publish while the registry takes nothing. It is Temporal that accepts."""
    began = time.perf_counter()
    await load.publish(singles=3)
    assert time.perf_counter() - began < 3, "publishing waits for the registry"


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
