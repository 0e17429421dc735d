"""Retry-After (RFC 9110 §10.2.3), and the statuses that ask for throttling."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

#: Statuses by which an endpoint, or a proxy in front of it, asks for fewer requests (Standard Webhooks 1.0.0).
_THROTTLING = frozenset({429, 502, 504})
#: Asks for fewer requests if it says for how long.
_UNAVAILABLE = 503

_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10})?")


def asks_to_throttle(status: int, wait: float | None) -> bool:
    """Whether a response asks for fewer requests. `wait` is what `retry_after` returned for it."""
    return status in _THROTTLING or (status == _UNAVAILABLE and wait is not None)


def retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds from `now` (Unix time) that a Retry-After header asks for, given as seconds or as an HTTP-date.

    Never negative; None without a header, and for an invalid one.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # The asctime form has no zone; all HTTP-dates are in UTC.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
