"""Gates: why a delivery is not attempted now, and until when it is held.

Nothing waits in the worker: a held delivery goes back to its workflow, which waits for it as it waits for a retry. A hold is
not an attempt.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from bellwire.contract import REPLACED, Deferred, HoldReason
from bellwire.deliveries import Delivery
from bellwire.endpoint_health import EARLY_TOLERANCE
from bellwire.registry import Registry
from bellwire.registry.delivery_keys import grouped
from bellwire.sends import AttemptKey, SendRequest

#: Deliveries held for a throttled endpoint come back spread over as many seconds as the throttling still lasts, within these
#: bounds.
SPREAD_BOUNDS = (5.0, 300.0)


#: Seconds until a delivery that replaces one in flight is looked at again, and after which nothing counts as in flight.
LOOK_AGAIN, MAX_IN_FLIGHT = 1.0, 60.0


class Throttled(Exception):
    """It turned out during an attempt, before anything was sent, that the delivery exceeds a rate limit. It is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a delivery is not attempted now, and when it comes back."""

    reason: HoldReason
    until: datetime

    def defer(self, request: SendRequest, *, now: datetime) -> Deferred:
        return Deferred(
            event_key=request.delivery.event_key,
            subscription_id=request.delivery.subscription_id,
            attempts=request.number - 1,
            delay=(self.until - now).total_seconds(),
            from_retry_after=True,
            reason=self.reason,
        )


class Gate(Protocol):
    """One reason to hold deliveries."""

    async def __call__(
        self, registry: Registry, requests: Sequence[SendRequest], *, now: datetime
    ) -> Mapping[AttemptKey, Hold]:
        """The holds of those requests that may not be sent now; the others pass."""


async def throttled_endpoint(
    registry: Registry,  # noqa: ARG001 - the health was loaded with the request
    requests: Sequence[SendRequest],
    *,
    now: datetime,
) -> Mapping[AttemptKey, Hold]:
    """Holds what goes to an endpoint that answered 429 or the like a short time ago."""
    holds = {}
    for request in requests:
        until = request.health.throttled_until
        if until is not None and (until - now).total_seconds() > EARLY_TOLERANCE:
            holds[request.key] = throttled_until(until, now=now)
    return holds


async def rate_limit(
    registry: Registry, requests: Sequence[SendRequest], *, now: datetime
) -> Mapping[AttemptKey, Hold]:
    """Holds what exceeds the rate limit of its subscription, or the pace of its address, until its reserved time.

    Asks the registry only for limited deliveries without a reservation.
    """
    limited = [request for request in requests if request.is_limited]
    if not limited:
        return {}
    unreserved = [request for request in limited if request.delivery.reservation(now) is None]
    reserved = await registry.limits.reserve(unreserved, now=now) if unreserved else {}
    holds = {}
    for request in limited:
        delivery = request.delivery
        slot = delivery.reservation(now) or reserved.get(delivery.key)
        if slot is not None and (slot - now).total_seconds() > EARLY_TOLERANCE:
            holds[request.key] = Hold(reason=HoldReason.RATE_LIMIT, until=slot)
    return holds


async def replaced_message(
    registry: Registry, requests: Sequence[SendRequest], *, now: datetime
) -> Mapping[AttemptKey, Hold]:
    """Holds what replaces a message that is being sent, which it then changes. One that is sent later is cancelled instead.

    Else the earlier message would come after the later one.
    """
    holds, outdated = {}, list[Delivery]()
    for request in requests:
        if any(_may_be_in_flight(each, now) for each in request.outdated):
            until = now + timedelta(seconds=LOOK_AGAIN)
            holds[request.key] = Hold(reason=HoldReason.REPLACED_IN_FLIGHT, until=until)
        else:
            outdated += request.outdated
    if outdated:
        await registry.deliveries.settle(grouped(outdated), reason=REPLACED)
    return holds


def _may_be_in_flight(delivery: Delivery, now: datetime) -> bool:
    """Whether an attempt may be in progress: it is due, and has not been for so long that nobody attempts it."""
    due = delivery.updated_at + timedelta(seconds=delivery.delay or 0.0)
    return delivery.leased(now) or -MAX_IN_FLIGHT < (due - now).total_seconds() < LOOK_AGAIN


#: In this order: a request that one gate holds is not shown to the next.
GATES: tuple[Gate, ...] = (replaced_message, throttled_endpoint, rate_limit)


class Screened(NamedTuple):
    """Requests after all gates, each in the order given."""

    passed: list[SendRequest]
    held: list[Deferred]


async def screen(registry: Registry, requests: Sequence[SendRequest], *, now: datetime) -> Screened:
    """Separate what may be attempted now from what is held."""
    passed, held = list(requests), list[Deferred]()
    for gate in GATES:
        if not passed:
            break
        if holds := await gate(registry, passed, now=now):
            held += [holds[request.key].defer(request, now=now) for request in passed if request.key in holds]
            passed = [request for request in passed if request.key not in holds]
    return Screened(passed, held)


def throttled_until(until: datetime, *, now: datetime) -> Hold:
    """A hold that ends some time after `until`, so that the endpoint does not get its whole backlog at once."""
    wait = max(0.0, (until - now).total_seconds())
    shortest, longest = SPREAD_BOUNDS
    spread = min(max(wait, shortest), longest) * random.random()  # noqa: S311 - spreads load, keeps no secret
    return Hold(reason=HoldReason.THROTTLED, until=now + timedelta(seconds=wait + spread))
