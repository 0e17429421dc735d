"""`limits` against a real Temporal server: registry and server agree, or the registry has the stricter limit."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bellwire import contract
from bellwire.contract import Chunk, ChunkResult, channel_queue
from bellwire.registry import Registry
from bellwire.targets import WORKER_CHANNELS, Channel
from bellwire.temporal.connection import connect
from starter.cli.main import main
from starter.operations.platform import limits
from starter.operations.platform.limits import Limit, LimitsUnsupported
from starter.operations.problems import OperationError
from tests.conftest import start_dev_server

SMS = Channel.SMS
#: Activities of a run, and a limit per second that lets at most one through in a quarter of an hour.
SENT, SLOW = 12, 0.001


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """A server of its own, since limits affect every run on it."""
    async with await start_dev_server() as env:
        yield env


@pytest.fixture
async def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Registry]:
    """An empty registry, which the commands use; Temporal cannot be reached."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    opened = await Registry.open(url)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def client(server: WorkflowEnvironment, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of the server, which has no limits and which the commands use."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", address_of(server))
    for limit in await limits.list_limits(registry, server.client):
        if limit.server is not None:
            await limits.clear_limit(registry, server.client, limit.channel)
    return server.client


def address_of(env: WorkflowEnvironment) -> str:
    return env.client.service_client.config.target_host


async def run(*arguments: str) -> int:
    """The exit status of a command, run in an event loop of its own."""
    return await asyncio.to_thread(main, arguments)


