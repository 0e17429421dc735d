"""How receivers fare: arithmetic on what attempts came to."""

from datetime import timedelta

import pytest

from bellwire.endpoint_health import (
    FIRST_WINDOW,
    HEALTHY,
    MAX_WINDOW,
    DisablePolicy,
    EndpointHealth,
    throttle_window,
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
    throttles: int, retry_after: float | None, seconds: float
) -> None:
    assert throttle_window(throttles, retry_after=retry_after) == timedelta(seconds=seconds)


def test_throttles_that_follow_on_each_other_make_the_window_longer_and_those_side_by_side_do_not() -> None:
    second = timedelta(seconds=1)
    skip_when_trusted = HEALTHY.after_throttling(NOW, NOW + second, retry_after=None)
    assert (skip_when_trusted.throttles, skip_when_trusted.throttled_until) == (1, NOW + second + FIRST_WINDOW)
    beside = skip_when_trusted.after_throttling(NOW + second, NOW + 2 * second, retry_after=None)
    assert (beside.throttles, beside.throttled_until) == (1, NOW + 2 * second + FIRST_WINDOW)
    # A shorter answer of one beside it does not end it earlier.
    retry_after = beside.after_throttling(NOW + second, NOW + 2 * second, retry_after=1.0)
    assert retry_after.throttled_until == beside.throttled_until
    begun = NOW + 10 * second
    again = beside.after_throttling(begun, begun, retry_after=None)
    assert (again.throttles, again.throttled_until) == (2, begun + 2 * FIRST_WINDOW)


def test_throttling_again_and_again_stays_within_the_longest_window() -> None:
    health, now = HEALTHY, NOW
    for _ in range(40):
        health = health.after_throttling(now, now, retry_after=None)
        assert health.throttled_until is not None
        assert health.throttled_until - now <= MAX_WINDOW
        now = health.throttled_until
    assert health.throttles == 40


def test_a_success_clears_everything_but_throttling_that_it_did_not_meet() -> None:
    ill = HEALTHY.after_failure(NOW).after_failure(NOW + DAY).after_throttling(NOW + DAY, NOW + DAY, retry_after=60.0)
    assert (ill.failing_since, ill.failures, ill.degraded) == (NOW, 2, True)
    assert ill.after_success(NOW + 2 * DAY) == HEALTHY
    beside = ill.after_success(NOW + DAY)
    assert (beside.failing_since, beside.failures) == (None, 0)
    assert (beside.throttled_until, beside.throttles) == (ill.throttled_until, ill.throttles)


@pytest.mark.parametrize(
    ("patience", "days", "failures", "over"),
    [
        (DisablePolicy(), 5, 20, True),
        (DisablePolicy(), 4.99, 2000, False),
        (DisablePolicy(), 50, 19, False),
        (DisablePolicy(disable_after=None), 500, 2000, False),
    ],
)
def test_patience_ends_after_five_days_and_twenty_failures(
    disable_policy: DisablePolicy, days: float, failures: int, over: bool
) -> None:
    health = EndpointHealth(failing_since=NOW, failures=failures)
    assert disable_policy.should_disable(health, NOW + days * DAY) is over
    assert not disable_policy.should_disable(HEALTHY, NOW + days * DAY)


@pytest.mark.parametrize(("days", "passed"), [(0, 0), (0.99, 0), (1, 1), (2.9, 1), (3, 2), (40, 2)])
def test_warnings_are_due_after_a_day_and_after_three(days: float, passed: int) -> None:
    assert DisablePolicy().warnings(EndpointHealth(failing_since=NOW), NOW + days * DAY) == passed
    assert DisablePolicy().warnings(HEALTHY, NOW + days * DAY) == 0
