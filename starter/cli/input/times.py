"""Times in options: 2026-11-23, or 2026-11-23T08:00:00Z; in UTC without a time zone. Some options also take how long ago: 2h."""

from datetime import UTC, datetime, timedelta

from bellwire.formats.durations import is_duration, parse_duration
from bellwire.formats.timestamps import in_range
from starter.operations.problems import InputInvalid


def parse_time(option: str, text: str) -> datetime:
    """An aware time. Raises InputInvalid, which names the option, also for times outside the years 1 to 9999 in UTC."""
    time = _read(text)
    if time is None:
        raise InputInvalid(
            f"{text[:40]!r} is not a valid time", field=option, remedy="write it as 2026-11-23T08:00:00+00:00"
        )
    try:
        return in_range(time if time.tzinfo else time.replace(tzinfo=UTC))
    except ValueError as error:
        raise InputInvalid(str(error), field=option) from error


def parse_past(option: str, text: str, *, now: datetime) -> datetime:
    """The time in UTC that is so long ago (2h), or the time itself. Raises InputInvalid, which names the option."""
    try:
        return now - timedelta(seconds=parse_duration(text))
    except OverflowError as error:
        raise InputInvalid(f"{text[:40]!r} is out of range", field=option) from error
    except ValueError as error:
        if is_duration(text):  # but a longer one than any
            raise InputInvalid(str(error), field=option) from error
    if _read(text):
        return parse_time(option, text).astimezone(UTC)
    raise InputInvalid(
        f"{text[:50]!r} is neither a duration nor a time",
        field=option,
        remedy="write how long ago, such as 2h, or a time with its zone, such as 2026-11-29T08:00:00Z",
    )


def _read(text: str) -> datetime | None:
    """The time, with or without a time zone; None for anything else."""
    try:
        # Digits of other scripts become something that is no time.
        return datetime.fromisoformat(text.strip().encode("ascii", "backslashreplace").decode())
    except ValueError:
        return None
