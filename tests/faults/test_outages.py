"""Outages of what workers depend on."""

import asyncio
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url

from bellwire.errors import RegistryUnavailable
from tests.faults.breakable import breakable
from tests.faults.conftest import BreakablePostgres
from tests.faults.load import Load
from tests.faults.scenario import Scenario
from tests.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: What PostgreSQL calls its Unix socket.
SOCKET = ".s.PGSQL.5432"


@pytest.mark.parametrize(("immediate", "seconds"), [(False, 6.0), (True, 20.0)], ids=["fast", "immediate"])
async def test_the_registry_is_down_for_some_time(
    tmp_path: Path, postgres: BreakablePostgres, seed: int, immediate: bool, seconds: float
) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system)
        await load.subscribe()
        how = "crashed" if immediate else "shut down"
        scenario = Scenario(f"PostgreSQL down for {seconds:g} s, {how}", load, bounded=False)
        await load.publish(singles=8, batch=12)
        await load.until_arrived(system.random.randrange(50, 250))
        await scenario.before_fault()
        await asyncio.to_thread(postgres.stop, immediate=immediate)
        await publish_without_registry(load)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(postgres.start)
        with suppress(RegistryUnavailable):
            await system.registry.ping()  # one failure discards all broken connections
        await scenario.settles(timeout=300)


async def test_the_registry_stalls_for_some_time(tmp_path: Path, postgres: BreakablePostgres, seed: int) -> None:
    """Connections neither respond nor break, until a proxy cuts them."""
    url = make_url(await postgres.database())
    socket = f"{url.query['host']}/{SOCKET}"
    async with AsyncExitStack() as cleanup:
        # The path of a Unix socket must be short.
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bellwire-proxy-")))
        proxy = Proxy(lambda: asyncio.open_unix_connection(socket), path=folder / SOCKET)
        await cleanup.enter_async_context(proxy)
        detour = url.set(query={"host": str(folder)}).render_as_string(hide_password=False)
        system = await cleanup.enter_async_context(breakable(tmp_path, detour, seed=seed))
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
        await publish_without_registry(load)
        await asyncio.sleep(6)
        await proxy.cut()
        proxy.resume()
        with suppress(RegistryUnavailable):
            await system.registry.ping()  # one failure discards all broken connections
        await scenario.settles(timeout=300)


async def test_the_disk_of_an_sqlite_registry_is_full_for_some_time(tmp_path: Path, seed: int) -> None:
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
        await publish_without_registry(load)
        await asyncio.sleep(5)
        assert {worker.log: worker.log.stat().st_size for worker in workers} == sizes, "the disk was not full"
        system.free_disk()
        await scenario.settles(timeout=300)
        repeated = {name: times for name, times in load.accepted().items() if times > 2}
        assert not repeated, "sent repeatedly, since outcomes could not be recorded"
        assert any(worker.log.stat().st_size > sizes[worker.log] for worker in workers), "they log again"
        assert system.workers == workers
        await system.stop_workers()  # fails if the full disk has ended one


async def publish_without_registry(load: Load) -> None:
    """Publish during an outage of the registry, which the caller ends later: Temporal alone accepts events."""
    before = len(load.receipts)
    await load.publish(singles=3)
    assert len(load.receipts) == before + 3


# The sockets of a server that is closed during a conversation are left to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_the_mail_server_is_restarted_during_conversations(tmp_path: Path, seed: int) -> None:
    async with breakable(tmp_path, f"sqlite:///{tmp_path}/registry.db", seed=seed) as system:
        load = Load(system, hooks=2, mails=25, texts=2)
        await load.subscribe()
        scenario = Scenario("SMTP server restarted, 4 times", load)
        for _ in range(4):
            await load.publish(singles=2, batch=3)
            await load.until_arrived(system.arrived + system.random.randrange(10, 60))
            await scenario.before_fault()
            await system.restart_mailbox()
        await scenario.settles(timeout=300)
