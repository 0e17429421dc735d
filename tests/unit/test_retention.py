"""`purge`, `erase` and `subscriptions delete`: what they refuse and print; no output names an address."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from starter.cli.main import main
from tests.factories import NOW, event, subscription

ANN, BOB, NUMBER = "ann@example.com", "bob@example.com", "+14155550123"
PURGE = ["purge", "--older-than", "0s", "--force", "--offline"]
ERASE = ["erase", ANN, "--grace", "0s"]

T = TypeVar("T")


@pytest.fixture
def registry_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a registry with subscriptions and two events, one of which waits; Temporal cannot be reached."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")

    async def prepare(registry: Registry) -> None:
        await registry.migrate()
        targets: dict[str, dict[str, Any]] = {
            "mail": {"channel": "email", "to": ANN},
            "list": {"channel": "email", "to": [ANN, BOB]},
            "text": {"channel": "sms", "to": NUMBER},
        }
        for name, target in targets.items():
            await registry.subscriptions.create(subscription(target, id=name))
        for name, state in {"done": DeliveryState.DELIVERED, "waits": DeliveryState.WAITING}.items():
            published, workflow_id = event(id=name), f"event//shop/{name}"
            await registry.events.accept([published], workflow_id)
            group = Group(event_key=published.key, channel="email", subscription_ids=("mail",))
            await registry.deliveries.add(workflow_id, [group])
            attempt = Attempt(
                event_key=published.key,
                subscription_id="mail",
                number=1,
                started_at=NOW,
                duration=0.1,
                outcome=Outcome(kind=OutcomeKind.DEFERRED, reason="SMTP 451", response=f"451 {ANN}"),
                state=state,
                delay=None if state.settled else 300,
            )
            await registry.attempts.record([attempt])

    query(url, prepare)
    return url


def query(url: str, operation: Callable[[Registry], Awaitable[T]]) -> T:
    async def run() -> T:
        registry = await Registry.open(url)
        try:
            return await operation(registry)
        finally:
            await registry.close()

    return asyncio.run(run())


def event_ids(url: str) -> list[str]:
    return [found.event.id for found in query(url, lambda registry: registry.events.list())]


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    status = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["purge"], 2, "--older-than"),
        (["purge", "--older-than", "soon"], 2, "--older-than: 'soon' is not a valid duration; write 90s"),
        (["purge", "--older-than", "-3d"], 2, "--older-than: '-3d' is not a valid duration"),
        (["purge", "--older-than", "23h", "--offline"], 2, "--older-than: is less than 1 d"),
        (["purge", "--older-than", "9999999d"], 2, "is out of range"),
        (["purge", "--older-than", "99999999999999d"], 2, "is out of range"),
        (["purge", "--older-than", "30d"], 1, "cannot reach Temporal at 127.0.0.1:1"),
        (["erase"], 2, "ADDRESS"),
        (["erase", "eve@"], 2, "ADDRESS: is not an email address"),
        (["erase", "0123"], 2, "ADDRESS: is not an E.164 number"),
        (["erase", ANN, "--channel", "sms"], 2, "ADDRESS: is not an E.164 number"),
        (["erase", "https://app.example", "--channel", "webhook"], 2, "--channel"),
        (["erase", ANN, "--grace", "soon"], 2, "--grace: 'soon' is not a valid duration"),
        (["subscriptions", "delete", "unknown"], 1, "no subscription"),
        (["subscriptions", "delete", "mail"], 1, "mail: 1 of its deliveries are unsettled; wait until they settle"),
    ],
)
def test_a_refusal_is_one_line_that_names_no_address(
    arguments: list[str], status: int, message: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err
    assert "eve@" not in err
    assert ANN not in err.replace(f"such as {ANN}", "")
    assert event_ids(registry_url) == ["waits", "done"]
    assert len(query(registry_url, lambda registry: registry.subscriptions.list())) == 3


def test_a_purge_prints_what_it_deleted_and_kept(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    planned = output_of([*PURGE, "--dry-run"], capsys)
    assert {name: planned[name] for name in ("events", "deliveries", "attempts", "kept", "dry_run")} == {
        "events": 1,
        "deliveries": 1,
        "attempts": 1,
        "kept": 1,
        "dry_run": True,
    }
    assert event_ids(registry_url) == ["waits", "done"]
    assert {**output_of(PURGE, capsys), "before": "", "dry_run": True} == {**planned, "before": ""}
    assert event_ids(registry_url) == ["waits"]
    assert main(PURGE) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if "events" in line] == ["events deleted 0", "events kept, unsettled 1"]


def test_a_younger_event_is_kept(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(["purge", "--older-than", "1d", "--offline"], capsys)["events"] == 0
    assert event_ids(registry_url) == ["waits", "done"]


def test_an_erasure_prints_what_it_changed_and_no_address(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = output_of([*ERASE, "--dry-run", "--events"], capsys)
    assert planned == {
        "channel": "email",
        "emptied": ["mail"],
        "shared": ["list"],
        "deliveries": 1,
        "attempts": 2,
        "cancelled": 1,
        "workflow_ids": ["event//shop/waits"],
        "events": 2,
        "suppressions": 0,
        "unsettled": 1,
        "dry_run": True,
    }
    assert main([*ERASE, "--events"]) == 0
    out, err = capsys.readouterr()
    assert "ann@" not in out + err
    assert "workflows that see the cancellation when it is due next: event//shop/waits" in err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert {"subscriptions emptied mail", "subscriptions with other recipients list", "events erased 2"} <= set(lines)
    listed = {each["id"]: each["target"] for each in output_of(["subscriptions"], capsys)}
    assert (listed["mail"]["to"], listed["list"]["to"]) == ("", [BOB])
    assert main(["subscriptions"]) == 0
    assert main(["subscriptions", "show", "mail"]) == 0
    capsys.readouterr()
    assert main(["subscriptions", "resume", "mail"]) == 2
    assert "target: the recipient was erased" in capsys.readouterr().err


def test_an_erasure_waits_only_if_attempts_may_be_in_flight(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["erase", ANN, "--grace", "0.01s"]) == 0
    assert "waiting 0.01s for attempts that may be in flight" in capsys.readouterr().err
    assert output_of(["erase", NUMBER, "--grace", "1d"], capsys)["emptied"] == ["text"]


def test_a_subscription_is_deleted_and_unsettled_deliveries_are_cancelled_by_force(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["subscriptions", "delete", "text"]) == 0
    assert capsys.readouterr().out == "text is deleted, with 0 deliveries\n"
    deleted = output_of(["subscriptions", "delete", "mail", "--force"], capsys)
    assert deleted == {"id": "mail", "deliveries": 2, "attempts": 2, "cancelled": 1}
    assert [each["id"] for each in output_of(["subscriptions"], capsys)] == ["list"]
    assert output_of(["deliveries", "list"], capsys) == []


def test_a_person_of_a_chat_is_suppressed_listed_lifted_and_erased(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def subscribe(registry: Registry) -> None:
        await registry.subscriptions.create(
            subscription({"channel": "telegram", "chat_id": "-10042", "account": "ops"}, id="chat")
        )

    query(registry_url, subscribe)
    on = ["--channel", "telegram"]
    assert output_of(["suppressions", "add", "ops/-10042", *on], capsys)["address"] == "ops/-10042"
    assert output_of(["suppressions", "add", "@ann_Person", *on], capsys)["address"] == "default/@ann_Person"
    for arguments in (["--address", "@ANN_person", *on], ["--address", "default/@ann_person"]):
        assert [each["address"] for each in output_of(["suppressions", *arguments], capsys)] == ["default/@ann_Person"]
    assert main(["suppressions", "--address", "no chat", *on]) == 2
    assert "--address: is not an address on telegram; write account/address" in capsys.readouterr().err
    assert output_of(["suppressions", "lift", "@ann_person", *on], capsys)["lifted"] is True
    assert main(["erase", "default/-10042", *on]) == 0
    assert "nothing is stored of this address on telegram" in capsys.readouterr().err
    erased = output_of(["erase", "ops/-10042", *on], capsys)
    assert (erased["channel"], erased["emptied"], erased["suppressions"]) == ("telegram", ["chat"], 1)
    assert "10042" not in json.dumps(output_of(["subscriptions", "show", "chat"], capsys))
    assert [each["address"] for each in output_of(["suppressions", "list"], capsys)] == [""]
