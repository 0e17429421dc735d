"""`dev`: a whole stack in the foreground, on embedded defaults, until Ctrl-C."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bellwire.service.settings import Settings
from starter.checkout import CHECKOUT
from starter.cli.terminal import AsJson, command, console, note, print_json
from starter.local.outbox.catching import Catchers, catching
from starter.local.processes import free_port, interruptible, port_in_use
from starter.local.stack import DEV_SETTINGS, Stack, running_stack
from starter.operations.problems import InputInvalid

#: Of DEV_SETTINGS, what commands in another terminal need beside the addresses.
_SHARED = ("BELLWIRE_WEBHOOK_ALLOW_HTTP", "BELLWIRE_WEBHOOK_PORTS")

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

    Temporal with its UI, a registry, a worker, and a page that shows what was sent: mails and SMS are caught there unless the
    BELLWIRE_* variables name a relay or a provider. Webhooks over http and to loopback addresses are allowed.
    """
    Settings.read()
    if free_ports:
        port, ui_port, outbox_port = free_port(), free_port(), free_port()
    for option, number in (("--port", port), ("--ui-port", ui_port), ("--outbox-port", outbox_port)):
        if port_in_use(number):
            raise InputInvalid(
                f"port {number} is already in use", field=option, remedy="choose another, or use --free-ports"
            )
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in os.environ.items() if name.startswith("BELLWIRE_") and value}
    async with interruptible(), catching(outbox_port) as catchers:
        settings = DEV_SETTINGS | catchers.settings(given) | given
        async with running_stack(
            folder, port=port, ui_port=ui_port, settings=settings, database=folder / "temporal.db"
        ) as stack:
            variables = {**stack.variables, **{name: settings[name] for name in _SHARED}}
            secret = {_KEYS: settings[_KEYS]} if _KEYS in settings else {}
            file = (env_file or folder.parent / f"{folder.name}.env").resolve()
            write_variables(file, {**variables, **secret})
            if as_json:
                print_json(
                    {
                        "ui": stack.ui,
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
                _print(stack, catchers, folder, file, variables, catches_all=not secret)
            await stack.broken()
    note("stopped")


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
    stack: Stack, catchers: Catchers, folder: Path, file: Path, variables: Mapping[str, str], *, catches_all: bool
) -> None:
    """Print addresses, and lines that can be pasted into another terminal."""
    lines = [
        "Bellwire is running",
        "",
        f"Temporal      {stack.address}",
        f"Temporal UI   {stack.ui}",
        f"outbox        {catchers.url} (mails, SMS and webhooks that were sent)",
        f"registry      {stack.registry_url}",
        f"worker        http://{stack.health}/ready",
        f"logs          {folder}/worker.log, {folder}/temporal.log",
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
        "Ctrl-C stops everything.",
    ]
    console().print("\n".join(lines), soft_wrap=True)
