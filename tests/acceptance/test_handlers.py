"""Handlers in code on the whole system: functions of a service are called for events that the platform delivers."""

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from bellwire import Event, Handlers, HandlersConflict, Reject, Retry
from bellwire.contract import handler_subscription_id
from bellwire.handlers import current_delivery
from starter.checkout import CHECKOUT
from starter.local.processes import Process, ProcessFailed, environment_without
from tests.acceptance.conftest import System


def event(kind: str, **data: object) -> Event:
    return Event(source="/tests", type=kind, data=data)


async def test_async_and_sync_functions_are_called_once_for_each_event(system: System) -> None:
    handlers = Handlers(service="twice", application="tests")
    called: list[tuple[str, object, str]] = []
    main = threading.current_thread().name

    @handlers.on("twice.now")
    async def in_loop(event: Event) -> None:
        called.append(("async", event.data, threading.current_thread().name))

    @handlers.on("twice.now")
    def in_thread(event: Event) -> None:
        called.append(("sync", event.data, threading.current_thread().name))
        assert current_delivery().attempt == 1

    async with handlers.running(system.client):
        receipts = [await system.client.publish(event("twice.now", n=number)) for number in range(5)]
        statuses = await system.client.wait_many(receipts, timeout=30)
    assert [status.counts.delivered for status in statuses] == [2] * 5
    assert sorted((kind, data["n"]) for kind, data, _ in called if isinstance(data, dict)) == [
        *(("async", number) for number in range(5)),
        *(("sync", number) for number in range(5)),
    ]
    assert {kind for kind, _, thread in called if thread == main} == {"async"}


async def test_retry_reject_and_other_exceptions_mean_what_they_say(system: System) -> None:
    handlers = Handlers(service="meanings", application="tests")
    times: list[float] = []

    @handlers.on("meaning.retry")
    async def asks(event: Event) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise Retry("later", after=0.5)

    @handlers.on("meaning.reject")
    def refuses(event: Event) -> None:
        raise Reject("no such user")

    @handlers.on("meaning.bug", retry_schedule=["0.2s"])
    async def fails(event: Event) -> None:
        raise ValueError("x" * 1000)

    @handlers.on("meaning.slow", timeout=0.3, retry_schedule=[])
    def hangs(event: Event) -> None:
        time.sleep(1)

    async with handlers.running(system.client):
        names = ("retry", "reject", "bug", "slow")
        events = {name: event(f"meaning.{name}") for name in names}
        receipts = [await system.client.publish(each) for each in events.values()]
        statuses = dict(zip(names, await system.client.wait_many(receipts, timeout=30), strict=True))
    assert statuses["retry"].counts.delivered == 1
    assert 0.5 <= times[1] - times[0] < 5, "the delay that was asked for, not the schedule's"
    assert statuses["reject"].failed[0].reason == "no such user"
    assert statuses["reject"].counts.rejected == 1
    assert statuses["bug"].counts.exhausted == 1
    attempts = await system.registry.attempts.list(events["bug"].key)
    assert len(attempts) == 2
    assert attempts[0].outcome.reason.startswith("ValueError: xxx")
    assert len(attempts[0].outcome.reason) <= 120
    assert statuses["slow"].failed[0].reason == "timed out after 0.3 s"


async def test_events_wait_for_a_service_that_does_not_run(system: System) -> None:
    called = []

    def declared() -> Handlers:
        handlers = Handlers(service="away", application="tests")

        @handlers.on("away.now")
        async def notice(event: Event) -> None:
            called.append(event.id)

        return handlers

    async with declared().running(system.client):
        pass
    first = event("away.now")
    receipt = await system.client.publish(first)
    status = await system.client.status(receipt)
    assert (status.counts.matched, status.counts.settled) == (1, 0)
    paused = event("away.now")
    waiting = await system.client.publish(paused)
    async with asyncio.timeout(20):
        while not (await system.client.pause(waiting)).deliveries:
            await asyncio.sleep(0.05)
    async with declared().running(system.client):
        assert (await system.client.wait(receipt, timeout=30)).counts.delivered == 1
        assert called == [first.id]
        await system.client.resume(waiting)
        assert (await system.client.wait(waiting, timeout=30)).counts.delivered == 1
    assert called == [first.id, paused.id]
    (attempt,) = await system.registry.attempts.list(first.key)
    assert attempt.number == 1, "waiting is no attempt"


