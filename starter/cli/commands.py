"""The commands by name, each imported when it is used: `--help` shows their summaries and must not load what they need."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command


class Command(NamedTuple):
    """Where a command or a group of commands is, and the first sentence of its help."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Command("demo.command", "demo", "Run an example on this machine and check the deliveries."),
    "dev": Command("admin.dev", "dev", "Run a whole stack until Ctrl-C."),
    "setup": Command("admin.setup", "setup", "Prepare registry and Temporal."),
    "subscribe": Command("subscribers.subscribe", "subscribe", "Store a subscription, or many."),
    "subscriptions": Command(
        "subscribers.subscriptions",
        "app",
        "List subscriptions; show, update, test, pause, resume or delete one, or rotate its secret.",
    ),
    "handlers": Command(
        "subscribers.handlers", "app", "List the handlers that services have registered in code; remove one."
    ),
    "publish": Command("delivery.publish", "publish", "Publish an event, or many."),
    "events": Command("delivery.events", "app", "List events; show, pause, resume or cancel one."),
    "explain": Command(
        "delivery.explain", "explain", "Explain why an event matched a subscription or did not, step by step."
    ),
    "schedules": Command(
        "delivery.schedules",
        "app",
        "Publish events by the clock: create, list, show, pause, resume, trigger or delete a schedule; list its ticks.",
    ),
    "deliveries": Command(
        "delivery.deliveries",
        "app",
        "List deliveries; show one, attempt one or many again, or take back what was delivered.",
    ),
    "replay": Command(
        "delivery.replay",
        "app",
        "Send past events or deliveries to a subscription; list, show, pause, resume or cancel such replays.",
    ),
    "suppressions": Command(
        "subscribers.suppressions", "app", "List suppressed addresses, which get nothing more; add or lift one."
    ),
    "bounces": Command(
        "subscribers.bounces",
        "bounces",
        "Read bounces and complaints, and suppress the addresses that they are about.",
    ),
    "limits": Command("admin.limits", "app", "Show the rate limits of channels; set or clear one."),
    "templates": Command("subscribers.templates", "app", "List templates, or preview one."),
    "purge": Command("admin.purge", "purge", "Delete old events with their deliveries and attempts."),
    "erase": Command(
        "admin.erase", "erase", "Erase one recipient: the address, and the record of what was sent to it."
    ),
    "types": Command("catalog.types", "app", "List, show, add, check, import and document event types."),
    "api-keys": Command("admin.api_keys", "app", "Create, list, revoke and rotate the keys of the HTTP API."),
    "keys": Command("admin.keys", "app", "Encryption keys."),
    "rekey": Command(
        "admin.rekey", "rekey", "Encrypt what is in the registry with the first key of BELLWIRE_ENCRYPTION_KEYS."
    ),
    "relay": Command("admin.relay", "relay", "Publish the outbox of a service until it is stopped."),
    "gateway": Command(
        "admin.gateway",
        "gateway",
        "Serve the HTTP API, provider callbacks, unsubscribe links and the codec server, until it is stopped.",
    ),
}


class _Imported(MutableMapping[str, Any]):
    """The commands of the group; reading one imports it."""

    def __getitem__(self, name: str) -> Any:
        where = COMMANDS[name]
        found = getattr(import_module(f"starter.cli.{where.module}"), where.attribute)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name)(found)
            found = alone
        command = get_command(found)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __setitem__(self, name: str, command: Any) -> None:
        raise TypeError("commands are listed in COMMANDS")

    __delitem__ = __setitem__  # type: ignore[assignment]


class LazyGroup(TyperGroup):
    """The root of the command line."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Imported()

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def format_commands(self, ctx: object, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])
