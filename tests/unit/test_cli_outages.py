"""Each command with Temporal, the registry or the workers away: it ends, says what is down in plain words, and claims nothing."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from bellwire.contract import Group
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.cli.main import main
from tests.conftest import start_dev_server
from tests.factories import event, subscription

#: More than any command may take. Connecting to a silent server takes 10 s.
LIMIT = 90
ONE = event(id="1")
DELIVERY = f"dlv_{ONE.key}_hook"
PUBLISH = ["publish", "--type", "order.paid", "--source", "/shop"]
#: What the Rust client and the drivers say, and people cannot read.
RAW = re.compile(r"h2 protocol|tonic|Status \{|os error|Traceback|RPCError|Errno")

NEITHER = [["templates", "list"], ["templates", "preview", "order.paid"], ["keys", "new"]]
REGISTRY_ONLY = [
    ["subscribe", "--tenant", "acme", "--type", "*", "--email", "ann@example.com"],
    ["subscriptions"],
    ["subscriptions", "list"],
    ["subscriptions", "show", "hook"],
    ["subscriptions", "pause", "hook"],
    ["subscriptions", "resume", "hook"],
    ["subscriptions", "rotate", "hook"],
    ["events", "list"],
    ["deliveries", "list"],
    ["deliveries", "show", DELIVERY],
    ["suppressions"],
    ["suppressions", "list"],
    ["suppressions", "add", "bob@example.com"],
    ["purge", "--older-than", "30d", "--offline"],
    ["erase", "bob@example.com", "--dry-run"],
]
TEMPORAL_ONLY = [PUBLISH, [*PUBLISH, "--wait", "1"]]
BOTH = [
    ["setup"],
    ["limits"],
    ["limits", "set", "sms", "5"],
    ["limits", "clear", "sms"],
    ["purge", "--older-than", "30d"],
]
#: These need a worker too.
ALL_THREE = [
    ["subscriptions", "test", "hook"],
    ["deliveries", "retry", DELIVERY],
    ["deliveries", "retry", "--event", "1", "--subscription", "hook"],
    *([[*words, "1"] for words in (["events", "pause"], ["events", "resume"], ["events", "cancel"])]),
    ["events", "pause", "1", "--subscription", "hook"],
]
SHOW = ["events", "show", "1"]


def name_of(arguments: list[str]) -> str:
    return " ".join(arguments)


async def prepare(url: str) -> None:
    registry = await Registry.open(url)
    try:
        await registry.migrate()
        await registry.subscriptions.create(subscription(id="hook"))
        await registry.events.accept([ONE], "event//shop/1")
        group = Group(event_key=ONE.key, channel=Channel.WEBHOOK, subscription_ids=("hook",))
        await registry.deliveries.add("event//shop/1", [group])
    finally:
        await registry.close()


@pytest.fixture
async def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry with one unsettled delivery; Temporal refuses connections."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    await prepare(url)
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    return url


@pytest.fixture
def silent() -> Iterator[str]:
    """host:port of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
async def without_workers() -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal that no worker has ever polled."""
    async with await start_dev_server() as env:
        yield env


async def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a command, which must end and speak plainly."""
    async with asyncio.timeout(LIMIT):
        status = await asyncio.to_thread(main, arguments)
    out, err = capsys.readouterr()
    assert not RAW.search(err), err
    return status, out, err


def is_one_error(status: int, err: str, words: str) -> bool:
    return status == 1 and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err


@pytest.mark.parametrize("arguments", [*TEMPORAL_ONLY, *BOTH, *ALL_THREE], ids=name_of)
async def test_without_temporal_the_error_names_its_address(
    arguments: list[str], healthy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = await outcome(arguments, capsys)
    assert is_one_error(status, err, "cannot reach Temporal at 127.0.0.1:1: connection refused; check TEMPORAL_ADDRESS")


@pytest.mark.parametrize("arguments", [*NEITHER, *REGISTRY_ONLY], ids=name_of)
async def test_what_needs_no_temporal_works_without_it(
    arguments: list[str], healthy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = await outcome(arguments, capsys)
    assert (status, "Temporal" in err) == (0, False)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [PUBLISH, ["subscriptions", "test", "hook"]], ids=name_of)
async def test_a_temporal_that_stays_silent_is_given_up(
    arguments: list[str], healthy: str, silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", silent)
    status, _, err = await outcome(arguments, capsys)
    assert is_one_error(status, err, f"cannot reach Temporal at {silent}: no response within 10 s")


@pytest.mark.parametrize("arguments", [*REGISTRY_ONLY, *BOTH, *ALL_THREE, SHOW], ids=name_of)
async def test_without_the_registry_the_error_names_its_variable(
    arguments: list[str], healthy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", "postgresql://bellwire:secret@127.0.0.1:1/bellwire")
    status, _, err = await outcome(arguments, capsys)
    assert is_one_error(status, err, "BELLWIRE_REGISTRY_URL")
    assert "secret" not in err


@pytest.mark.parametrize("arguments", REGISTRY_ONLY, ids=name_of)
def test_a_command_makes_no_registry_where_there_is_none(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.db"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", f"sqlite:///{file}")
    status = main(arguments)
    out, err = capsys.readouterr()
    remedy = "correct the path, or make it with `python -m starter setup`"
    said = f"error: BELLWIRE_REGISTRY_URL: there is no registry at {file}; {remedy}\n"
    assert (status, out, err) == (2, "", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
async def test_a_registry_that_stays_silent_is_given_up(
    healthy: str, silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", f"postgresql://bellwire:secret@{silent}/bellwire")
    status, _, err = await outcome(["subscriptions"], capsys)
    assert is_one_error(status, err, "BELLWIRE_REGISTRY_URL")


@pytest.mark.parametrize("arguments", ALL_THREE, ids=name_of)
async def test_without_a_worker_the_error_says_so(
    arguments: list[str],
    healthy: str,
    without_workers: WorkflowEnvironment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", without_workers.client.service_client.config.target_host)
    status, _, err = await outcome(arguments, capsys)
    assert status == 1
    assert re.search(r"^error: .*no worker polls the .*queue.*; start `python worker\.py", err, re.IGNORECASE)


async def test_a_published_event_is_not_reported_as_failed_without_a_worker(
    healthy: str,
    without_workers: WorkflowEnvironment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", without_workers.client.service_client.config.target_host)
    started = datetime.now(UTC)
    status, out, err = await outcome([*PUBLISH, "--wait", "1", "--json"], capsys)
    receipt = json.loads(out)
    assert (status, receipt["settled"], receipt["counts"], receipt["duplicate"]) == (1, False, None, False)
    said = (
        "error: the event is published, but not settled within 1s: no worker polls the task queue `bellwire`; "
        "start `python worker.py`"
    )
    assert err.splitlines() == ["tenant: default: no subscription was ever stored for it; check the spelling", said]
    description = await without_workers.client.get_workflow_handle(receipt["workflow_id"]).describe()
    assert description.start_time >= started.replace(microsecond=0)
    status, out, err = await outcome([*PUBLISH, "--wait", "1"], capsys)
    assert "not known" in out
    assert "no matching subscriptions" not in out


async def test_an_event_is_shown_from_the_registry_without_a_worker(
    healthy: str,
    without_workers: WorkflowEnvironment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", without_workers.client.service_client.config.target_host)
    status, out, err = await outcome([*SHOW, "--json"], capsys)
    assert (status, json.loads(out)["live"]) == (0, None)
    assert re.search("the registry's state is shown: .*no worker polls", err, re.IGNORECASE)
