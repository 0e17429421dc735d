"""`demo`: runs Bellwire on this machine for some seconds, and checks what was delivered."""

from typing import Annotated

import typer

from starter.cli.terminal import command
from starter.operations.problems import OperationError


@command
async def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack running afterwards, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run an example on this machine and check the deliveries.

    Starts a stack with receivers that refuse and recover, publishes some events of an open platform, and shows what each
    receiver received. Exits with 1 and a list of differences if that is not what was expected.
    """
    try:
        # The receivers need the development dependencies.
        from starter.cli.demo.demo import run
    except ModuleNotFoundError as error:
        raise OperationError(
            f"the demo needs {error.name}", remedy="run `pip install -e '.[app,dev]' -c constraints.txt`"
        ) from error
    await run(keep=keep, as_json=as_json)
