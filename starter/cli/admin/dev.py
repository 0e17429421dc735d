"""`dev`: a whole stack in the foreground, on embedded defaults, until Ctrl-C."""

import os
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.checkout import CHECKOUT
from starter.cli.terminal import AsJson, command, console, note, print_json
from starter.local.outbox.catching import Catchers, catching
from starter.local.processes import free_port, interruptible, port_in_use
from starter.local.stack import DEV_SETTINGS, Stack, running_stack
from starter.operations.platform.api_keys import create_api_key, parse_scope, revoke_api_key
from starter.operations.problems import InputInvalid

#: Of DEV_SETTINGS, what commands in another terminal need beside the addresses.
_SHARED = ("BELLWIRE_WEBHOOK_ALLOW_HTTP", "BELLWIRE_WEBHOOK_PORTS", "BELLWIRE_EGRESS_ALLOW")

#: What commands need to read encrypted data. It is a secret, so it is not printed, and only in the file of variables.
_KEYS = "BELLWIRE_ENCRYPTION_KEYS"

_PUBLISH = (
    """python -m starter publish --tenant acme --type order.paid --source /shop --data '{"order": "42"}' --wait"""
)


@command
async def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Temporal.")] = 7233,
    ui_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Temporal UI.")] = 8233,
    outbox_port: Annotated[
        int,
        typer.Option(min=1, max=65535, help="Port of the page that shows the mails, SMS and webhooks that were sent."),
    ] = 8025,
    gateway_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP API.")] = 8100,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Use any free ports instead.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Folder of its files; delete it to start with an empty stack.")
    ] = CHECKOUT / "build" / "dev",
    env_file: Annotated[
        Path | None,
        typer.Option(help="File for the variables that commands need in another terminal; FOLDER.env if omitted."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole stack until Ctrl-C.

    Temporal with its UI, a registry, a worker, the HTTP API with an admin key that works until the stack stops, and a page that
    shows what was sent: mails and SMS are caught there unless the BELLWIRE_* variables name a relay or a provider. Webhooks over
    http and to loopback addresses are allowed.
    """
    Settings.read()
    if free_ports:
        port, ui_port, outbox_port, gateway_port = free_port(), free_port(), free_port(), free_port()
    ports = {"--port": port, "--ui-port": ui_port, "--outbox-port": outbox_port, "--gateway-port": gateway_port}
    for option, number in ports.items():
        if port_in_use(number):
            raise InputInvalid(
                f"port {number} is already in use", field=option, remedy="choose another, or use --free-ports"
            )
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    given = {name: value for name, value in os.environ.items() if name.startswith("BELLWIRE_") and value}
    async with interruptible(), catching(outbox_port) as catchers:
        settings = DEV_SETTINGS | catchers.settings(given) | given
        async with (
            running_stack(
                folder,
                port=port,
                ui_port=ui_port,
                settings=settings,
                database=folder / "temporal.db",
                gateway_port=gateway_port,
            ) as stack,
            _admin_key(stack.registry) as admin_key,
        ):
            variables = {**stack.variables, **{name: settings[name] for name in _SHARED}}
            secret = {_KEYS: settings[_KEYS]} if _KEYS in settings else {}
            file = (env_file or folder.parent / f"{folder.name}.env").resolve()
            write_variables(file, {**variables, **secret})
            if as_json:
                print_json(
                    {
                        "ui": stack.ui,
                        "gateway": stack.gateway,
                        "admin_key": admin_key,
                        "health": stack.health,
                        "folder": str(folder),
                        "env_file": str(file),
                        "outbox": catchers.url,
                        "smtp": f"{catchers.smtp.host}:{catchers.smtp.port}",
                        "sms": catchers.sms.url,
                        "webhooks": catchers.webhooks,
                        "variables": variables,
                    }
                )
            else:
                _print(stack, catchers, folder, file, variables, admin_key, catches_all=not secret)
            await stack.broken()
    note("stopped")


@asynccontextmanager
async def _admin_key(registry: Registry) -> AsyncIterator[str]:
    """A key for everything, which is revoked at the end, since the next start makes another one."""
    new = await create_api_key(registry, parse_scope("admin"), description="starter dev")
    try:
        yield new.key
    finally:
        await revoke_api_key(registry, new.api_key.id)


def _curl(gateway: str, key: str) -> list[str]:
    """A command that publishes an event. It makes an id of its own each time."""
    event = (
        """'{"specversion": "1.0", "id": "'$(date +%s%N)'", "source": "/shop", "type": "order.paid", "tenant": "acme", """
        """"data": {"order": "42"}}'"""
    )
    return [
        f"curl {gateway}/v1/events -H 'Authorization: Bearer {key}' \\",
        f"  -H 'Content-Type: application/cloudevents+json' -H 'Prefer: wait=30' -d {event}",
    ]


def write_variables(file: Path, variables: Mapping[str, str]) -> None:
    """Write lines that a shell can read, in a file that only its owner can read. Raises InputInvalid."""
    text = "".join(f"{line}\n" for line in _exports(variables))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            os.fchmod(descriptor, 0o600)  # it may have existed
            opened.write(text)
    except OSError as error:
        raise InputInvalid(f"{file} cannot be written: {error.strerror}", field="--env-file") from error


def _exports(variables: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _print(
    stack: Stack,
    catchers: Catchers,
    folder: Path,
    file: Path,
    variables: Mapping[str, str],
    admin_key: str,
    *,
    catches_all: bool,
) -> None:
    """Print addresses, and lines that can be pasted into another terminal."""
    lines = [
        "Bellwire is running",
        "",
        f"Temporal      {stack.address}",
        f"Temporal UI   {stack.ui}",
        f"HTTP API      {stack.gateway}",
        f"admin key     {admin_key} (works until the stack stops)",
        f"outbox        {catchers.url} (mails, SMS and webhooks that were sent)",
        f"registry      {stack.registry_url}",
        f"worker        http://{stack.health}/ready",
        f"logs          {folder}/worker.log, {folder}/gateway.log, {folder}/temporal.log",
        "",
        "In another terminal:",
        "",
        f"source {shlex.quote(str(file))}",
        "",
        f"or, the same{'' if catches_all else f' without {_KEYS}'}:",
        "",
        *_exports(variables),
        "",
        "Subscribe, publish, and look at the outbox:",
        "",
        "python -m starter subscribe --tenant acme --type 'order.*' --email ann@example.com",
        f"python -m starter subscribe --tenant acme --type 'order.*' --webhook {catchers.webhooks}/orders",
        _PUBLISH,
        "",
        "or publish over HTTP:",
        "",
        *_curl(stack.gateway, admin_key),
        "",
        "Ctrl-C stops everything.",
    ]
    console().print("\n".join(lines), soft_wrap=True)
