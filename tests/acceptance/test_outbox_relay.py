"""The relay as a process: what services insert is published, also when relays are killed at random moments."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from bellwire import Event, outbox
from starter.checkout import CHECKOUT
from starter.local.processes import Process, environment_without, free_port
from tests.acceptance.conftest import System, running_system
from tests.registry.conftest import postgres, postgres_server, url

__all__ = ["postgres", "postgres_server", "url"]

#: Events of the crash test, by writers that insert at the same time, in transactions of several, each with its own subjects.
WRITERS, TRANSACTIONS, PER_TRANSACTION, SUBJECTS = 4, 100, 5, 3
#: Relays at a time, and how often each is killed.
RELAYS, KILLS = 2, 5
#: Options of the service's driver, by the start of the URL: on SQLite, it waits while the relay writes.
WAITING = {"sqlite": {"timeout": 60}, "postgr": {}}


def variables(system: System, **more: str) -> dict[str, str]:
    return {
        **environment_without("BELLWIRE_", "TEMPORAL_"),
        **system.variables,
        "PYTHONPATH": str(CHECKOUT),
        "BELLWIRE_HEALTH_ADDRESS": "",
        **more,
    }


async def start_relay(system: System, log: Path, *arguments: str, **settings: str) -> Process:
    command = (sys.executable, "-m", "starter", "relay", *arguments)
    return await Process.start("relay", command, environment=variables(system, **settings), log=log)


async def ran(system: System, *arguments: str) -> tuple[int, str]:
    """Status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", "relay", *arguments),
        env=variables(system),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode() or errors.decode()


@asynccontextmanager
async def shop(file: Path) -> AsyncIterator[sqlite3.Connection]:
    connection = sqlite3.connect(file)
    try:
        outbox.create_table(connection)
        connection.commit()
        yield connection
    finally:
        connection.close()


async def test_a_relay_publishes_until_it_is_stopped_and_says_whether_it_is_ready(
    system: System, tmp_path: Path
) -> None:
    await system.hook("/relayed", "relay.event")
    health, file = f"127.0.0.1:{free_port()}", tmp_path / "shop.db"
    async with shop(file) as connection, aiohttp.ClientSession() as session:

        async def ready() -> bool:
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://{health}/ready") as response:
                    return response.status == 200
            return False

        process = await start_relay(
            system, tmp_path / "relay.log", BELLWIRE_OUTBOX_URL=f"sqlite:///{file}", BELLWIRE_HEALTH_ADDRESS=health
        )
        try:
            await process.until(ready, timeout=30)
            for number in range(3):
                with connection:
                    event = Event(source="/relay", id=str(number), type="relay.event", subject="one")
                    outbox.insert(connection, event, delay="1s" if number == 0 else None)
            arrived = await system.hooks.arrived(3, "/relayed")
            assert sorted(each.event["id"] for each in arrived) == ["0", "1", "2"]
            assert arrived[-1].event["id"] == "0"
            file.rename(tmp_path / "away.db")
        finally:
            began = time.monotonic()
            await process.stop(grace=20)
        assert time.monotonic() - began < 15
    log = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in log if line["level"] in {"error", "critical"}], log


async def test_once_publishes_what_is_there_and_show_lists_what_was_refused(system: System, tmp_path: Path) -> None:
    await system.hook("/relayed-once", "once.event")
    file = tmp_path / "shop.db"
    where = ("--url", f"sqlite:///{file}")
    async with shop(file) as connection:
        with connection:
            outbox.insert(connection, Event(source="/relayed-once", id="good", type="once.event"))
            connection.execute(
                "INSERT INTO bellwire_outbox (source, event_id, event) VALUES ('/relayed-once', 'bad', '{}')"
            )
    status, shown = await ran(system, *where, "--show", "--json")
    assert (status, json.loads(shown)["waiting"]) == (0, 2)
    assert await ran(system, *where, "--once", "--json") == (0, '{\n  "rows": 2\n}\n')
    assert [each.event["id"] for each in await system.hooks.arrived(1, "/relayed-once")] == ["good"]
    status, shown = await ran(system, *where, "--show", "--json")
    found = json.loads(shown)
    assert (found["waiting"], found["refused"]) == (0, 1)
    (refused,) = found["refused_events"]
    assert (refused["source"], refused["id"]) == ("/relayed-once", "bad")
    assert "type: is missing" in refused["error"]
    status, shown = await ran(system, *where, "--show")
    assert "type: is missing" in shown
    assert await ran(system, *where, "--retry-refused") == (0, "waiting again: 1\n")
    status, shown = await ran(system, *where, "--show", "--json")
    assert (json.loads(shown)["waiting"], json.loads(shown)["refused"]) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--url: is not set"),
        (["--url", "mysql://shop"], "--url: must be sqlite:///FILE or postgresql://"),
        (["--url", "sqlite:///gone.db", "--once", "--show"], "cannot be combined"),
    ],
)
async def test_unusable_options_are_errors(system: System, arguments: list[str], message: str) -> None:
    status, output = await ran(system, *arguments)
    assert status == 2
    assert message in output


