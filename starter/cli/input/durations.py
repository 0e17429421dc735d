"""Durations in options, such as 90s, 5m, 2h or 1d; `bellwire.formats.durations` reads and writes them."""

from bellwire.formats import durations
from starter.operations.problems import InputInvalid


def parse_duration(option: str, text: str) -> float:
    """The seconds of a duration. Raises InputInvalid, which names the option."""
    try:
        return durations.parse_duration(text)
    except ValueError as error:
        raise InputInvalid(str(error), field=option) from error


def parse_schedule(text: str) -> tuple[float, ...]:
    """The delays in seconds of a retry schedule such as "5s,5m,1h"; "none" is the empty one: a single attempt.

    Raises InputInvalid, which names the delay that is not valid.
    """
    if text.strip() == "none":
        return ()
    return tuple(parse_duration("--retry", part) for part in text.split(","))
