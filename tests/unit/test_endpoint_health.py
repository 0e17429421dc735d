"""Endpoint health after throttling, failures and successes, and the policy that disables subscriptions."""

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
    ("throttles", "retry_after", "seconds"),
    [
        *((number, None, seconds) for number, seconds in enumerate((5, 10, 20, 40, 80, 160, 300, 300), 1)),
        (10_000, None, 300),
        (1, 30.0, 30),
        (7, 30.0, 30),
        (1, 0.0, 1),
        (1, 1e9, 86_400),
    ],
)
def test_throttle_windows_double_to_five_minutes_and_retry_after_is_clamped_to_a_day(
    throttles: int, retry_after: float | None, seconds: float
) -> None:
    assert throttle_window(throttles, retry_after=retry_after) == timedelta(seconds=seconds)


def test_repeated_throttling_lengthens_the_window_and_concurrent_attempts_do_not() -> None:
    second = timedelta(seconds=1)
    once = HEALTHY.after_throttling(NOW, NOW + second, retry_after=None)
    assert (once.throttles, once.throttled_until) == (1, NOW + second + FIRST_WINDOW)
    concurrent = once.after_throttling(NOW + second, NOW + 2 * second, retry_after=None)
    assert (concurrent.throttles, concurrent.throttled_until) == (1, NOW + 2 * second + FIRST_WINDOW)
    # A shorter Retry-After of a concurrent attempt does not end it earlier.
    shorter = concurrent.after_throttling(NOW + second, NOW + 2 * second, retry_after=1.0)
    assert shorter.throttled_until == concurrent.throttled_until
    later = NOW + 10 * second
    twice = concurrent.after_throttling(later, later, retry_after=None)
    assert (twice.throttles, twice.throttled_until) == (2, later + 2 * FIRST_WINDOW)


def test_windows_never_exceed_the_longest() -> None:
    health, now = HEALTHY, NOW
    for _ in range(40):
        health = health.after_throttling(now, now, retry_after=None)
        assert health.throttled_until is not None
        assert health.throttled_until - now <= MAX_WINDOW
        now = health.throttled_until
    assert health.throttles == 40


def test_a_success_clears_everything_but_throttling_that_began_after_it_started() -> None:
    degraded = (
        HEALTHY.after_failure(NOW).after_failure(NOW + DAY).after_throttling(NOW + DAY, NOW + DAY, retry_after=60.0)
    )
    assert (degraded.failing_since, degraded.failures, degraded.degraded) == (NOW, 2, True)
    assert degraded.after_success(NOW + 2 * DAY) == HEALTHY
    concurrent = degraded.after_success(NOW + DAY)
    assert (concurrent.failing_since, concurrent.failures) == (None, 0)
    assert (concurrent.throttled_until, concurrent.throttles) == (degraded.throttled_until, degraded.throttles)


@pytest.mark.parametrize(
    ("policy", "days", "failures", "disabled"),
    [
        (DisablePolicy(), 5, 20, True),
        (DisablePolicy(), 4.99, 2000, False),
        (DisablePolicy(), 50, 19, False),
        (DisablePolicy(disable_after=None), 500, 2000, False),
    ],
)
def test_a_subscription_is_disabled_after_five_days_and_twenty_failures(
    policy: DisablePolicy, days: float, failures: int, disabled: bool
) -> None:
    health = EndpointHealth(failing_since=NOW, failures=failures)
    assert policy.should_disable(health, NOW + days * DAY) is disabled
    assert not policy.should_disable(HEALTHY, NOW + days * DAY)


@pytest.mark.parametrize(("days", "warnings"), [(0, 0), (0.99, 0), (1, 1), (2.9, 1), (3, 2), (40, 2)])
def test_warnings_are_due_after_one_day_and_after_three(days: float, warnings: int) -> None:
    assert DisablePolicy().warnings(EndpointHealth(failing_since=NOW), NOW + days * DAY) == warnings
    assert DisablePolicy().warnings(HEALTHY, NOW + days * DAY) == 0
