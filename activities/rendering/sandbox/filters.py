"""What templates can call, and how text is made fit to send. Pure functions of JSON values and strings."""

import re
from datetime import UTC, datetime
from typing import Any

#: Most rows that `rows` gives, and most characters of a label and of a value: no event makes a mail of insane size.
MAX_ROWS = 100
MAX_LABEL = 100
MAX_VALUE = 300

#: Control characters other than tab and line feed, and the marks that reverse the direction of what follows.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def printable(text: str) -> str:
    """`text` with line feeds only, and without what terminals, phones and mail readers could take for a command."""
    return _UNPRINTABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, *, limit: int) -> str:
    """`text` as one line of at most `limit` characters: white space and control characters collapse to one space."""
    line = _SPACES.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def moment(value: str) -> str:
    """An RFC 3339 time for people: 2026-11-23 08:00 UTC. What is not one is returned as it is."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if time.tzinfo else str(value)


def rows(data: Any) -> list[tuple[str, str]]:
    """JSON as labelled lines, `order.total: 19.90 EUR`. A value that has no name has an empty label.

    At most MAX_ROWS of them; if there is more, the last one says so.
    """
    found: list[tuple[str, str]] = []
    _collect(data, "", found)
    if len(found) > MAX_ROWS:
        return [*found[: MAX_ROWS - 1], ("…", "")]
    return found


def _collect(value: Any, label: str, found: list[tuple[str, str]]) -> None:
    if len(found) > MAX_ROWS:
        return
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _collect(item, f"{label}.{name}" if label else str(name), found)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value, start=1):
            _collect(item, f"{label}.{number}" if label else str(number), found)
    elif value is not None or label:
        found.append((one_line(label, limit=MAX_LABEL), one_line(_scalar(value), limit=MAX_VALUE)))


def _scalar(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
