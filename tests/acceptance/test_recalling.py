"""Recalls on the whole system, by command and by HTTP: a worker process takes messages back, and the registry says so."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bellwire import Event
from bellwire.contract import RECALLED, RecallResult
from bellwire.errors import EventNotFound, NotRecallable
from bellwire.http.client import HttpClient
from bellwire.keys.api_keys import Scope
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.slack import FakeSlack
from tests.acceptance.conftest import System, running_gateway, running_system, start_worker
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
    assert "1 of 4 messages were not taken back" in err


@pytest.fixture(scope="module")
async def http(chats: System, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpClient]:
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    key = (await chats.registry.api_keys.create(Scope.parse("publish"))).key
    async with running_gateway(chats, log=log) as url, HttpClient(url, key) as client:
        yield client


async def test_messages_are_taken_back_by_http_once_and_again(
    chats: System, slack: FakeSlack, http: HttpClient
) -> None:
    event = Event(source="/shop", id="by-http", type="order.paid")
    await http.wait(await http.publish(event), timeout=30)
    before = {room: len(slack.shown(room)) for room in ROOMS}
    one = await http.recall(event, "c0", timeout=30)
    assert [(each.subscription_id, each.result) for each in one.deliveries] == [("c0", RecallResult.TAKEN_BACK)]
    recalled = await http.recall(event, timeout=30)
    assert recalled.results == {RecallResult.TAKEN_BACK: 3, RecallResult.UNSUPPORTED: 1}
    assert {room: before[room] - len(slack.shown(room)) for room in ROOMS} == dict.fromkeys(ROOMS, 1)
    requests = slack.requests
    assert await http.recall(event, timeout=30) == recalled == await chats.client.recall(event)
    assert slack.requests == requests
    entry = (await chats.registry.audit_log.list(limit=1))[0]
    assert (entry.action, entry.resource) == ("event.recalled", event.key)


async def test_a_recall_while_messages_are_sent_leaves_none(chats: System, slack: FakeSlack, http: HttpClient) -> None:
    event = Event(source="/shop", id="in-flight", type="order.paid", data={"order": "FLYING"})
    # One is accepted and answered late, one is refused for now, one is delivered.
    slack.script(Answer(accept=True, delay=2), recipient="C0")
    slack.script(Answer(status=503, body=""), recipient="C1")
    receipt = await http.publish(event)
    await _until(lambda: any("FLYING" in str(each) for each in slack.contents("C0")))
    recalled = await http.recall(event, timeout=60)
    assert (recalled.unfinished, recalled.results[RecallResult.TAKEN_BACK]) == (0, 2)
    assert (await http.status(receipt)).settled
    assert not any("FLYING" in str(each) for room in ROOMS for each in slack.shown(room))


async def test_what_cannot_be_recalled_says_what_to_do(chats: System, http: HttpClient) -> None:
    await chats.hook("/other", "other.*", id="other")
    event = Event(source="/shop", id="webhook-only", type="other.happened")
    await http.wait(await http.publish(event), timeout=30)
    with pytest.raises(NotRecallable, match=r"\(webhook\); cancel the event"):
        await http.recall(event)
    with pytest.raises(EventNotFound):
        await http.recall(("/shop", "nothing"))
    status, _, err = await command(chats, "deliveries", "recall", "webhook-only")
    assert (status, "publish a correction" in err) == (1, True)


async def test_an_event_for_later_is_cancelled_by_a_recall(http: HttpClient) -> None:
    event = Event(source="/shop", id="later", type="order.paid")
    await http.publish(event, delay="2d")
    assert (await http.recall(event, timeout=30)).results == {}
    assert (await http.status(event)).cancelled


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
