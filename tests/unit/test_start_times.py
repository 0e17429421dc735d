"""When an event is to be delivered that is published for later."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from bellwire.errors import EventInvalid
from bellwire.temporal.start_times import MAX_DELAY, Delay, DeliverAt, start_time

NEAR = timedelta(seconds=10)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("2h", 7200), ("1d12h", 129_600), (90, 90), (1.5, 1.5), (timedelta(days=3), 259_200), (MAX_DELAY, 31_536_000)],
)
def test_a_delay_counts_from_now(delay: Delay, seconds: float) -> None:
    found = start_time(delay, None)
    assert found is not None
    assert abs(found - datetime.now(UTC) - timedelta(seconds=seconds)) < NEAR


def test_a_time_is_taken_as_datetime_and_as_text() -> None:
    time = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    forms: list[DeliverAt] = [time, time.astimezone(timezone(timedelta(hours=2))), time.isoformat()]
    for form in forms:
        found = start_time(None, form)
        assert found is not None
        assert abs(found - time) < timedelta(milliseconds=1)
        assert found.tzinfo is UTC


@pytest.mark.parametrize("late", [timedelta(), timedelta(minutes=4)])
def test_what_is_due_now_or_a_short_time_ago_is_delivered_at_once(late: timedelta) -> None:
    assert start_time(None, datetime.now(UTC) - late) is None
    assert start_time(0, None) is None
    assert start_time(None, None) is None


@pytest.mark.parametrize(
    ("delay", "deliver_at", "message"),
    [
        (-1, None, "delay: must not be negative"),
        (timedelta(seconds=-1), None, "delay: must not be negative"),
        (-1e300, None, "delay: must not be negative"),
        pytest.param(-(10**400), None, "delay: must not be negative", id="negative and large"),
        pytest.param(10**400, None, "delay: is more than 365d ahead", id="large"),
        ("366d", None, "delay: is more than 365d ahead"),
        (366 * 86_400, None, "delay: is more than 365d ahead"),
        (1e300, None, "delay: is more than 365d ahead"),
        (float("nan"), None, "delay: must be seconds as a finite number"),
        (float("inf"), None, "delay: must be seconds as a finite number"),
        ("soon", None, "delay: 'soon' is not a valid duration"),
        ("90", None, "delay: '90' is not a valid duration"),
        (None, "2020-01-01T00:00:00Z", "deliver_at: is in the past"),
        (None, "9999-01-01T00:00:00Z", "deliver_at: is more than 365d ahead"),
        (None, "2027-01-01", "deliver_at: is not a valid RFC 3339 timestamp"),
        (None, datetime(2027, 1, 1), "deliver_at: has no time zone"),  # noqa: DTZ001
        ("1h", "2027-01-01T00:00:00Z", "delay: cannot be combined with deliver_at"),
    ],
)
def test_other_times_are_refused_by_the_name_of_the_field(
    delay: Delay | None, deliver_at: DeliverAt | None, message: str
) -> None:
    with pytest.raises(EventInvalid, match=re.escape(message)):
        start_time(delay, deliver_at)


@pytest.mark.parametrize(("field", "value"), [("delay", True), ("delay", [1]), ("deliver_at", 5), ("deliver_at", True)])
def test_values_of_other_types_are_a_type_error(field: str, value: Any) -> None:
    given: dict[str, Any] = {"delay": None, "deliver_at": None, field: value}
    with pytest.raises(TypeError, match=f"{field}: must be"):
        start_time(**given)
