"""Rate limits of the API: per key, and per tenant over all keys of its scope. Each gateway process counts for itself."""

import math
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Self

from bellwire.service.settings import Settings
from starter.gateway.api.callers import Caller
from starter.gateway.api.problems import ApiProblem, ProblemType
from starter.gateway.api.requests import RATE_LIMIT

#: Seconds over which a rate is measured: a caller that was quiet may send as much at once.
WINDOW = 10.0
#: Callers that a process remembers. One that is forgotten has its whole window again.
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    filled_at: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a caller may still do, for the RateLimit fields (draft-ietf-httpapi-ratelimit-headers)."""

    policy: str
    limit: int
    left: int
    #: Seconds until the whole limit is available again.
    reset: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ratelimit-policy": f'"{self.policy}";q={self.limit};w={WINDOW:.0f}',
            "ratelimit": f'"{self.policy}";r={self.left};t={self.reset}',
        }


class RateLimit:
    """A token bucket per caller."""

    def __init__(self, policy: str, per_second: float | None) -> None:
        """`policy` names it in headers; `per_second` None: no limit."""
        self._policy, self._rate = policy, per_second
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, number: int = 1, *, now: float | None = None) -> Remaining | None:
        """Count `number` requests or events of a caller; None without a limit. Raises ApiProblem if they are too many."""
        if self._rate is None:
            return None
        now, capacity = time.monotonic() if now is None else now, self._rate * WINDOW
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(capacity, now)
            if len(self._buckets) > MAX_REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(caller)
        bucket.left = min(capacity, bucket.left + (now - bucket.filled_at) * self._rate)
        bucket.filled_at = now
        # More than the whole limit at once passes when the whole limit is available, and lengthens the wait after it.
        missing = min(number, capacity) - bucket.left
        if missing <= 0:
            bucket.left -= number
        remaining = Remaining(
            self._policy, int(capacity), max(0, int(bucket.left)), math.ceil((capacity - bucket.left) / self._rate)
        )
        if missing > 0:
            seconds = max(1, math.ceil(missing / self._rate))
            raise ApiProblem(
                ProblemType.RATE_LIMITED,
                f"more than {self._rate:g} a second ({self._policy}); try again in {seconds} s",
                headers={**remaining.headers, "retry-after": str(seconds)},
            )
        return remaining


@dataclass(frozen=True)
class RateLimits:
    """The limits of requests to resources, and of published events. Publishing does not count as requests."""

    requests: RateLimit
    events: RateLimit

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(RateLimit("requests", settings.api_rate), RateLimit("events", settings.publish_rate))

    def take_request(self, caller: Caller, scope: MutableMapping[str, Any]) -> None:
        """Count a request of a key, and of its tenant. Raises ApiProblem."""
        taken = [self.requests.take(caller.key_id)]
        if caller.tenant is not None:
            taken.append(self.requests.take(f"tenant {caller.tenant}"))
        _tell(taken, scope)

    def take_events(self, caller: Caller, number: int, scope: MutableMapping[str, Any]) -> None:
        """Count published events of a key. Raises ApiProblem."""
        _tell([self.events.take(caller.key_id, number)], scope)


def _tell(taken: list[Remaining | None], scope: MutableMapping[str, Any]) -> None:
    """Let the response tell the tighter of the limits."""
    if limited := [remaining for remaining in taken if remaining]:
        scope[RATE_LIMIT] = min(limited, key=lambda remaining: remaining.left).headers
