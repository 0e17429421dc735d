"""Durations as text: what is printed can be typed back in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.formats.durations import format_duration, parse_duration
from workflows.policies import SCHEDULES


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "0.5s"),
        (5.25, "5.25s"),
        (59, "59s"),
        (59.7, "59.7s"),
        (60, "1m"),
        (61, "1m1s"),
        (61.4, "1m1s"),
        (90, "1m30s"),
        (300, "5m"),
        (3600, "1h"),
        (5400, "1h30m"),
        (86_400, "1d"),
        (75 * 3600 + 35 * 60, "3d3h35m"),
        (7 * 86_400, "7d"),
    ],
)
def test_a_duration_is_written_in_its_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("5m", 300),
        (" 2h ", 7200),
        ("1d", 86_400),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("90 s", 90),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5 min", "-5m", "5m,", "1h and 5m", "1e3s", "\u0665m", "5m\u0665s", "\uff15m"]
)
def test_what_is_not_a_duration_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid duration; write 90s, 5m, 2h, 1d or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "9" * 400 + "s", "36500d 1s"])
def test_a_duration_without_end_is_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match="is out of range; the longest duration is 36500d"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_whole_seconds_are_read_back_as_they_were_written(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_the_delays_of_the_schedules_are_read_back_as_they_were_written() -> None:
    for schedule in SCHEDULES.values():
        assert tuple(parse_duration(format_duration(delay)) for delay in schedule) == schedule
