"""`poll`: reads the events of a subscription of the channel `poll`, for programs that cannot be connected to."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from bellwire.cli.gateway import PAGE, Gateway, InputInvalid, command
from bellwire.cli.output import note
from bellwire.cli.patience import patiently

#: Seconds that a request of --follow waits for events.
WAIT = 20


@command
async def poll(
    gateway: Gateway,
    subscription: Annotated[str, typer.Argument(metavar="ID", help="The id of a subscription of the channel poll.")],
    cursor: Annotated[
        str | None, typer.Option(help="Where to begin: a cursor, or latest. By default the oldest event that is kept.")
    ] = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Begin where this file says, if it exists, and write there how far it came."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of events of one request.")] = PAGE,
    wait: Annotated[int, typer.Option(min=0, max=30, help="If there is no event, seconds to wait for one.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Print events as they come, until Ctrl-C.")] = False,
) -> None:
    """Print the next events of a subscription, one as JSON per line, each with the id of its delivery.

    The cursor is stored after the events are printed, so an event may be printed again, and none is left out.
    """
    reached = cursor if cursor is not None else _read(cursor_file)
    while True:
        ask = partial(_page, gateway, subscription, reached, limit, WAIT if follow else wait)
        found = await (patiently(ask) if follow else ask())
        for event in found["events"]:
            typer.echo(json.dumps(event, ensure_ascii=False))
        sys.stdout.flush()
        if found["cursor"] != reached:
            reached = found["cursor"]
            _write(cursor_file, reached)
        if not follow:
            if cursor_file is None:
                note(f"Continue with --cursor {reached}" + (", there is more" if found["more"] else ""))
            return


async def _page(gateway: Gateway, subscription: str, cursor: str, limit: int, wait: int) -> Any:
    path = f"/v1/subscriptions/{quote(subscription, safe='')}/poll"
    return await gateway.get_late(path, wait, cursor=cursor, limit=limit, wait=wait)


def _read(file: Path | None) -> str:
    try:
        return file.read_text().strip() if file else ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise InputInvalid(f"--cursor-file: {file}: {error}") from error


def _write(file: Path | None, cursor: str) -> None:
    """Replace the file, so that it never holds half a cursor."""
    if file is None:
        return
    new = file.with_name(file.name + ".new")
    try:
        new.write_text(cursor + "\n")
        new.replace(file)
    except OSError as error:
        raise InputInvalid(f"--cursor-file: {file}: {error.strerror or error}") from error
