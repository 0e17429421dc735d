"""Each command that changes something adds to the audit log who did it; a new command must be classified here."""

import asyncio
import getpass
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from temporalio.service import RPCError, RPCStatusCode
from typer.main import get_command

from bellwire.client import Client
from bellwire.contract import Action, ControlResult
from bellwire.keys.keyring import new_entry
from bellwire.registry import Registry
from bellwire.registry.api.api_keys import ApiKey
from bellwire.registry.db.auditing import Actor, AuditEntry, acting
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel, HandlerTarget
from starter.cli.main import app, main
from starter.operations.delivery.controlling import control
from starter.operations.delivery.deliveries import get_delivery, retry_delivery
from starter.operations.platform.limits import set_limit
from starter.operations.problems import OperationError
from tests.unit.test_bounces_command import EVENT, bounce, registry_url, token

__all__ = ["registry_url"]

#: What leaves the registry as it is, or is its own record: an event that was published is listed as such.
UNCHANGED = {
    *("demo", "dev", "gateway", "relay", "setup", "publish", "keys new", "keys env"),
    *("subscriptions", "subscriptions list", "subscriptions show", "subscriptions test"),
    *("events list", "events show", "deliveries list", "deliveries show", "explain", "subscriptions simulate"),
    *("events scheduled", "replay list", "replay show"),
    *("schedules list", "schedules show", "schedules ticks"),
    *("handlers", "handlers list"),
    *("suppressions", "suppressions list", "limits", "templates list", "templates preview"),
    *("types list", "types show", "types lint", "types docs", "api-keys list"),
}
#: tests/acceptance/test_schedules.py checks their entries.
_SCHEDULES = {f"schedules {name}" for name in ("create", "pause", "resume", "trigger", "backfill", "delete")}
#: What changes through Temporal, which these tests do not have: they call the operation itself.
THROUGH_TEMPORAL = {
    "events pause",
    "events resume",
    "events cancel",
    "deliveries retry",
    "deliveries recall",
    "limits set",
    "limits clear",
    *_SCHEDULES,
    *("replay start", "replay pause", "replay resume", "replay cancel"),
}
HOOK = ["--type", "a", "--webhook", "https://app.example/hooks"]
KEY = "{key}"
#: Of the others, arguments in the order in which they can be run, and the actions that they add.
CHANGING: list[tuple[list[str], list[str]]] = [
    (["subscribe", "--id", "made", "--tenant", "acme", *HOOK], ["subscription.created"]),
    (["subscriptions", "update", "made", "--locale", "de"], ["subscription.updated"]),
    (["subscriptions", "pause", "made"], ["subscription.paused"]),
    (["subscriptions", "resume", "made"], ["subscription.resumed"]),
    (["subscriptions", "rotate", "made"], ["subscription.secret_rotated"]),
    (["subscriptions", "delete", "made"], ["subscription.deleted"]),
    (["handlers", "remove", "accounts"], ["handler.removed"]),
    (["suppressions", "add", "eve@example.com"], ["suppression.added"]),
    (["suppressions", "lift", "eve@example.com"], ["suppression.lifted"]),
    (["bounces", "report.eml"], ["suppression.added"]),
    (["types", "add", "order.paid", "--schema", '{"type": "object"}'], ["event_type.stored"]),
    (["types", "add", "order.paid", "--schema", '{"type": "array"}', "--force"], ["event_type.forced"]),
    (["types", "add", "--file", "types.json"], ["event_type.stored", "event_type.stored"]),
    (["types", "import", "api.json"], ["event_type.stored"]),
    (["types", "delete", "order.paid"], ["event_type.removed"]),
    (["api-keys", "create", "--scope", "publish"], ["api_key.created"]),
    (["api-keys", "rotate", KEY], ["api_key.rotated"]),
    (["api-keys", "revoke", KEY], ["api_key.revoked"]),
    (["erase", "ann@example.com", "--grace", "0s"], ["recipient.erased"]),
    (["rekey"], ["registry.rekeyed"]),
    (["purge", "--older-than", "30d", "--offline"], ["events.purged"]),
]


def commands(command: Any, name: str = "") -> Iterator[str]:
    """The names of all commands; a group that does something without a subcommand is one too."""
    if name and (not hasattr(command, "commands") or command.invoke_without_command):
        yield name
    if hasattr(command, "commands"):
        for each in command.list_commands(None):
            yield from commands(command.commands[each], f"{name} {each}".strip())


