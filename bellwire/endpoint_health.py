"""Condition: how the receiver of a subscription has fared lately, and what follows from it. Plain data and arithmetic."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: Without a stated time, throttling lasts this long, and twice as long each time it follows on itself, up to the second.
FIRST_WINDOW, MAX_WINDOW = timedelta(seconds=5), timedelta(minutes=5)
#: A stated retry time is kept within these bounds, in seconds: one second to one day.
RETRY_AFTER_BOUNDS = (1.0, 86_400.0)
#: Seconds that an attempt may be early; waiting for less costs more than it keeps from the receiver.
WITHIN = 0.05


@dataclass(frozen=True, slots=True)
class Consent:
    """A receiver's consent to webhooks."""

    #: Digest of what it was given for: URL, origin and rate asked for.
    given_for: str
    given_at: datetime
    #: Most deliveries per second; None: any number.
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """How the receiver of a subscription fares."""

    #: No delivery is attempted before.
    throttled_until: datetime | None = None
    #: How often it was throttled since its last success, attempts side by side counted once.
    throttles: int = 0
    #: When the first of the attempts ended that have failed since the last success.
    failing_since: datetime | None = None
    #: How many they are.
    failures: int = 0
    #: How many points of `Patience.warn_after` have been told of.
    warnings: int = 0
    consent: Consent | None = None

    @property
    def degraded(self) -> bool:
        """Whether there is something that a success clears."""
        return self.throttled_until is not None or self.failing_since is not None

    def throttled(self, started: datetime, ended: datetime, *, retry_after: float | None) -> "EndpointHealth":
        """After an attempt whose receiver had too much to do and perhaps named the seconds until the next.

        One that began before the throttling it met was over tells nothing new, so it does not make the window longer.
        """
        again = self.throttled_until is None or not _before(started, self.throttled_until)
        throttles = self.throttles + 1 if again else max(self.throttles, 1)
        until = ended + window(throttles, retry_after=retry_after)
        if not again and self.throttled_until is not None:
            until = max(until, self.throttled_until)
        return replace(self, throttled_until=until, throttles=throttles)

    def failed(self, ended: datetime) -> "EndpointHealth":
        return replace(self, failing_since=self.failing_since or ended, failures=self.failures + 1)

    def succeeded(self, started: datetime) -> "EndpointHealth":
        """After a success. One that began before the throttling was over says nothing about that."""
        well = replace(self, failing_since=None, failures=0, warnings=0)
        if self.throttled_until is not None and _before(started, self.throttled_until):
            return well
        return replace(well, throttled_until=None, throttles=0)


HEALTHY = EndpointHealth()


def window(throttles: int, *, retry_after: float | None = None) -> timedelta:
    """How long the throttling lasts that is the `throttles`-th in a row."""
    if retry_after is not None:
        shortest, longest = RETRY_AFTER_BOUNDS
        return timedelta(seconds=min(max(retry_after, shortest), longest))
    return min(FIRST_WINDOW * (1 << min(throttles - 1, 20)), MAX_WINDOW)


def _before(moment: datetime, until: datetime) -> bool:
    return moment + timedelta(seconds=WITHIN) < until


@dataclass(frozen=True, slots=True)
class DisablePolicy:
    """How long it is put up with that a subscription fails."""

    #: Its tenant is told after each of these times, in ascending order.
    warn_after: tuple[timedelta, ...] = (timedelta(days=1), timedelta(days=3))
    #: It is disabled after this time, if it has failed that often by then; None: never.
    disable_after: timedelta | None = timedelta(days=5)
    disable_after_failures: int = 20

    def should_disable(self, health: EndpointHealth, now: datetime) -> bool:
        """Whether it has come to an end."""
        if health.failing_since is None or self.disable_after is None:
            return False
        return health.failures >= self.disable_after_failures and now - health.failing_since >= self.disable_after

    def warnings(self, health: EndpointHealth, now: datetime) -> int:
        """How many points of `warn_after` have passed."""
        since = health.failing_since
        return 0 if since is None else sum(now - since >= point for point in self.warn_after)
