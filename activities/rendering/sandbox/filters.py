"""The filters that Bellwire adds to Jinja2: pure functions of JSON values."""

import re
from datetime import UTC, datetime
from typing import Any

from activities.rendering.text import one_line

#: Rows of the filter `rows`, and characters of a label and of a value. They bound the size of a mail.
MAX_ROWS = 100
MAX_LABEL = 100
MAX_VALUE = 300

#: A time within a leap second (RFC 3339 §5.6), which Python does not have.
_LEAP_SECOND = re.compile(r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):60", re.ASCII)


def format_time(value: str) -> str:
    """An RFC 3339 time for people: 2026-11-23 08:00 UTC. Other values are returned unchanged.

    So are times that are before year 1 or after year 9999 in UTC.
    """
    try:
        time = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", value).upper())
        utc = time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return f"{utc.replace(tzinfo=None).isoformat(' ', 'minutes')} UTC" if time.tzinfo else str(value)


def rows(data: Any) -> list[tuple[str, str]]:
    """JSON as rows of label and value, `order.total: 19.90 EUR`. A value without a name has an empty label.

    At most MAX_ROWS rows; the last one is "…" if there are more.
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
    elif label or value not in (None, {}, []):
        found.append((one_line(label, limit=MAX_LABEL), one_line(_scalar(value), limit=MAX_VALUE)))


def _scalar(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