def test_every_command_is_classified() -> None:
    changing = {" ".join(arguments[: 2 if arguments[0] in GROUPS else 1]) for arguments, _ in CHANGING}
    assert set(commands(get_command(app))) == UNCHANGED | THROUGH_TEMPORAL | changing


GROUPS = {name.split()[0] for name in commands(get_command(app)) if " " in name}


async def _entries(url: str) -> list[AuditEntry]:
    registry = await Registry.open(url)
    try:
        return list(await registry.audit_log.list(limit=500))[::-1]
    finally:
        await registry.close()


async def _newest_key(url: str) -> ApiKey:
    registry = await Registry.open(url)
    try:
        return (await registry.api_keys.list())[-1]
    finally:
        await registry.close()


async def _register_a_handler(url: str) -> None:
    registry = await Registry.open(url)
    try:
        target = HandlerTarget(service="accounts", name="send_welcome")
        await registry.handlers.register("accounts", "tests", [Subscription(types=("user.registered",), target=target)])
    finally:
        await registry.close()


@pytest.fixture
def documents(registry_url: str, tmp_path: Path) -> None:
    """The files that commands read."""
    (tmp_path / "report.eml").write_bytes(bounce(to=token()))
    (tmp_path / "types.json").write_text(json.dumps([{"type": "a.b"}, {"type": "a.c"}]))
    webhooks = {"a.d": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}}}
    asyncio.run(_register_a_handler(registry_url))
    (tmp_path / "api.json").write_text(json.dumps({"openapi": "3.1.0", "webhooks": webhooks}))


@pytest.mark.usefixtures("documents")
def test_each_changing_command_says_who_changed_what(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = 0
    for arguments, actions in CHANGING:
        if arguments == ["rekey"]:
            monkeypatch.setenv("BELLWIRE_ENCRYPTION_KEYS", new_entry("first"))
        given = [asyncio.run(_newest_key(registry_url)).id if each == KEY else each for each in arguments]
        assert main(given) == 0, given
        entries = asyncio.run(_entries(registry_url))
        assert [entry.action for entry in entries[known:]] == actions, given
        assert {(entry.actor, entry.origin) for entry in entries[known:]} == {(getpass.getuser(), platform.node())}
        assert not any("@" in entry.resource for entry in entries), given
        known = len(entries)


class _Accepting:
    """A client whose calls succeed."""

    async def pause(self, *_: Any) -> ControlResult:
        return ControlResult(deliveries=1)

    resume = pause

    async def cancel(self, *_: Any) -> None:
        pass

    async def retry(self, *_: Any, **__: Any) -> str:
        return "workflow"


async def _control_all(url: str) -> None:
    registry, client = await Registry.open(url), cast(Client, _Accepting())
    try:
        stored = await registry.events.get(EVENT.key)
        (delivery,) = await registry.deliveries.list()
        with acting(Actor("ann", "laptop")):
            for action in (Action.PAUSE, Action.RESUME, Action.CANCEL):
                await control(client, registry, action, stored, [None])
            await retry_delivery(client, registry, await get_delivery(registry, delivery.key))
            temporal = Mock(namespace="default", identity="test")
            refusal = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
            temporal.workflow_service.update_task_queue_config = AsyncMock(side_effect=refusal)
            with pytest.raises(OperationError):
                await set_limit(registry, temporal, Channel.SMS, 5)
    finally:
        await registry.close()


def test_each_change_through_temporal_has_an_entry(registry_url: str) -> None:
    asyncio.run(_control_all(registry_url))
    entries = asyncio.run(_entries(registry_url))
    # Those of one millisecond have no order.
    assert sorted(entry.action for entry in entries) == [
        *("delivery.redelivered", "event.cancelled", "event.paused", "event.resumed", "limit.set")
    ]
    assert [entry.resource for entry in entries if entry.action.startswith("event.")] == [EVENT.key] * 3


@pytest.mark.usefixtures("registry_url")
def test_what_is_only_tried_has_no_entry(registry_url: str) -> None:
    for arguments in (
        ["purge", "--older-than", "30d", "--offline", "--dry-run"],
        ["erase", "ann@example.com", "--dry-run"],
    ):
        assert main(arguments) == 0
    assert asyncio.run(_entries(registry_url)) == []
