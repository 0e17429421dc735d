"""How receivers fare: arithmetic on what attempts came to."""

from datetime import timedelta

import pytest

from bellwire.endpoint_health import (
    FIRST_WINDOW,
    LONGEST_WINDOW,
    WELL,
    Condition,
    Patience,
    window,
)
from tests.factories import NOW

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("throttles", "stated", "seconds"),
    [
        *((number, None, seconds) for number, seconds in enumerate((5, 10, 20, 40, 80, 160, 300, 300), 1)),
        (10_000, None, 300),
        (1, 30.0, 30),
        (7, 30.0, 30),
        (1, 0.0, 1),
        (1, 1e9, 86_400),
    ],
)
def test_a_window_doubles_to_five_minutes_and_a_stated_time_is_kept_within_a_day(
    throttles: int, stated: float | None, seconds: float
) -> None:
    assert window(throttles, stated=stated) == timedelta(seconds=seconds)


def test_throttles_that_follow_on_each_other_make_the_window_longer_and_those_side_by_side_do_not() -> None:
    second = timedelta(seconds=1)
    once = WELL.throttled(NOW, NOW + second, stated=None)
    assert (once.throttles, once.throttled_until) == (1, NOW + second + FIRST_WINDOW)
    beside = once.throttled(NOW + second, NOW + 2 * second, stated=None)
    assert (beside.throttles, beside.throttled_until) == (1, NOW + 2 * second + FIRST_WINDOW)
    # A shorter answer of one beside it does not end it earlier.
    stated = beside.throttled(NOW + second, NOW + 2 * second, stated=1.0)
    assert stated.throttled_until == beside.throttled_until
    begun = NOW + 10 * second
    again = beside.throttled(begun, begun, stated=None)
    assert (again.throttles, again.throttled_until) == (2, begun + 2 * FIRST_WINDOW)


def test_throttling_again_and_again_stays_within_the_longest_window() -> None:
    condition, now = WELL, NOW
    for _ in range(40):
        condition = condition.throttled(now, now, stated=None)
        assert condition.throttled_until is not None
        assert condition.throttled_until - now <= LONGEST_WINDOW
        now = condition.throttled_until
    assert condition.throttles == 40


def test_a_success_clears_everything_but_throttling_that_it_did_not_meet() -> None:
    ill = WELL.failed(NOW).failed(NOW + DAY).throttled(NOW + DAY, NOW + DAY, stated=60.0)
    assert (ill.failing_since, ill.failures, ill.ailing) == (NOW, 2, True)
    assert ill.succeeded(NOW + 2 * DAY) == WELL
    beside = ill.succeeded(NOW + DAY)
    assert (beside.failing_since, beside.failures) == (None, 0)
    assert (beside.throttled_until, beside.throttles) == (ill.throttled_until, ill.throttles)


@pytest.mark.parametrize(
    ("patience", "days", "failures", "over"),
    [
        (Patience(), 5, 20, True),
        (Patience(), 4.99, 2000, False),
        (Patience(), 50, 19, False),
        (Patience(disable_after=None), 500, 2000, False),
    ],
)
def test_patience_ends_after_five_days_and_twenty_failures(
    patience: Patience, days: float, failures: int, over: bool
) -> None:
    condition = Condition(failing_since=NOW, failures=failures)
    assert patience.is_over(condition, NOW + days * DAY) is over
    assert not patience.is_over(WELL, NOW + days * DAY)


@pytest.mark.parametrize(("days", "passed"), [(0, 0), (0.99, 0), (1, 1), (2.9, 1), (3, 2), (40, 2)])
def test_warnings_are_due_after_a_day_and_after_three(days: float, passed: int) -> None:
    assert Patience().warnings(Condition(failing_since=NOW), NOW + days * DAY) == passed
    assert Patience().warnings(WELL, NOW + days * DAY) == 0
