"""Timestamps of RFC 3339, in ASCII digits: 2026-11-23T08:00:00Z, 2016-12-31T23:59:60Z, 2026-01-01T00:00:00.123456789+01:00."""

import re
from calendar import monthrange
from contextlib import suppress
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(
    r"(?P<minute>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?"
    r"(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})",
    re.IGNORECASE,
)


_PLAIN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


class Timestamp(datetime):
    """A time that a `datetime` cannot hold: one of a leap second, or with more than six digits of a second.

    As a datetime it is the nearest one that is not later. `text` is the time as it was written.
    """

    text: str


def parse_timestamp(text: str) -> datetime:
    """The time of an RFC 3339 text. Raises ValueError, also for times whose UTC is outside the years 1 to 9999."""
    if _PLAIN.fullmatch(text):  # most times: without a leap second, and no more digits than a datetime has
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    found = _RFC3339.fullmatch(text)
    if not found:
        raise ValueError("is not a valid RFC 3339 timestamp with a time zone, such as 2026-11-23T08:00:00Z")
    leap, fraction = found["second"] == "60", found["fraction"] or "0"
    second = f"59.{'9' * 6}" if leap else f"{found['second']}.{fraction[:6]}"
    try:
        time = datetime.fromisoformat(f"{found['minute']}:{second}{found['zone']}".upper())
    except ValueError:
        raise ValueError(
            "is not a valid time: a month, day, hour, minute, second or time zone is out of range"
        ) from None
    utc = in_range(time).astimezone(UTC)
    if leap and (utc.day, utc.hour, utc.minute) != (monthrange(utc.year, utc.month)[1], 23, 59):
        raise ValueError("has the second 60, but leap seconds are at 23:59:60 UTC on the last day of a month")
    if not leap and not fraction[6:].strip("0"):
        return time
    exact = Timestamp.fromisoformat(time.isoformat())
    exact.text = text.upper()
    return exact


def format_timestamp(time: datetime) -> str:
    """RFC 3339, with Z for UTC. A Timestamp is written as it was given."""
    return time.text if isinstance(time, Timestamp) else time.isoformat().replace("+00:00", "Z")


def in_range(time: datetime) -> datetime:
    """Return an aware time that can be expressed in RFC 3339 and in UTC. Raises ValueError."""
    if time.tzinfo is UTC:
        return time
    offset = time.utcoffset()
    if offset is None:
        raise ValueError("has no time zone; use an aware datetime, such as datetime.now(UTC)")
    if offset % timedelta(minutes=1):
        raise ValueError("has a time zone offset with seconds, which RFC 3339 does not allow; use .astimezone(UTC)")
    try:
        time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC; use a time within them") from None
    return time
