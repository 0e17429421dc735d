"""Pacing: holds back what the rate limit of a subscription does not let through yet.

Nobody sleeps: a delivery whose moment is later goes back to its run, which waits for it as it waits for a retry.
"""

from collections.abc import Sequence
from datetime import datetime

from bellwire.contract import RATE_LIMIT, Deferred
from bellwire.deliveries import Due
from bellwire.registry import Registry

#: Seconds that a delivery may be early. Waiting for less costs more than it keeps from the receiver.
WITHIN = 0.05


async def hold_back(registry: Registry, dues: Sequence[Due], *, now: datetime) -> tuple[list[Due], list[Deferred]]:
    """What may be attempted now, and what is to come back at the moment that it has reserved; each in the order given.

    Asks the registry only for deliveries of limited subscriptions that have no moment yet.
    """
    new = [due for due in dues if due.subscription.rate_limit is not None and due.delivery.slot(now) is None]
    reserved = await registry.reserve(new, now=now) if new else {}
    go: list[Due] = []
    held: list[Deferred] = []
    for due in dues:
        slot = due.delivery.slot(now) or reserved.get((due.event.key, due.subscription.id))
        wait = 0.0 if slot is None or due.subscription.rate_limit is None else (slot - now).total_seconds()
        if wait <= WITHIN:
            go.append(due)
        else:
            held.append(_deferred(due, wait))
    return go, held


def _deferred(due: Due, wait: float) -> Deferred:
    return Deferred(
        event_key=due.event.key,
        subscription_id=due.subscription.id,
        attempts=due.number - 1,
        delay=wait,
        stated=True,
        reason=RATE_LIMIT,
    )
