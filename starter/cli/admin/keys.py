"""`keys new` and `rekey`: making encryption keys, and bringing what is in the registry under the first of them."""

import secrets
import string
from collections import Counter
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from bellwire.errors import KeysInvalid
from bellwire.keys.keyring import KeyRing, new_entry
from bellwire.registry import Registry
from bellwire.registry.upkeep.rekeying import COLUMNS, Row
from bellwire.service.settings import Settings
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    command,
    console,
    opened_registry,
    print_json,
)

#: Characters of the id of a key that is given none.
ID_LENGTH = 8
#: How values are told that are under no key.
CLEAR = "in the clear"

app = typer.Typer(help="Encryption keys.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """Encryption keys."""


@app.command("new")
@command
async def new(
    key_id: Annotated[
        str | None, typer.Option("--id", help="Its id: letters, digits, - and _. Made up if left out.")
    ] = None,
) -> None:
    """Print an entry for BELLWIRE_ENCRYPTION_KEYS with a fresh key.

    It is shown once and kept nowhere. What is encrypted with it is lost without it.
    """
    letters = string.ascii_lowercase + string.digits
    entry = new_entry("".join(secrets.choice(letters) for _ in range(ID_LENGTH)) if key_id is None else key_id)
    KeyRing.parse(entry)
    typer.echo(entry)


@command
async def rekey(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail if there is anything to do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt what is in the registry with the first key of BELLWIRE_ENCRYPTION_KEYS.

    Safe while workers run, and to break off: begun again, it goes on. Once `--check` finds nothing and Temporal keeps no
    run from before, older keys can be removed.
    """
    settings = Settings.read()
    if settings.ring is None:
        raise KeysInvalid("BELLWIRE_ENCRYPTION_KEYS: is not set; `python -m starter keys new` makes a key")
    async with opened_registry(settings) as registry:
        found = await _gone_through(registry, change=not check)
    rows = [(column, key_id or CLEAR, number) for (column, key_id), number in sorted(found.items(), key=str)]
    if as_json:
        values = [{"column": column, "key": key_id, "values": number} for (column, key_id), number in found.items()]
        print_json({"first": settings.ring.first, "changed": not check, "others": values})
    elif rows:
        print_table(("column", "key", "values"), rows, title="found" if check else "now under the first key")
    else:
        console().print(f"everything is under key {settings.ring.first}")
    if check and rows:
        raise CommandFailed(
            f"{sum(found.values()):,} values are not under key {settings.ring.first}; run `python -m starter rekey`"
        )


async def _gone_through(registry: Registry, *, change: bool) -> Counter[tuple[str, str | None]]:
    """How many values of each column were under which other key."""
    found = Counter[tuple[str, str | None]]()
    screen = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,} rows"))
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        for column in COLUMNS:
            bar = progress.add_task(column, total=None)
            after: Row | None = None
            while True:
                window = await registry.rekeying.look(column, after=after)
                if change:
                    await registry.rekeying.move(column, window.astray)
                found.update((column, item.key_id) for item in window.astray)
                progress.advance(bar, window.rows)
                if window.reached is None:
                    break
                after = window.reached
    return found
