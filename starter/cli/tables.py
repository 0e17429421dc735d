"""Tables of events, subscriptions and deliveries for people."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from bellwire.deliveries import Counts
from bellwire.receipts import Status
from starter.cli.terminal import console, printable

#: Colours of states. Red needs a person, yellow continues without one.
STYLES = {
    "active": "green",
    "paused": "yellow",
    "disabled": "red",
    "delivered": "green",
    "rejected": "red",
    "exhausted": "red",
    "waiting": "yellow",
    "sending": "yellow",
    "pending": "dim",
    "cancelled": "dim",
    "owned": "green",
    "published": "green",
    "conflict": "red",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table that folds long cells instead of cutting them off, with states in colour."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> Text:
    """A value as the text of a cell; times to the second, in UTC."""
    if isinstance(value, datetime):
        value = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    text = "" if value is None else printable(value)
    return Text(text, style=STYLES.get(text, ""))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout, or "none" if it has no rows."""
    if rows:
        console().print(table(columns, rows, title=title))
    else:
        console().print(f"{title}: none" if title else "none")


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values as two columns; values that are not set are left out."""
    made = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, "", ()):
            made.add_row(name, cell(value))
    console().print(made)


def in_counts(counts: Counts) -> str:
    """Counts as one text: "2 delivered, 1 rejected of 3"; zeros are left out."""
    if counts.matched == 0:
        return "no matching subscriptions"
    named = {
        "delivered": counts.delivered,
        "rejected": counts.rejected,
        "exhausted": counts.exhausted,
        "cancelled": counts.cancelled,
        "unsettled": counts.unsettled,
    }
    return f"{', '.join(f'{number:,} {name}' for name, number in named.items() if number)} of {counts.matched:,}"


def in_status(status: Status | None) -> str:
    """The counts of a status as one text, which claims nothing that is not known; None: the status is not known."""
    if status is None:
        return "not known"
    return in_counts(status.counts) if status.resolved or status.counts.matched else "subscriptions not matched yet"
