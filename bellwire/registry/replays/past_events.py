"""Past events that a subscription matches and that were never delivered to it, in the order of storing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.filters import type_matches
from bellwire.registry.db.tables import deliveries, events
from bellwire.registry.events import by_keys
from bellwire.subscriptions import Subscription
from bellwire.tenants import ALL_TENANTS

#: Events that one call examines, by an index alone: some ten milliseconds.
SCAN = 5_000
#: Bounds of the events that it reads whole at a time, to apply filters.
READ = (100, 500)


class Place(NamedTuple):
    """The place of an event in the order of storing."""

    stored_at: datetime
    event_key: str


class PastEvents(NamedTuple):
    """A page of past events."""

    #: Keys, in the order of storing.
    keys: tuple[str, ...]
    #: The last event that was examined; None: there was none.
    reached: Place | None
    #: Whether no event follows.
    ended: bool


async def page(
    connection: AsyncConnection,
    subscription: Subscription,
    *,
    types: Sequence[str],
    since: datetime | None,
    until: datetime,
    after: Place | None,
    limit: int,
) -> PastEvents:
    """Return up to `limit` events that were stored from `since` on and before `until`, after the event at `after`.

    It may return fewer, and say that more follow.
    """
    scanned: list[Any] = []
    for tenant in (subscription.tenant, ALL_TENANTS):
        scanned += await connection.execute(_scan(tenant, since=since, until=until, after=after))
    # Each tenant's events come in order; of both together, only the first SCAN are known to be complete.
    scanned = sorted(scanned)[:SCAN]
    patterns = types or subscription.types
    candidates = [row for row in scanned if any(type_matches(pattern, row.type) for pattern in patterns)]
    found: list[str] = []
    size = min(max(READ[0], 2 * limit), READ[1])
    for start in range(0, len(candidates), size):
        rows = candidates[start : start + size]
        wanted = await _undelivered(connection, subscription, [row.key for row in rows])
        for row in rows:
            if row.key in wanted:
                found.append(row.key)
                if len(found) == limit:
                    return PastEvents(tuple(found), Place(row.accepted_at, row.key), ended=False)
    last = scanned[-1] if scanned else None
    reached = None if last is None else Place(last.accepted_at, last.key)
    return PastEvents(tuple(found), reached, ended=len(scanned) < SCAN)


def _scan(tenant: str, *, since: datetime | None, until: datetime, after: Place | None) -> Select[Any]:
    """The next events of a tenant. The index events_by_tenant has all that it reads."""
    column = events.c
    query = select(column.accepted_at, column.key, column.type).where(
        column.tenant == tenant, column.accepted_at < until
    )
    if since is not None:
        query = query.where(column.accepted_at >= since)
    if after is not None:
        place = tuple_(literal(after.stored_at, column.accepted_at.type), literal(after.event_key, column.key.type))
        query = query.where(tuple_(column.accepted_at, column.key) > place)
    return query.order_by(column.accepted_at, column.key).limit(SCAN)


async def _undelivered(connection: AsyncConnection, subscription: Subscription, keys: Sequence[str]) -> set[str]:
    """Those of the events that the subscription wants, and that it has no delivery of."""
    delivered = select(deliveries.c.event_key).where(
        deliveries.c.subscription_id == subscription.id, deliveries.c.event_key.in_(keys)
    )
    missing = set(keys) - set((await connection.execute(delivered)).scalars())
    found = await by_keys(connection, missing) if missing else {}
    return {key for key, (event, _) in found.items() if subscription.wants(event)}
