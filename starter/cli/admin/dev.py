"""`dev`: a whole stack in the foreground, on embedded defaults, until Ctrl-C."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.text import Text

from bellwire.service.settings import Settings
from starter.checkout import CHECKOUT
from starter.cli.terminal import AsJson, command, console, note, print_json
from starter.local.processes import free_port, interruptible, port_in_use
from starter.local.stack import DEV_SETTINGS, Stack, running_stack
from starter.operations.problems import InputInvalid

#: Of DEV_SETTINGS, what commands in another terminal need beside the addresses.
_SHARED = ("BELLWIRE_WEBHOOK_ALLOW_HTTP", "BELLWIRE_WEBHOOK_PORTS", "BELLWIRE_EGRESS_ALLOW")

#: What commands need to read encrypted data. It is a secret, so it is not printed.
_KEYS = "BELLWIRE_ENCRYPTION_KEYS"


@command
async def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Temporal.")] = 7233,
    ui_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Temporal UI.")] = 8233,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Use any free ports instead.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Folder of its files; delete it to start with an empty stack.")
    ] = CHECKOUT / "build" / "dev",
    as_json: AsJson = False,
) -> None:
    """Run a whole stack until Ctrl-C.

    Temporal with its UI, a registry and a worker. It uses the BELLWIRE_* variables that are set, such as a mail relay;
    webhooks over http and to loopback addresses are allowed.
    """
    Settings.read()
    if free_ports:
        port, ui_port = free_port(), free_port()
    for option, number in (("--port", port), ("--ui-port", ui_port)):
        if port_in_use(number):
            raise InputInvalid(
                f"port {number} is already in use", field=option, remedy="choose another, or use --free-ports"
            )
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = DEV_SETTINGS | {
        name: value for name, value in os.environ.items() if name.startswith("BELLWIRE_") and value
    }
    async with (
        interruptible(),
        running_stack(folder, port=port, ui_port=ui_port, settings=settings, database=folder / "temporal.db") as stack,
    ):
        variables = {**stack.variables, **{name: settings[name] for name in _SHARED}}
        if as_json:
            print_json({"ui": stack.ui, "health": stack.health, "folder": str(folder), "variables": variables})
        else:
            console().print(_panel(stack, folder, variables))
        await stack.broken()
    note("stopped")


def _panel(stack: Stack, folder: Path, variables: dict[str, str]) -> Panel:
    lines = [
        f"Temporal      {stack.address}",
        f"Temporal UI   {stack.ui}",
        f"registry      {stack.registry_url}",
        f"worker        http://{stack.health}/ready",
        f"logs          {folder}/worker.log, {folder}/temporal.log",
        "",
        "In another terminal:",
        *(f"  export {name}={value!r}" for name, value in variables.items()),
        *([f"  export {_KEYS}=…, the same as here"] if os.environ.get(_KEYS) else []),
        "  python -m starter subscribe --tenant acme --type 'order.*' --webhook http://127.0.0.1:8000/hooks",
        '  python -m starter publish --type order.paid --source /shop --data \'{"order": "42"}\' --wait',
        "",
        "Ctrl-C stops everything.",
    ]
    return Panel(Text("\n".join(lines)), title="Bellwire is running", expand=False)
