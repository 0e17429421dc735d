"""Tables of events, subscriptions and deliveries for people."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bellwire.deliveries import Counts
from bellwire.receipts import Status
from starter.cli.terminal import console, has_width, printable

#: More columns than any table has.
MAX_WIDTH = 100_000

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
    """A table with states in colour. `print_table` prints it where it fits."""
    # A title that is wider than the table would be wrapped.
    heading = Text(title, style="table.title", no_wrap=True, overflow="ignore") if title else None
    made = Table(title=heading, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> Text:
    """A value as the text of a cell; times to the second, in UTC."""
    if isinstance(value, datetime):
        value = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    text = "" if value is None else printable(value)
    return Text(text, style=STYLES.get(text, ""))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout, or "none" if it has no rows.

    One that is wider than the terminal becomes a block of lines for each row: nothing is cut off or wrapped within a table, so
    that ids can be copied.
    """
    screen = console()
    if not rows:
        screen.print(f"{title}: none" if title else "none")
        return
    made = table(columns, rows, title=title)
    needed = made.__rich_measure__(screen, screen.options.update(max_width=MAX_WIDTH)).maximum
    if not has_width():
        screen.width = max(needed, screen.width)
        screen.print(made)
    elif needed <= screen.width:
        screen.print(made)
    else:
        _print_blocks(screen, columns, rows, title)


def _print_blocks(screen: Console, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    if title:
        screen.print(title, style="italic")
    width = max(map(len, columns))
    for number, row in enumerate(rows):
        if number:
            screen.print()
        for column, value in zip(columns, row, strict=True):
            if (text := cell(value)).plain:
                line = Text(f"{column:<{width}}  ", style="bold").append_text(text)
                screen.print(line, soft_wrap=True)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values as two columns; values that are not set are left out."""
    given = [(name, cell(value)) for name, value in facts if value not in (None, "", ())]
    width = max((len(name) for name, _ in given), default=0)
    screen = console()
    for name, value in given:
        # Long values wrap where the terminal ends, without breaks of their own.
        screen.print(Text(f"{name:<{width}}  ", style="bold").append_text(value), soft_wrap=True)


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
    if status.scheduled:
        return "scheduled"
    if status.cancelled:
        return "cancelled before it started"
    return in_counts(status.counts) if status.resolved or status.counts.matched else "subscriptions not matched yet"
