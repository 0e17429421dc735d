"""Durations as text: 90s, 5m, 1h30m, 2d. What `format_duration` writes, `parse_duration` reads."""

import re

#: The longest duration: a hundred years. Longer ones have no time to count from.
MAX_SECONDS = 36_500 * 86_400

_SECONDS_PER_UNIT = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_PART = r"([0-9]+(?:\.[0-9]+)?)\s*([dhms])"
_DURATION = re.compile(rf"{_PART}(?:\s*{_PART})*")


def is_duration(text: str) -> bool:
    """Whether the text is written as a duration, of any length."""
    return _DURATION.fullmatch(text.strip()) is not None


def parse_duration(text: str) -> float:
    """The seconds of a duration such as 90s, 5m, 2h, 1d or 1h30m. Raises ValueError."""
    if not is_duration(text):
        raise ValueError(f"{text.strip()[:40]!r} is not a valid duration; write 90s, 5m, 2h, 1d or 1h30m")
    seconds = sum(float(number) * _SECONDS_PER_UNIT[unit] for number, unit in re.findall(_PART, text))
    if seconds > MAX_SECONDS:
        raise ValueError(
            f"{text.strip()[:40]!r} is out of range; the longest duration is {format_duration(MAX_SECONDS)}"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Seconds as text: 0.5s, 30m, 1h30m, 3d3h35m. From one minute on, rounded to the second."""
    if seconds < 60:
        return f"{seconds:g}s"
    parts, rest = [], round(seconds)
    for unit, size in _SECONDS_PER_UNIT.items():
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)
