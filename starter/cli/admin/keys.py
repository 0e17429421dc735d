"""`keys`: make encryption keys."""

from typing import Annotated

import typer

from starter.cli.terminal import command
from starter.operations.platform.keys import new_key

app = typer.Typer(help="Encryption keys.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """Encryption keys."""


@app.command("new")
@command
async def new(
    key_id: Annotated[
        str | None, typer.Option("--id", help="Its id: letters, digits, - and _. Generated if omitted.")
    ] = None,
) -> None:
    """Print an entry for BELLWIRE_ENCRYPTION_KEYS with a new key.

    It is shown once and stored nowhere. Without it, what is encrypted with it is lost.
    """
    typer.echo(new_key(key_id))