def numbered(writer: int, number: int) -> Event:
    return Event(
        source="/killed",
        id=f"{writer}-{number}",
        type="relay.killed",
        subject=f"{writer}-{number % SUBJECTS}",
        data={"number": number},
    )


@asynccontextmanager
async def session_of(outbox_url: str) -> AsyncIterator[Session]:
    """A session of the service."""
    engine = create_engine(
        outbox_url.replace("postgresql:", "postgresql+psycopg:"), connect_args=WAITING[outbox_url[:6]]
    )
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


async def write(outbox_url: str, writer: int) -> None:
    """Insert the events of one writer, in transactions of several. Every second one is rolled back, and done again."""
    async with session_of(outbox_url) as session:
        for start in range(0, TRANSACTIONS * PER_TRANSACTION, PER_TRANSACTION):
            events = [numbered(writer, start + each) for each in range(PER_TRANSACTION)]
            if start % 2 == 0:
                undone = Event(source="/killed", type="relay.killed", id=f"undone-{writer}-{start}")
                await asyncio.to_thread(outbox.insert, session, *events, undone)
                await asyncio.to_thread(session.rollback)
            await asyncio.to_thread(outbox.insert, session, *events)
            await asyncio.to_thread(session.commit)
            await asyncio.sleep(random.uniform(0, 0.3))


async def run_killed(system: System, outbox_url: str, folder: Path, relay: int, left: list[int]) -> None:
    """Run a relay, and kill it at random moments; the last one goes on until it is cancelled. `left`: rows after each kill."""
    for nth in range(KILLS + 1):
        process = await start_relay(system, folder / f"relay-{relay}-{nth}.log", "--url", outbox_url, "--batch", "20")
        try:
            if nth == KILLS:
                await process.ended()
            # A relay needs a second or two to start.
            await asyncio.sleep(random.uniform(1.5, 4))
            os.kill(process.pid, signal.SIGKILL)
        finally:
            await process.stop(grace=20)
        left.append(await waiting(outbox_url))


async def waiting(outbox_url: str) -> int:
    async with session_of(outbox_url) as session:
        return int(session.scalar(text("SELECT count(*) FROM bellwire_outbox")) or 0)


async def in_order(system: System, writer: int) -> list[str]:
    """Events of a writer that were published before an earlier one of their subject: their workflow started before."""
    started: dict[str, float] = {}
    wrong, last = list[str](), dict[str, float]()
    for number in range(TRANSACTIONS * PER_TRANSACTION):
        event = numbered(writer, number)
        workflow_id = (await system.registry.events.get(event.key)).workflow_id
        if workflow_id not in started:
            described = await system.client.temporal.get_workflow_handle(workflow_id).describe()
            started[workflow_id] = described.start_time.timestamp()
        assert event.subject
        if started[workflow_id] < last.get(event.subject, 0.0):
            wrong.append(event.id)
        last[event.subject] = started[workflow_id]
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(280)
async def test_relays_that_are_killed_lose_nothing_and_deliver_nothing_twice(url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("BELLWIRE_FAULT_SEED") or random.randrange(10**6))
    random.seed(seed)
    folder = tmp_path / "system"
    folder.mkdir()
    async with session_of(url) as session, running_system(folder) as system:
        outbox.create_table(session)
        session.commit()
        await system.hook("/killed", "relay.killed")
        left = list[int]()
        killed = [asyncio.create_task(run_killed(system, url, tmp_path, relay, left)) for relay in range(RELAYS)]
        try:
            async with asyncio.timeout(240):
                await asyncio.gather(*(write(url, writer) for writer in range(WRITERS)))
                while len(left) < RELAYS * KILLS or await waiting(url):
                    await asyncio.sleep(0.1)
                expected = {
                    numbered(writer, number).id
                    for writer in range(WRITERS)
                    for number in range(TRANSACTIONS * PER_TRANSACTION)
                }
                while {each.event["id"] for each in system.hooks.received_at("/killed")} != expected:
                    await asyncio.sleep(0.1)
        finally:
            for task in killed:
                task.cancel()
            await asyncio.gather(*killed, return_exceptions=True)
        assert any(left), "the kills came too late to prove anything"
        arrivals = Counter(each.event["id"] for each in system.hooks.received_at("/killed"))
        assert arrivals.keys() == expected, f"seed {seed}"
        assert [name for name, number in arrivals.items() if number > 1] == [], f"seed {seed}"
        assert [await in_order(system, writer) for writer in range(WRITERS)] == [[]] * WRITERS, f"seed {seed}"
