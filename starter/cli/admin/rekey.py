"""`rekey`: encrypts what is in the registry with the first key."""

from collections import Counter
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from bellwire.errors import KeysInvalid
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, console, opened_registry, print_json
from starter.operations.platform import keys
from starter.operations.problems import OperationError

#: The name of no key, in tables.
NOT_ENCRYPTED = "not encrypted"


@command
async def rekey(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail if there is anything to do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt what is in the registry with the first key of BELLWIRE_ENCRYPTION_KEYS.

    Workers may run meanwhile. It can be interrupted; started again, it continues. Once `--check` finds nothing and Temporal
    keeps no run from before, older keys can be removed.
    """
    settings = Settings.read()
    if settings.ring is None:
        raise KeysInvalid("BELLWIRE_ENCRYPTION_KEYS: is not set; `python -m starter keys new` makes a key")
    async with opened_registry(settings) as registry:
        found = await _with_progress(registry, dry_run=check)
    rows = [(column, key_id or NOT_ENCRYPTED, number) for (column, key_id), number in sorted(found.items(), key=str)]
    if as_json:
        values = [{"column": column, "key": key_id, "values": number} for (column, key_id), number in found.items()]
        print_json({"first": settings.ring.first, "changed": not check, "others": values})
    elif rows:
        print_table(("column", "key", "values"), rows, title="found" if check else "now under the first key")
    else:
        console().print(f"everything is under key {settings.ring.first}")
    if check and rows:
        raise OperationError(
            f"{sum(found.values()):,} values are not under key {settings.ring.first}",
            remedy="run `python -m starter rekey`",
        )


async def _with_progress(registry: Registry, *, dry_run: bool) -> Counter[tuple[str, str | None]]:
    """The number of values that were under another key, by column and key; progress is shown on a terminal."""
    found = Counter[tuple[str, str | None]]()
    screen = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,} rows"))
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bars = {}
        async for step in keys.rekey(registry, dry_run=dry_run):
            if step.column not in bars:
                bars[step.column] = progress.add_task(step.column, total=None)
            progress.advance(bars[step.column], step.rows)
            found.update({(step.column, key_id): number for key_id, number in step.others.items()})
    return found