async def test_a_limit_is_set_shown_changed_and_cleared_in_both_places(
    client: Client, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    async def output(*arguments: str) -> Any:
        status = await run("limits", *arguments, "--json")
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return json.loads(out)

    none = [{"channel": str(channel), "registry": None, "server": None} for channel in WORKER_CHANNELS]
    assert await output() == none
    limited = {"channel": "sms", "registry": 0.1, "server": 0.1}
    assert await output("set", "sms", "0.1") == limited
    assert await output() == [limited if one["channel"] == "sms" else one for one in none]
    assert await registry.limits.by_channel() == {SMS: 0.1}
    assert await output("set", "sms", "10000") == {"channel": "sms", "registry": 10_000, "server": 10_000}
    assert await output("clear", "sms") == {"channel": "sms", "registry": None, "server": None}
    assert await output("clear", "sms") == {"channel": "sms", "registry": None, "server": None}
    assert await output() == none
    assert await registry.limits.by_channel() == {}


async def test_the_table_notes_differences_and_the_command_that_fixes_them(
    client: Client, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("limits", "set", "webhook", "2.5") == 0
    await registry.limits.set(Channel.EMAIL, 7)
    await limits.update_server(client, SMS, 5)
    capsys.readouterr()
    assert await run("limits") == 0
    out, err = capsys.readouterr()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [each for each in cells if each[1:] != ["no limit", "no limit"]] == [
        ["email", "7", "no limit"],
        ["sms", "no limit", "5"],
        ["webhook", "2.5", "2.5"],
    ]
    assert err.splitlines() == [
        "email: registry and server differ; `python -m starter limits set email 7` or `limits clear email` fixes it",
        "sms: registry and server differ; `python -m starter limits set sms 5` or `limits clear sms` fixes it",
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["set", "fax", "10"], "CHANNEL"),
        (["clear", "fax"], "CHANNEL"),
        (["set", "sms"], "PER_SECOND"),
        (["set", "sms", "many"], "PER_SECOND: 'many' is not a number from 0.001 to 10,000; `limits clear` removes"),
        (["set", "sms", "0"], "PER_SECOND: '0' is not a number"),
        (["set", "sms", "-5"], "PER_SECOND: '-5' is not a number"),
        (["set", "sms", "nan"], "PER_SECOND: 'nan' is not a number"),
        (["set", "sms", "inf"], "PER_SECOND: 'inf' is not a number"),
        (["set", "sms", "10001"], "PER_SECOND: '10001' is not a number"),
        (["set", "sms", "5", "--colour"], "--colour"),
    ],
)
async def test_a_bad_argument_is_named_and_changes_nothing(
    arguments: list[str], named: str, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("limits", *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert await registry.limits.by_channel() == {}


@pytest.mark.parametrize("before", [None, 3.0])
async def test_without_temporal_limits_do_not_change(
    before: float | None, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    if before is not None:
        await registry.limits.set(SMS, before)
    for arguments in (["set", "sms", "10"], ["clear", "sms"], []):
        assert await run("limits", *arguments) == 1
        assert "cannot reach Temporal at 127.0.0.1:1" in capsys.readouterr().err
    assert (await registry.limits.by_channel()).get(SMS) == before


@pytest.mark.parametrize("before", [None, 3.0])
async def test_a_server_without_limits_is_reported_and_the_registry_is_unchanged(
    before: float | None,
    time_skipping: WorkflowEnvironment,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", address_of(time_skipping))
    if before is not None:
        await registry.limits.set(SMS, before)
    assert await run("limits", "set", "sms", "10") == 1
    assert capsys.readouterr().err == f"error: {LimitsUnsupported.__doc__}\n"
    assert (await registry.limits.by_channel()).get(SMS) == before
    assert await run("limits", "clear", "sms", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"channel": "sms", "registry": None, "server": None}
    assert await registry.limits.by_channel() == {}


async def test_a_refusal_of_the_server_leaves_the_registry_unchanged(client: Client, registry: Registry) -> None:
    await registry.limits.set(SMS, 3)
    other_namespace = await connect(target_host=client.service_client.config.target_host, namespace="nowhere")
    with pytest.raises(OperationError, match="sms: Temporal refused: Namespace nowhere is not found"):
        await limits.set_limit(registry, other_namespace, SMS, 10)
    with pytest.raises(OperationError, match="nothing was changed"):
        await limits.clear_limit(registry, other_namespace, SMS)
    assert await registry.limits.by_channel() == {SMS: 3}


async def test_a_server_that_does_not_respond_leaves_the_registry_limited(registry: Registry) -> None:
    """The server may have accepted the limit; it must not limit chunks."""
    async with await start_dev_server() as env:
        client = env.client
    for attempted in (limits.set_limit(registry, client, SMS, 10), limits.clear_limit(registry, client, SMS)):
        with pytest.raises(OperationError, match=r"^sms: Temporal did not respond: .*try again"):
            await attempted
        assert await registry.limits.by_channel() == {SMS: 10}


async def test_a_limit_that_another_client_set_on_the_server_alone_is_copied_and_reported(
    client: Client, registry: Registry
) -> None:
    await limits.update_server(client, SMS, 5)
    with pytest.raises(
        OperationError, match="sms: the limit was changed at the same time by another client, and is 5 per"
    ):
        await limits.read_back(registry, client, SMS)
    assert await limits.read_back(registry, client, SMS) == Limit(SMS, 5, 5)


@workflow.defn
class Sends:
    """Sends deliveries on one channel, each as an activity of its own, as runs do when the channel has a limit."""

    @workflow.run
    async def run(self, channel: Channel) -> None:
        pending: list[Coroutine[Any, Any, ChunkResult]] = [_send(channel) for _ in range(SENT)]
        await asyncio.gather(*pending)


async def _send(channel: Channel) -> ChunkResult:
    return await workflow.execute_activity(
        contract.SEND[channel],
        Chunk(groups=(), schedule=()),
        task_queue=channel_queue(channel),
        start_to_close_timeout=timedelta(seconds=10),
    )


@activity.defn(name="send_sms")
async def _send_sms(chunk: Chunk) -> ChunkResult:
    return ChunkResult(settled={})


@activity.defn(name="send_email")
async def _send_email(chunk: Chunk) -> ChunkResult:
    return ChunkResult(settled={})


async def unfinished(run: WorkflowHandle[Any, Any]) -> int:
    return len((await run.describe()).raw_description.pending_activities)


async def test_the_server_holds_activities_back_that_exceed_the_limit(client: Client, registry: Registry) -> None:
    await limits.set_limit(registry, client, SMS, SLOW)
    async with (
        Worker(client, task_queue=contract.QUEUE, workflows=[Sends], workflow_runner=UnsandboxedWorkflowRunner()),
        Worker(client, task_queue=channel_queue(SMS), activities=[_send_sms]),
        Worker(client, task_queue=channel_queue(Channel.EMAIL), activities=[_send_email]),
    ):
        limited = await client.start_workflow(Sends.run, SMS, id="limited", task_queue=contract.QUEUE)
        async with asyncio.timeout(30):
            while await unfinished(limited) < SENT - 1:  # none is scheduled yet
                await asyncio.sleep(0.05)
        unlimited = client.execute_workflow(Sends.run, Channel.EMAIL, id="unlimited", task_queue=contract.QUEUE)
        await asyncio.wait_for(unlimited, 30)
        assert await unfinished(limited) >= SENT - 1, "the limited activities ran like unlimited ones"
        await limited.terminate()
