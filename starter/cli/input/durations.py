"""Durations as people write and read them: 5s, 5m, 2h, 1d."""

import re

from starter.operations.problems import InputInvalid

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


def parse_schedule(text: str) -> tuple[float, ...]:
    """The delays in seconds of a retry schedule such as "5s,5m,1h"; "none" is the empty one: a single attempt.

    Raises InputInvalid, which names the delay that is not valid.
    """
    if text.strip() == "none":
        return ()
    remedy = "write delays such as 5s,5m,2h,1d, or none for one attempt"
    return tuple(_seconds("--retry", part.strip(), remedy) for part in text.split(","))


def parse_duration(option: str, text: str) -> float:
    """The seconds of a duration such as 90s or 2h. Raises InputInvalid, which names the option."""
    return _seconds(option, text.strip(), "write it as 90s, 5m, 2h or 1d")


def _seconds(option: str, text: str, remedy: str) -> float:
    found = _DURATION.fullmatch(text)
    if not found:
        raise InputInvalid(f"{text!r} is not a valid duration", field=option, remedy=remedy)
    return float(found[1]) * _SECONDS[found[2]]


def in_words(seconds: float) -> str:
    """Seconds in their largest even unit: 300 is "5 min", 90 is "90 s", 7200 is "2 h"."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
