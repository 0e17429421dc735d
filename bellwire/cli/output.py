"""How commands print: results on stdout, as a table or as JSON; notes and errors on stderr."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of a table that is written to a file or a pipe.
WIDTH_WITHOUT_TERMINAL = 200

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_STYLES = {
    **dict.fromkeys(("active", "delivered"), "green"),
    **dict.fromkeys(("paused", "waiting", "sending", "deferred"), "yellow"),
    **dict.fromkeys(("disabled", "rejected", "exhausted"), "red"),
}


def printable(value: object) -> str:
    """`value` as one line of text; control characters, which could steer the terminal, become question marks."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def note(text: str) -> None:
    """Print a line on stderr, where it does not mix with the result."""
    typer.echo(text, err=True)


def print_json(value: object) -> None:
    """Print a JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout, or "none"."""
    screen = Console(markup=False, highlight=False, emoji=False)
    if not screen.is_terminal:
        screen.width = WIDTH_WITHOUT_TERMINAL
    if not rows:
        screen.print("none")
        return
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    screen.print(table)


def _cell(value: object) -> Text:
    text = "" if value is None else printable(value)
    return Text(text, style=_STYLES.get(text, ""))
