"""Rate limits of the API: what a caller may send at once, what it may send on average, and what headers say of it."""

import pytest

from starter.gateway.api.problems import ApiProblem
from starter.gateway.api.rate_limits import MAX_REMEMBERED, WINDOW, RateLimit


def test_a_quiet_caller_may_send_a_window_at_once_and_then_the_rate() -> None:
    limit = RateLimit("requests", 2.0)
    for _ in range(int(2 * WINDOW)):
        limit.take("key", now=0.0)
    with pytest.raises(ApiProblem) as refused:
        limit.take("key", now=0.0)
    assert refused.value.headers["retry-after"] == "1"
    assert refused.value.headers["ratelimit"] == '"requests";r=0;t=10'
    remaining = limit.take("key", now=0.5)
    assert remaining
    assert remaining.headers == {"ratelimit-policy": '"requests";q=20;w=10', "ratelimit": '"requests";r=0;t=10'}
    with pytest.raises(ApiProblem):
        limit.take("key", now=0.5)


def test_callers_do_not_share_a_limit() -> None:
    limit = RateLimit("requests", 0.1)
    limit.take("one", now=0.0)
    with pytest.raises(ApiProblem):
        limit.take("one", now=0.0)
    limit.take("two", now=0.0)


def test_a_batch_larger_than_the_limit_passes_when_the_whole_limit_is_available() -> None:
    limit = RateLimit("events", 1.0)
    limit.take("key", 100, now=0.0)
    for now in (1.0, 89.0):
        with pytest.raises(ApiProblem):
            limit.take("key", 100, now=now)
    limit.take("key", 100, now=101.0)


def test_without_a_rate_nothing_is_counted() -> None:
    limit = RateLimit("requests", None)
    assert [limit.take("key", 1_000_000) for _ in range(3)] == [None] * 3


def test_memory_is_bounded() -> None:
    limit = RateLimit("requests", 1.0)
    for number in range(MAX_REMEMBERED + 100):
        limit.take(str(number), now=0.0)
    assert len(limit._buckets) == MAX_REMEMBERED
