"""Purging, as rows: events that are old and settled go with their deliveries and attempts."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import SETTLED, Counts
from bellwire.registry.db.tables import (
    attempts,
    deliveries,
    events,
    subscriptions,
)
from bellwire.registry.deliveries import counts

_SETTLED = sorted(map(str, SETTLED))
#: Event key, subscription id and number of an attempt.
AttemptKey = tuple[str, str, int]


class Aged(NamedTuple):
    """An event of the age in question."""

    key: str
    accepted_at: datetime
    #: The run that delivers it.
    workflow_id: str
    counts: Counts


class Rows(NamedTuple):
    """How many rows went, or would go."""

    events: int = 0
    deliveries: int = 0
    attempts: int = 0


async def aged(connection: AsyncConnection, *, before: datetime, after: Aged | None, limit: int) -> list[Aged]:
    """Events accepted before `before`, the oldest first, beyond `after`."""
    order = (events.c.accepted_at, events.c.key)
    query = select(events.c.key, events.c.accepted_at, events.c.workflow_id).where(events.c.accepted_at < before)
    if after is not None:
        query = query.where(tuple_(*order) > (after.accepted_at, after.key))
    rows = (await connection.execute(query.order_by(*order).limit(limit))).all()
    counted = await counts(connection, [row.key for row in rows])
    return [Aged(row.key, row.accepted_at, row.workflow_id, counted.get(row.key, Counts())) for row in rows]


async def count_attempts(connection: AsyncConnection, keys: Sequence[str]) -> int:
    found = await connection.execute(select(func.count()).where(attempts.c.event_key.in_(keys)))
    return int(found.scalar_one())


async def purge(connection: AsyncConnection, keys: Sequence[str]) -> Rows:
    """Delete these events, but those that have something unsettled by now.

    Events are locked before their deliveries, so that none is added meanwhile, and both in the order that every writer goes by.
    """
    these = events.c.key.in_(keys)
    await connection.execute(select(events.c.key).where(these).order_by(events.c.key).with_for_update())
    rows = await connection.execute(
        select(deliveries.c.event_key, deliveries.c.state)
        .where(deliveries.c.event_key.in_(keys))
        .order_by(deliveries.c.event_key, deliveries.c.subscription_id)
        .with_for_update()
    )
    settled = set(keys) - {row.event_key for row in rows if row.state not in _SETTLED}
    cancel_requested = sorted(settled)
    made = await connection.execute(delete(attempts).where(attempts.c.event_key.in_(cancel_requested)))
    wanted = await connection.execute(delete(deliveries).where(deliveries.c.event_key.in_(cancel_requested)))
    gone = await connection.execute(delete(events).where(events.c.key.in_(cancel_requested)))
    return Rows(gone.rowcount, wanted.rowcount, made.rowcount)


async def purge_part(connection: AsyncConnection, key: str, *, limit: int) -> Rows:
    """Delete the first `limit` deliveries of an event; none if one of them is unsettled by now."""
    rows = (
        await connection.execute(
            select(deliveries.c.subscription_id, deliveries.c.state)
            .where(deliveries.c.event_key == key)
            .order_by(deliveries.c.subscription_id)
            .limit(limit)
            .with_for_update()
        )
    ).all()
    if any(row.state not in _SETTLED for row in rows):
        return Rows()
    ids = [row.subscription_id for row in rows]
    made = await connection.execute(
        delete(attempts).where(attempts.c.event_key == key, attempts.c.subscription_id.in_(ids))
    )
    await connection.execute(
        delete(deliveries).where(deliveries.c.event_key == key, deliveries.c.subscription_id.in_(ids))
    )
    return Rows(0, len(ids), made.rowcount)


async def stray_attempts(
    connection: AsyncConnection, *, before: datetime, after: AttemptKey, limit: int
) -> tuple[list[AttemptKey], AttemptKey | None]:
    """Attempts made before `before` whose delivery is gone: they were under way when it went.

    Looks at `limit` attempts beyond `after`; beside them the last that was looked at, None at the end.
    """
    order = (attempts.c.event_key, attempts.c.subscription_id, attempts.c.number)
    page = select(*order, attempts.c.started_at).where(tuple_(*order) > after).order_by(*order).limit(limit).subquery()
    its_delivery = and_(
        deliveries.c.event_key == page.c.event_key, deliveries.c.subscription_id == page.c.subscription_id
    )
    rows = (
        await connection.execute(
            select(page, deliveries.c.state)
            .select_from(page.outerjoin(deliveries, its_delivery))
            .order_by(page.c.event_key, page.c.subscription_id, page.c.number)
        )
    ).all()
    strays = [
        (row.event_key, row.subscription_id, row.number)
        for row in rows
        if row.state is None and row.started_at < before
    ]
    last = rows[-1] if len(rows) == limit else None
    return strays, (last.event_key, last.subscription_id, last.number) if last else None


async def delete_attempts(connection: AsyncConnection, keys: Sequence[AttemptKey]) -> int:
    number = 0
    column = attempts.c
    for event_key, subscription_id, attempt in sorted(keys):
        these = (column.event_key == event_key, column.subscription_id == subscription_id, column.number == attempt)
        number += (await connection.execute(delete(attempts).where(*these))).rowcount
    return number


async def drop_deliveries(connection: AsyncConnection, subscription_id: str, *, limit: int) -> Rows:
    """Delete `limit` settled deliveries of a subscription, with their attempts."""
    these = (deliveries.c.subscription_id == subscription_id, deliveries.c.state.in_(_SETTLED))
    rows = await connection.execute(
        select(deliveries.c.event_key).where(*these).order_by(deliveries.c.event_key).limit(limit).with_for_update()
    )
    keys = [row.event_key for row in rows]
    made = await connection.execute(
        delete(attempts).where(attempts.c.event_key.in_(keys), attempts.c.subscription_id == subscription_id)
    )
    await connection.execute(
        delete(deliveries).where(deliveries.c.event_key.in_(keys), deliveries.c.subscription_id == subscription_id)
    )
    return Rows(0, len(keys), made.rowcount)


async def drop_subscription(connection: AsyncConnection, subscription_id: str) -> bool:
    """Delete a subscription; False, and nothing is deleted, while it has deliveries. Its lock keeps new ones out."""
    await connection.execute(select(subscriptions.c.id).where(subscriptions.c.id == subscription_id).with_for_update())
    left = await connection.execute(
        select(deliveries.c.event_key).where(deliveries.c.subscription_id == subscription_id).limit(1)
    )
    if left.first() is not None:
        return False
    await connection.execute(delete(subscriptions).where(subscriptions.c.id == subscription_id))
    return True