async def test_a_waiting_delivery_can_be_cancelled(system: System) -> None:
    handlers = Handlers(service="cancelled", application="tests")

    @handlers.on("cancelled.now")
    async def never(event: Event) -> None: ...

    async with handlers.running(system.client):
        pass
    one, other = event("cancelled.now"), event("cancelled.now")
    receipt, alone = await system.client.publish(one), await system.client.publish(other)
    await system.client.cancel(receipt)
    subscription = handler_subscription_id("cancelled", "never")
    await system.client.cancel(alone, subscription)
    statuses = await system.client.wait_many([receipt, alone], timeout=20)
    assert [status.counts.cancelled for status in statuses] == [1, 1]


async def test_two_applications_do_not_share_a_service(system: System) -> None:
    mine = Handlers(service="shared", application="mine")
    other = Handlers(service="shared", application="other")
    for handlers in (mine, other):

        @handlers.on("shared.now")
        async def notice(event: Event) -> None: ...

    async with mine.running(system.client):
        with pytest.raises(HandlersConflict, match="run by the application mine, not other"):
            await other.run(system.client)
    with pytest.raises(HandlersConflict):  # it may be restarting
        await other.run(system.client)
    async with other.running(system.client, replace=True):
        pass


async def test_a_registration_updates_and_never_removes(system: System) -> None:
    before = Handlers(service="rolling", application="tests")

    @before.on("rolling.a")
    async def kept(event: Event) -> None: ...

    @before.on("rolling.b")
    async def dropped(event: Event) -> None: ...

    after = Handlers(service="rolling", application="tests")

    @after.on("rolling.a", "rolling.c", filters=[{"exact": {"subject": "1"}}], name="kept")
    async def changed(event: Event) -> None: ...

    async with before.running(system.client):
        pass
    async with after.running(system.client):
        stored = {each.target.address: each for each in await system.registry.handlers.list("rolling")}
    assert stored.keys() == {"rolling/kept", "rolling/dropped"}
    assert stored["rolling/kept"].types == ("rolling.a", "rolling.c")
    assert len(stored["rolling/kept"].filters) == 1
    (service,) = [each for each in await system.registry.handlers.services() if each.service == "rolling"]
    assert service.application == "tests"


SERVICE = r"""
import asyncio, os
from bellwire import Client, Event, Handlers

handlers = Handlers(service="mortal")
options = {"timeout": 10, "retry_schedule": [0.2] * 50, "concurrency": 3}

@handlers.on("mortal.now", **options)
async def in_loop(event: Event) -> None:
    await asyncio.sleep(0.05)
    os.write(1, f"in_loop {event.id}\n".encode())

@handlers.on("mortal.now", **options)
def in_thread(event: Event) -> None:
    os.write(1, f"in_thread {event.id}\n".encode())

async def main() -> None:
    await handlers.run(await Client.connect(), grace=5)
    print("ended", flush=True)

asyncio.run(main())
"""


async def start_service(system: System, program: Path, log: Path) -> Process:
    variables = {**environment_without("BELLWIRE_", "TEMPORAL_"), **system.variables, "PYTHONPATH": str(CHECKOUT)}
    return await Process.start("service", (sys.executable, str(program)), environment=variables, log=log)


def read(log: Path) -> str:
    return log.read_text()


def calls(logs: list[Path]) -> Counter[str]:
    """How often each function was called for each event, according to the processes' own output."""
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return Counter(line for line in lines if line.startswith("in_"))


@pytest.mark.slow
async def test_a_service_that_is_killed_at_random_moments_handles_each_event(system: System, tmp_path: Path) -> None:
    chance, program, logs = random.Random(14), tmp_path / "mortal.py", [tmp_path / "0.log"]
    program.write_text(SERVICE)
    service = await start_service(system, program, logs[0])
    try:
        await service.until(lambda: _registered(system, "mortal"), timeout=30)
        events = [Event(source="/tests", type="mortal.now", id=f"mortal-{number}") for number in range(40)]
        receipts = []
        for start in range(0, 40, 10):
            receipts += [await system.client.publish(each) for each in events[start : start + 10]]
            before = calls(logs).total()
            async with asyncio.timeout(60):
                while calls(logs).total() < before + chance.randint(1, 6):
                    await asyncio.sleep(0.01)
            os.kill(service.pid, signal.SIGKILL)
            logs.append(tmp_path / f"{start + 1}.log")
            service = await start_service(system, program, logs[-1])
        statuses = await system.client.wait_many(receipts, timeout=150)
        assert [status.counts.delivered for status in statuses] == [2] * 40
        found = calls(logs)
        assert found.keys() == {f"{name} {each.id}" for name in ("in_loop", "in_thread") for each in events}
        assert found.total() < 2 * 2 * 40, "what had ended before a kill is mostly not called again"
        # A graceful end: SIGTERM.
        os.kill(service.pid, signal.SIGTERM)
        async with asyncio.timeout(20):
            while "ended" not in logs[-1].read_text():
                await asyncio.sleep(0.05)
    finally:
        await service.stop(grace=10)


