"""`deliveries recall` on the whole system: a worker process takes messages back, and the registry says so."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bellwire import Event
from bellwire.contract import RECALLED
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.slack import FakeSlack
from tests.acceptance.conftest import System, running_system, start_worker
from tests.acceptance.test_failing_endpoints import command

ROOMS = [f"C{number}" for number in range(3)]


@pytest.fixture(scope="module")
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as fake:
        yield fake


@asynccontextmanager
async def running_chats(slack: FakeSlack, folder: Path) -> AsyncIterator[System]:
    """A system with three rooms of Slack and a webhook."""
    accounts = folder / "accounts.json"
    secret = "BELLWIRE_ACCOUNT_SECRETS__SLACK"
    accounts.write_text(json.dumps({"slack": {"default": {"token": secret, "url": slack.api}}}))
    settings = {"BELLWIRE_ACCOUNTS": str(accounts), secret: slack.token}
    async with running_system(folder, database=None, **settings) as system:
        for room in ROOMS:
            await system.subscribe({"channel": "slack", "conversation": room}, "order.*", id=room.lower())
        await system.hook("/hook", "order.*", id="hook")
        yield system


@pytest.fixture(scope="module")
async def chats(slack: FakeSlack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_chats(slack, tmp_path_factory.mktemp("chats")) as system:
        yield system


async def recall(system: System, *arguments: str) -> tuple[int, dict[str, str], str]:
    status, out, err = await command(system, "deliveries", "recall", *arguments, "--json")
    return status, {each["subscription"]: each["result"] for each in json.loads(out)}, err


async def test_messages_are_taken_back_and_the_record_says_so(chats: System, slack: FakeSlack) -> None:
    event = Event(source="/shop", id="one", type="order.paid", data={"order": "42"})
    await chats.client.wait(await chats.client.publish(event), timeout=30)
    assert [len(slack.shown(room)) for room in ROOMS] == [1, 1, 1]

    status, results, _ = await recall(chats, "one", "--subscription", "c0")
    assert (status, results) == (0, {"c0": "taken back"})
    assert [len(slack.shown(room)) for room in ROOMS] == [0, 1, 1]

    # The provider is busy at first, so the worker asks again.
    slack.script(Answer(status=503, body=""), recipient="C1")
    status, results, _ = await recall(chats, "one")
    assert (status, results) == (
        0,
        {"c0": "taken back", "c1": "taken back", "c2": "taken back", "hook": "cannot be taken back"},
    )
    assert [len(slack.shown(room)) for room in ROOMS] == [0, 0, 0]
    assert (await recall(chats, "one"))[1] == results

    found = await chats.registry.deliveries.list(event_key=event.key)
    assert {each.subscription_id: each.reason for each in found if each.channel == "slack"} == dict.fromkeys(
        ("c0", "c1", "c2"), RECALLED
    )
    assert {str(each.state) for each in found} == {"delivered"}
    entries = [entry for entry in await chats.registry.audit_log.list(limit=50) if entry.action == "event.recalled"]
    assert [entry.resource for entry in entries] == [event.key] * 3
    _, shown, _ = await command(chats, "events", "show", "one")
    assert RECALLED in shown


async def test_a_refusal_ends_the_command_with_an_error(chats: System, slack: FakeSlack) -> None:
    event = Event(source="/shop", id="two", type="order.paid")
    await chats.client.wait(await chats.client.publish(event), timeout=30)
    slack.too_old |= {each.id for each in slack.accepted if each.recipient == "C2"}
    status, results, err = await recall(chats, "two")
    assert (status, results["c1"], results["c2"]) == (1, "taken back", "refused")
    assert "1 of 4 messages not taken back" in err


async def test_an_event_that_is_not_known_is_refused(chats: System) -> None:
    status, out, err = await command(chats, "deliveries", "recall", "three")
    assert (status, out) == (1, "")
    assert "no event three" in err


@pytest.mark.slow
async def test_a_killed_worker_changes_and_takes_back_nothing_by_halves(tmp_path: Path) -> None:
    async with FakeSlack() as slack, running_chats(slack, tmp_path) as system:
        first = Event(source="/shop", id="first", type="order.paid", data={"order": "FIRST"})
        await system.client.wait(await system.client.publish(first), timeout=30)

        slack.script(Answer(accept=True, never=True), recipient="C1")
        second = Event(
            source="/shop", id="second", type="order.paid", data={"order": "SECOND"}, extensions={"replaces": "first"}
        )
        receipt = await system.client.publish(second)
        await _until(lambda: [each.edits for each in slack.accepted] == [1, 1, 1])
        os.kill(system.stack.processes[1].pid, signal.SIGKILL)
        other = await start_worker(system, tmp_path, "other")
        try:
            status = await system.client.wait(receipt, timeout=60)
            assert status.counts.delivered == len(ROOMS) + 1
            assert ["SECOND" in str(each.content) for each in slack.accepted] == [True] * len(ROOMS)

            slack.script(Answer(accept=True, never=True), recipient="C1")
            recalling = asyncio.create_task(recall(system, "second"))
            await _until(lambda: all(each.recalled for each in slack.accepted))
            os.kill(other.pid, signal.SIGKILL)
        finally:
            await other.stop(grace=0)
        last = await start_worker(system, tmp_path, "last")
        try:
            status_code, results, _ = await recalling
        finally:
            await last.stop(grace=10)
        assert (status_code, {results[room.lower()] for room in ROOMS}) == (0, {"taken back"})
        found = await system.registry.deliveries.list(event_key=second.key)
        assert [each.reason for each in found if each.channel == "slack"] == [RECALLED] * len(ROOMS)


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0.01)
