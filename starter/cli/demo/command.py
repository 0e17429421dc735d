"""`demo`: Bellwire at work on this machine, in some seconds, and checked."""

from typing import Annotated

import typer

from starter.cli.terminal import CommandFailed, command


@command
async def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, until Ctrl-C, to look around.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """See it work on this machine, checked.

    Starts a stack of its own with receivers that refuse and recover, publishes some events of an open platform, and
    shows what each receiver got. Exits with 1 and a list of differences if that is not what it should be.
    """
    try:
        # Only the demo needs the receivers, and these come with the development dependencies.
        from starter.cli.demo.demo import run
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the demo needs {error.name}; run `pip install -e '.[app,dev]' -c constraints.txt`"
        ) from error
    await run(keep=keep, as_json=as_json)
