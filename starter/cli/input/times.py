"""Times in options: 2026-11-23, 2026-11-23T08:00:00Z; without a time zone they are in UTC."""

from datetime import UTC, datetime

from bellwire.formats.timestamps import in_range
from starter.operations.problems import InputInvalid


def parse_time(option: str, text: str) -> datetime:
    """An aware time. Raises InputInvalid, which names the option, also for times outside the years 1 to 9999 in UTC."""
    try:
        # Digits of other scripts become something that is no time.
        time = datetime.fromisoformat(text.strip().encode("ascii", "backslashreplace").decode())
    except ValueError as error:
        raise InputInvalid(
            f"{text[:40]!r} is not a valid time", field=option, remedy="write it as 2026-11-23T08:00:00+00:00"
        ) from error
    try:
        return in_range(time if time.tzinfo else time.replace(tzinfo=UTC))
    except ValueError as error:
        raise InputInvalid(str(error), field=option) from error