async def _registered(system: System, service: str) -> bool:
    return bool(await system.registry.handlers.list(service))


KILLER = r"""
import asyncio, os
from bellwire import Client, Event, Handlers

handlers = Handlers(service="killer")

@handlers.on("killer.now", retry_schedule=["0.2s"])
def work(event: Event) -> None:
    os.write(1, f"in_work {event.id}\n".encode())
    if event.id == "kills":
        os._exit(1)

async def main() -> None:
    await handlers.run(await Client.connect())

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_function_that_ends_its_process_is_exhausted_and_what_is_beside_it_is_handled(
    system: System, tmp_path: Path
) -> None:
    program, logs = tmp_path / "killer.py", [tmp_path / "0.log"]
    program.write_text(KILLER)
    service = await start_service(system, program, logs[0])
    try:
        await service.until(lambda: _registered(system, "killer"), timeout=30)
        events = [Event(source="/tests", type="killer.now", id=name) for name in ("before", "kills", "after")]
        waiting = asyncio.create_task(system.client.wait_many(await system.client.publish_many(events), timeout=150))
        while not waiting.done():  # what starts it again has no limit
            ended = asyncio.create_task(service.ended())
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.cancel():
                assert isinstance(ended.exception(), ProcessFailed)
                logs.append(tmp_path / f"{len(logs)}.log")
                service = await start_service(system, program, logs[-1])
        before, kills, after = waiting.result()
    finally:
        await service.stop(grace=10)
    assert (before.counts.delivered, after.counts.delivered) == (1, 1)
    assert (kills.counts.exhausted, kills.failed[0].attempts) == (1, 2)
    assert kills.failed[0].reason == "the process ended during the call, twice"
    attempts = [len(await system.registry.attempts.list(each.key)) for each in events]
    assert attempts == [1, 2, 1], "the others use up nothing"
    assert calls(logs)["in_work kills"] == 4


@pytest.mark.slow
async def test_a_service_that_stops_finishes_what_runs_and_hands_the_rest_back(system: System) -> None:
    begun, ended = list[str](), list[str]()

    def declared() -> Handlers:
        handlers = Handlers(service="graceful", application="tests")

        @handlers.on("graceful.now", concurrency=2)
        async def slow(event: Event) -> None:
            begun.append(event.id)
            await asyncio.sleep(0.5)
            ended.append(event.id)

        return handlers

    async with declared().running(system.client):
        receipts = await system.client.publish_many([event("graceful.now") for _ in range(10)])
        async with asyncio.timeout(20):
            while not begun:
                await asyncio.sleep(0.01)
    assert begun == ended, "what runs ends"
    assert 2 <= len(begun) < 10
    async with declared().running(system.client):
        statuses = await system.client.wait_many(receipts, timeout=60)
    assert [status.counts.delivered for status in statuses] == [1] * 10
    assert len(begun) == len(ended) == 10, "nothing is called twice"


@pytest.mark.slow
async def test_the_example_gets_what_happened_before_it_ran_and_survives_a_kill(system: System, tmp_path: Path) -> None:
    example, logs = CHECKOUT / "examples" / "pubsub.py", [tmp_path / f"{number}.log" for number in range(3)]
    assert len(example.read_text().splitlines()) < 60
    variables = {**environment_without("BELLWIRE_", "TEMPORAL_"), **system.variables, "PYTHONPATH": str(CHECKOUT)}

    async def start(log: Path, *arguments: str) -> Process:
        command = (sys.executable, str(example), *arguments)
        return await Process.start("pubsub", command, environment=variables, log=log)

    async def prints(log: Path, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in read(log):
                await asyncio.sleep(0.05)

    # Without arguments, it publishes, subscribes, handles, and ends by itself.
    command = (sys.executable, str(example))
    whole = await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE)
    try:
        printed, _ = await asyncio.wait_for(whole.communicate(), timeout=60)
    finally:
        if whole.returncode is None:
            whole.kill()
    assert whole.returncode == 0
    assert printed.decode().index("published") < printed.decode().index("Welcome, ann!")

    publisher = await start(logs[0], "publish", "Ann")
    await prints(logs[0], "published")
    service = await start(logs[1], "run")
    try:
        await prints(logs[1], "greeting Ann")
        os.kill(service.pid, signal.SIGKILL)
        assert "Welcome" not in logs[1].read_text()
        service = await start(logs[2], "run")
        await prints(logs[2], "Welcome, Ann!")
    finally:
        await service.stop(grace=10)
        await publisher.stop(grace=10)
