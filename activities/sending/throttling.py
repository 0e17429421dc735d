"""Pacing: holds back what the receiver of a subscription is not to get yet, by its rate limit or because it is throttled.

Nobody sleeps: a delivery whose moment is later goes back to its run, which waits for it as it waits for a retry.
"""

import random
from collections.abc import Sequence
from datetime import datetime

from bellwire.contract import RATE_LIMIT, THROTTLED, Deferred
from bellwire.endpoint_health import EARLY_TOLERANCE
from bellwire.registry import Registry
from bellwire.sends import SendRequest

#: What was held back while a receiver was throttled comes back over as many seconds as the throttling still lasts, within
#: these bounds.
SPREAD_BOUNDS = (5.0, 300.0)


class Throttled(Exception):
    """It turned out during an attempt, before anything was sent, that it must wait its turn. It comes back to be paced."""


async def hold_back(
    registry: Registry, requests: Sequence[SendRequest], *, now: datetime
) -> tuple[list[SendRequest], list[Deferred]]:
    """What may be attempted now, and what is to come back later; each in the order given.

    Asks the registry only for deliveries of limited subscriptions that have no moment yet.
    """
    held: list[Deferred] = []
    free: list[SendRequest] = []
    for request in requests:
        until = request.health.throttled_until
        if until is not None and (until - now).total_seconds() > EARLY_TOLERANCE:
            held.append(throttled(request, until, now=now))
        else:
            free.append(request)
    new = [request for request in free if request.rate is not None and request.delivery.slot(now) is None]
    reserved = await registry.limits.reserve(new, now=now) if new else {}
    go: list[SendRequest] = []
    for request in free:
        slot = request.delivery.slot(now) or reserved.get((request.delivery.event_key, request.subscription.id))
        wait = 0.0 if slot is None or request.rate is None else (slot - now).total_seconds()
        if wait <= EARLY_TOLERANCE:
            go.append(request)
        else:
            held.append(paced(request, wait))
    return go, held


def throttled(request: SendRequest, until: datetime, *, now: datetime) -> Deferred:
    """Comes back some time after `until`, so that a backlog does not meet the receiver all at once."""
    wait = max(0.0, (until - now).total_seconds())
    shortest, longest = SPREAD_BOUNDS
    spread = min(max(wait, shortest), longest) * random.random()  # noqa: S311 - spreads load, keeps no secret
    return _deferred(request, wait + spread, THROTTLED)


def paced(request: SendRequest, wait: float = 0.0) -> Deferred:
    """Comes back after `wait` seconds."""
    return _deferred(request, wait, RATE_LIMIT)


def _deferred(request: SendRequest, wait: float, reason: str) -> Deferred:
    return Deferred(
        event_key=request.delivery.event_key,
        subscription_id=request.subscription.id,
        attempts=request.number - 1,
        delay=wait,
        from_retry_after=True,
        reason=reason,
    )
