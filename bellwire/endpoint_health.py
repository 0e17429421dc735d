"""EndpointHealth: how the recent attempts at an endpoint went, and when it is throttled or disabled. No I/O."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: Without Retry-After, throttling lasts FIRST_WINDOW, and doubles each time it is repeated, up to MAX_WINDOW.
FIRST_WINDOW, MAX_WINDOW = timedelta(seconds=5), timedelta(minutes=5)
#: Retry-After is clamped to these bounds, in seconds: one second to one day.
RETRY_AFTER_BOUNDS = (1.0, 86_400.0)
#: Seconds that an attempt may be early. Waiting for less than this costs more than it saves the endpoint.
EARLY_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Consent:
    """An endpoint's consent to receive webhooks."""

    #: Digest of what was consented to: URL, origin and requested rate.
    given_for: str
    given_at: datetime
    #: Most deliveries per second; None: unlimited.
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """The health of a subscription's endpoint; immutable."""

    #: No delivery is attempted before.
    throttled_until: datetime | None = None
    #: Times that it was throttled since its last success. Concurrent attempts count once.
    throttles: int = 0
    #: When the first failed attempt since the last success ended.
    failing_since: datetime | None = None
    #: Failed attempts since the last success.
    failures: int = 0
    #: Points of `DisablePolicy.warn_after` that its tenant has been notified of.
    warnings: int = 0
    consent: Consent | None = None

    @property
    def degraded(self) -> bool:
        """Whether it is throttled or failing, so that a success changes something."""
        return self.throttled_until is not None or self.failing_since is not None

    def after_throttling(self, started: datetime, ended: datetime, *, retry_after: float | None) -> "EndpointHealth":
        """Return the health after an attempt that the endpoint throttled. `retry_after` is in seconds; None if not given.

        An attempt that started before the current throttling ended says nothing new, so it does not lengthen the window.
        """
        again = self.throttled_until is None or not _before(started, self.throttled_until)
        throttles = self.throttles + 1 if again else max(self.throttles, 1)
        until = ended + throttle_window(throttles, retry_after=retry_after)
        if not again and self.throttled_until is not None:
            until = max(until, self.throttled_until)
        return replace(self, throttled_until=until, throttles=throttles)

    def after_failure(self, ended: datetime) -> "EndpointHealth":
        return replace(self, failing_since=self.failing_since or ended, failures=self.failures + 1)

    def after_success(self, started: datetime) -> "EndpointHealth":
        """Return the health after a success. One that started before the throttling ended does not end it."""
        recovered = replace(self, failing_since=None, failures=0, warnings=0)
        if self.throttled_until is not None and _before(started, self.throttled_until):
            return recovered
        return replace(recovered, throttled_until=None, throttles=0)


HEALTHY = EndpointHealth()


def throttle_window(throttles: int, *, retry_after: float | None = None) -> timedelta:
    """Return how long throttling lasts that is the `throttles`-th in a row."""
    if retry_after is not None:
        shortest, longest = RETRY_AFTER_BOUNDS
        return timedelta(seconds=min(max(retry_after, shortest), longest))
    return min(FIRST_WINDOW * (1 << min(throttles - 1, 20)), MAX_WINDOW)


def _before(time: datetime, until: datetime) -> bool:
    return time + timedelta(seconds=EARLY_TOLERANCE) < until


@dataclass(frozen=True, slots=True)
class DisablePolicy:
    """When a failing subscription is disabled, and when its tenant is warned before."""

    #: The tenant is notified after failing for each of these times, in ascending order.
    warn_after: tuple[timedelta, ...] = (timedelta(days=1), timedelta(days=3))
    #: It is disabled after failing for this long and at least `disable_after_failures` times; None: never.
    disable_after: timedelta | None = timedelta(days=5)
    disable_after_failures: int = 20

    def should_disable(self, health: EndpointHealth, now: datetime) -> bool:
        if health.failing_since is None or self.disable_after is None:
            return False
        return health.failures >= self.disable_after_failures and now - health.failing_since >= self.disable_after

    def warnings(self, health: EndpointHealth, now: datetime) -> int:
        """Return how many points of `warn_after` have passed."""
        since = health.failing_since
        return 0 if since is None else sum(now - since >= point for point in self.warn_after)
