"""`keys`: make encryption keys."""

import os
from pathlib import Path
from typing import Annotated

import typer

from starter.cli.terminal import command, group, note
from starter.operations.platform.keys import new_environment, new_key
from starter.operations.problems import InputInvalid

app = group("Encryption keys.")


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


@app.command("env")
@command
async def env(
    file: Annotated[Path, typer.Option(help="The file to write.", dir_okay=False)] = Path(".env"),
) -> None:
    """Write a file .env for docker-compose.yml, with a new password, encryption key and token.

    Only its owner can read it. A file that exists is not replaced, since the databases use its password and keys.
    """
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        remedy = "keep it, or move it away" if isinstance(error, FileExistsError) else "choose another"
        raise InputInvalid(f"cannot create {file}: {error.strerror}", field="--file", remedy=remedy) from error
    with os.fdopen(descriptor, "w") as written:
        written.write(new_environment())
    note(f"wrote {file}")
