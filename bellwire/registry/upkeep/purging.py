"""Purging: row functions that delete old settled events, and subscriptions, with their deliveries and attempts."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import SETTLED, Counts
from bellwire.registry.api import feeds
from bellwire.registry.db.tables import attempts, deliveries, events, subscriptions
from bellwire.registry.deliveries import counts
from bellwire.sends import AttemptKey

_SETTLED = sorted(map(str, SETTLED))


class OldEvent(NamedTuple):
    """An event that is old enough to be purged."""

    key: str
    accepted_at: datetime
    #: The workflow that delivers it.
    workflow_id: str
    counts: Counts


class Rows(NamedTuple):
    """How many rows were deleted, or would be."""

    events: int = 0
    deliveries: int = 0
    attempts: int = 0

    def plus(self, more: "Rows") -> "Rows":
        return Rows(self.events + more.events, self.deliveries + more.deliveries, self.attempts + more.attempts)


class OrphanedAttempts(NamedTuple):
    """Old attempts without a delivery, among a page of attempts."""

    keys: Sequence[AttemptKey]
    #: The last attempt of the page; None at the end.
    reached: AttemptKey | None


async def old_events(
    connection: AsyncConnection, *, before: datetime, after: OldEvent | None, limit: int
) -> list[OldEvent]:
    """Return events accepted before `before`, oldest first, after the event `after`."""
    order = (events.c.accepted_at, events.c.key)
    query = select(events.c.key, events.c.accepted_at, events.c.workflow_id).where(events.c.accepted_at < before)
    if after is not None:
        query = query.where(tuple_(*order) > (after.accepted_at, after.key))
    rows = (await connection.execute(query.order_by(*order).limit(limit))).all()
    counted = await counts(connection, [row.key for row in rows])
    return [OldEvent(row.key, row.accepted_at, row.workflow_id, counted.get(row.key, Counts())) for row in rows]


async def count_attempts(connection: AsyncConnection, keys: Sequence[str]) -> int:
    found = await connection.execute(select(func.count()).where(attempts.c.event_key.in_(keys)))
    return int(found.scalar_one())


async def purge(connection: AsyncConnection, keys: Sequence[str]) -> Rows:
    """Delete these events, except those that have unsettled deliveries now.

    Events are locked before their deliveries, so that none is added meanwhile; both ordered by key, as all writers do.
    """
    these = events.c.key.in_(keys)
    await connection.execute(select(events.c.key).where(these).order_by(events.c.key).with_for_update())
    rows = await connection.execute(
        select(deliveries.c.event_key, deliveries.c.state)
        .where(deliveries.c.event_key.in_(keys))
        .order_by(deliveries.c.event_key, deliveries.c.subscription_id)
        .with_for_update()
    )
    settled = sorted(set(keys) - {row.event_key for row in rows if row.state not in _SETTLED})
    deleted_attempts = await connection.execute(delete(attempts).where(attempts.c.event_key.in_(settled)))
    deleted_deliveries = await connection.execute(delete(deliveries).where(deliveries.c.event_key.in_(settled)))
    await feeds.remove(connection, settled)
    deleted_events = await connection.execute(delete(events).where(events.c.key.in_(settled)))
    return Rows(deleted_events.rowcount, deleted_deliveries.rowcount, deleted_attempts.rowcount)


async def purge_deliveries(connection: AsyncConnection, key: str, *, limit: int) -> Rows:
    """Delete the first `limit` deliveries of an event; none if one of them is unsettled now."""
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
    deleted = await connection.execute(
        delete(attempts).where(attempts.c.event_key == key, attempts.c.subscription_id.in_(ids))
    )
    await connection.execute(
        delete(deliveries).where(deliveries.c.event_key == key, deliveries.c.subscription_id.in_(ids))
    )
    await feeds.remove(connection, [key], subscription_ids=ids)
    return Rows(0, len(ids), deleted.rowcount)


async def orphaned_attempts(
    connection: AsyncConnection, *, before: datetime, after: AttemptKey, limit: int
) -> OrphanedAttempts:
    """Find attempts started before `before` whose delivery is gone: it was deleted while they were in progress.

    Reads a page of `limit` attempts after `after`.
    """
    order = (attempts.c.event_key, attempts.c.subscription_id, attempts.c.number)
    page = select(*order, attempts.c.started_at).where(tuple_(*order) > tuple(after))
    page_rows = page.order_by(*order).limit(limit).subquery()
    same_delivery = and_(
        deliveries.c.event_key == page_rows.c.event_key, deliveries.c.subscription_id == page_rows.c.subscription_id
    )
    rows = (
        await connection.execute(
            select(page_rows, deliveries.c.state)
            .select_from(page_rows.outerjoin(deliveries, same_delivery))
            .order_by(page_rows.c.event_key, page_rows.c.subscription_id, page_rows.c.number)
        )
    ).all()
    keys = [AttemptKey(row.event_key, row.subscription_id, row.number) for row in rows]
    orphaned = [key for key, row in zip(keys, rows, strict=True) if row.state is None and row.started_at < before]
    return OrphanedAttempts(orphaned, keys[-1] if len(keys) == limit else None)


async def delete_attempts(connection: AsyncConnection, keys: Sequence[AttemptKey]) -> int:
    number = 0
    column = attempts.c
    for event_key, subscription_id, attempt in sorted(keys):
        these = (column.event_key == event_key, column.subscription_id == subscription_id, column.number == attempt)
        number += (await connection.execute(delete(attempts).where(*these))).rowcount
    return number


async def delete_settled(connection: AsyncConnection, subscription_id: str, *, limit: int) -> Rows:
    """Delete up to `limit` settled deliveries of a subscription, with their attempts."""
    these = (deliveries.c.subscription_id == subscription_id, deliveries.c.state.in_(_SETTLED))
    rows = await connection.execute(
        select(deliveries.c.event_key).where(*these).order_by(deliveries.c.event_key).limit(limit).with_for_update()
    )
    keys = [row.event_key for row in rows]
    deleted = await connection.execute(
        delete(attempts).where(attempts.c.event_key.in_(keys), attempts.c.subscription_id == subscription_id)
    )
    await connection.execute(
        delete(deliveries).where(deliveries.c.event_key.in_(keys), deliveries.c.subscription_id == subscription_id)
    )
    await feeds.remove(connection, keys, subscription_ids=[subscription_id])
    return Rows(0, len(keys), deleted.rowcount)


async def delete_subscription(connection: AsyncConnection, subscription_id: str) -> bool:
    """Delete a subscription that has no deliveries; return whether it did. Locking the row keeps new deliveries out."""
    await connection.execute(select(subscriptions.c.id).where(subscriptions.c.id == subscription_id).with_for_update())
    remaining = await connection.execute(
        select(deliveries.c.event_key).where(deliveries.c.subscription_id == subscription_id).limit(1)
    )
    if remaining.first() is not None:
        return False
    await connection.execute(delete(subscriptions).where(subscriptions.c.id == subscription_id))
    return True
