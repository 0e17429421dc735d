"""Feeds: what apps read of subscriptions of the channel `poll`, in order, and the resource `registry.feeds`.

An entry is added by the transaction that records its delivery as delivered, so that a delivery is in the feed once for each time
that it was delivered, whatever was killed or repeated. That transaction locks the feed's counter until it ends: the entries of
one with lower positions are never committed after those of another with higher ones, so a reader skips none.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, bindparam, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Attempt, DeliveryKey, DeliveryState, delivery_id
from bellwire.errors import SubscriptionNotFound
from bellwire.events import Event
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.feed_tables import feed_entries, feeds, is_test
from bellwire.registry.db.tables import deliveries, events, subscriptions
from bellwire.registry.delivery_keys import conditions

#: Characters of stored events after which a page ends. It has at least one event.
MAX_PAGE = 1_000_000
#: Deliveries and subscriptions of one query, beyond which statements that name each key are cheaper.
_MAX_COMBINATIONS = 10_000

_ADVANCE = (
    update(feeds)
    .where(feeds.c.subscription_id == bindparam("name"))
    .values(last_position=feeds.c.last_position + bindparam("number", type_=Integer))
)
_REMOVED = (
    update(feeds)
    .where(feeds.c.subscription_id == bindparam("name"))
    .values(
        removed_to=case((feeds.c.removed_to < bindparam("reached"), bindparam("reached")), else_=feeds.c.removed_to)
    )
)
_INSERT = insert(feed_entries)
_POSITIONS = select(feeds.c.subscription_id, feeds.c.last_position).where(
    feeds.c.subscription_id.in_(bindparam("names", expanding=True))
)
#: Deliveries that a transaction has changed to delivered at a time, which is its own.
_APPLIED = select(deliveries.c.event_key, deliveries.c.subscription_id).where(
    deliveries.c.state == str(DeliveryState.DELIVERED), deliveries.c.updated_at == bindparam("at")
)
_APPLIED_COMBINATIONS = _APPLIED.where(
    deliveries.c.event_key.in_(bindparam("keys", expanding=True)),
    deliveries.c.subscription_id.in_(bindparam("names", expanding=True)),
)
_PAGE = (
    select(
        feed_entries.c.position,
        feed_entries.c.event_key,
        feed_entries.c.body,
        func.length(func.coalesce(feed_entries.c.body, events.c.body)).label("length"),
    )
    .select_from(feed_entries.outerjoin(events, events.c.key == feed_entries.c.event_key))
    .where(feed_entries.c.subscription_id == bindparam("name"), feed_entries.c.position > bindparam("after"))
    .order_by(feed_entries.c.position)
    .limit(bindparam("number"))
)
#: What was removed, and how many entries that a reader has not seen are still before the last removed one.
_REMOVED_BEFORE = select(
    feeds.c.removed_to,
    select(func.count())
    .select_from(feed_entries)
    .where(
        feed_entries.c.subscription_id == bindparam("name"),
        feed_entries.c.position > bindparam("after"),
        feed_entries.c.position <= feeds.c.removed_to,
    )
    .correlate(feeds)
    .scalar_subquery(),
).where(feeds.c.subscription_id == bindparam("name"))
_BODIES = select(events.c.key, events.c.body).where(events.c.key.in_(bindparam("keys", expanding=True)))


class NewEntry(NamedTuple):
    """What is added to a feed."""

    subscription_id: str
    event_key: str
    #: The event, if it is not stored.
    body: str | None = None


class FeedEntry(NamedTuple):
    """An event in a feed."""

    delivery_id: str
    event: Event


class FeedPage(NamedTuple):
    """Consecutive entries of a feed. Those whose event was deleted are left out."""

    entries: Sequence[FeedEntry]
    #: The position of the last one, also of one that is left out; without entries, that of what was there before.
    reached: int
    #: Whether there are entries after it.
    more: bool
    #: After the page was read.
    feed: "Feed"
    #: `removed_to` before the page was read.
    removed_to: int = 0
    #: Entries up to `removed_to` that were there then: of the page and after it, and those after it.
    kept: int = 0
    kept_after: int = 0


class Feed(NamedTuple):
    """The state of a feed."""

    #: Empty while the feed has never had an entry.
    feed_id: str = ""
    last_position: int = 0
    #: The highest position of an entry that was removed.
    removed_to: int = 0


async def place(connection: AsyncConnection, recorded: Sequence[Attempt], *, at: datetime) -> None:
    """Add the events of those attempts that this transaction has recorded and that changed their delivery, `at` this time."""
    if not recorded:
        return
    applied = await _applied(connection, sorted({DeliveryKey(a.event_key, a.subscription_id) for a in recorded}), at)
    # In the order of the attempts: keys of events are random. Each once: an attempt that several waited for is recorded by each.
    in_order = sorted(recorded, key=lambda attempt: (attempt.started_at, attempt.event_key))
    entries = dict.fromkeys(NewEntry(each.subscription_id, each.event_key) for each in in_order)
    await add(connection, [each for each in entries if (each.event_key, each.subscription_id) in applied], at=at)


async def _applied(connection: AsyncConnection, keys: Sequence[DeliveryKey], at: datetime) -> set[tuple[str, str]]:
    event_keys, names = sorted({key for key, _ in keys}), sorted({name for _, name in keys})
    if len(event_keys) * len(names) <= _MAX_COMBINATIONS:
        rows = await connection.execute(_APPLIED_COMBINATIONS, {"at": at, "keys": event_keys, "names": names})
        return {tuple(row) for row in rows}
    found = set[tuple[str, str]]()
    for condition in conditions(keys):
        found |= {tuple(row) for row in await connection.execute(_APPLIED.where(condition), {"at": at})}
    return found


async def add(connection: AsyncConnection, entries: Sequence[NewEntry], *, at: datetime) -> None:
    """Add entries at the ends of their feeds, in this order. Feeds are locked sorted, so that two writers never deadlock."""
    if not entries:
        return
    numbers = sorted(Counter(entry.subscription_id for entry in entries).items())
    new = [
        {"subscription_id": name, "feed_id": secrets.token_hex(4), "last_position": 0, "removed_to": 0}
        for name, _ in numbers
    ]
    await execute_many(connection, insert_missing(connection, feeds), new)
    await execute_many(connection, _ADVANCE, [{"name": name, "number": number} for name, number in numbers])
    positions = await last_positions(connection, [name for name, _ in numbers])
    following = {name: positions[name] - number for name, number in numbers}
    rows = []
    for entry in entries:
        following[entry.subscription_id] += 1
        rows.append(
            {
                "subscription_id": entry.subscription_id,
                "position": following[entry.subscription_id],
                "event_key": entry.event_key,
                "placed_at": at,
                "body": entry.body,
            }
        )
    await execute_many(connection, _INSERT, rows)


async def place_test(connection: AsyncConnection, subscription_id: str, event: Event) -> None:
    this = subscriptions.c.id == subscription_id
    locked = select(subscriptions.c.id).where(this).with_for_update(read=True, key_share=True)
    if (await connection.execute(locked)).first() is None:
        raise SubscriptionNotFound.of(subscription_id)
    await add(connection, [NewEntry(subscription_id, event.key, event.to_json())], at=datetime.now(UTC))


async def read(connection: AsyncConnection, subscription_id: str, *, after: int, limit: int) -> FeedPage:
    # First: what is removed from now on, the page may lack.
    before = (await connection.execute(_REMOVED_BEFORE, {"name": subscription_id, "after": after})).one_or_none()
    removed_to, kept = before or (0, 0)
    rows = (await connection.execute(_PAGE, {"name": subscription_id, "after": after, "number": limit + 1})).all()
    page, size = list(rows[:0]), 0
    for row in rows[:limit]:
        size += row.length or 0
        if page and size > MAX_PAGE:
            break
        page.append(row)
    keys = sorted({row.event_key for row in page if row.body is None})
    bodies = await _pairs(connection, _BODIES, keys=keys) if keys else {}
    entries = [
        FeedEntry(delivery_id(row.event_key, subscription_id), Event.restored(body))
        for row in page
        if (body := row.body or bodies.get(row.event_key)) is not None
    ]
    # Last: if entries were removed meanwhile, this says so.
    feed = await get(connection, subscription_id)
    reached = page[-1].position if page else max(after, removed_to)
    kept_after = kept - sum(row.position <= removed_to for row in page)
    return FeedPage(entries, reached, len(rows) > len(page), feed, removed_to, kept, kept_after)


async def get(connection: AsyncConnection, subscription_id: str) -> Feed:
    columns = (feeds.c.feed_id, feeds.c.last_position, feeds.c.removed_to)
    row = (await connection.execute(select(*columns).where(feeds.c.subscription_id == subscription_id))).one_or_none()
    return Feed() if row is None else Feed(*row)


async def last_positions(connection: AsyncConnection, names: Sequence[str]) -> dict[str, int]:
    return await _pairs(connection, _POSITIONS, names=names)


async def _pairs(connection: AsyncConnection, query: Select[Any], **values: object) -> dict[str, Any]:
    return {row[0]: row[1] for row in await connection.execute(query, values)}


async def remove(
    connection: AsyncConnection, event_keys: Sequence[str], *, subscription_ids: Sequence[str] | None = None
) -> None:
    """Remove the entries of these events, of some subscriptions or of all. Cursors before them expire."""
    these = [feed_entries.c.event_key.in_(event_keys)]
    if subscription_ids is not None:
        these.append(feed_entries.c.subscription_id.in_(subscription_ids))
    await _remove(connection, *these)


async def remove_tests(connection: AsyncConnection, *, before: datetime) -> None:
    """Remove the events of test sends that are older than this."""
    await _remove(connection, is_test, feed_entries.c.placed_at < before)


async def _remove(connection: AsyncConnection, *these: Any) -> None:
    order = feed_entries.c.subscription_id
    found = await connection.execute(
        select(order, func.max(feed_entries.c.position)).where(*these).group_by(order).order_by(order)
    )
    reached = [{"name": name, "reached": position} for name, position in found]
    if reached:
        await execute_many(connection, _REMOVED, reached)
        await connection.execute(delete(feed_entries).where(*these))


class Feeds:
    """The resource `registry.feeds`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, subscription_id: str) -> Feed:
        """Return the state of the feed of a subscription."""
        return await self._database.read(get, subscription_id)

    async def read(self, subscription_id: str, *, after: int, limit: int) -> FeedPage:
        """Return up to `limit` entries after the position `after`; 0: from the oldest that is kept."""
        return await self._database.read(read, subscription_id, after=after, limit=limit)

    async def last_positions(self, subscription_ids: Sequence[str]) -> dict[str, int]:
        """Return the positions of the last entries of those feeds that have had any."""
        return await self._database.read(last_positions, subscription_ids)

    async def place_test(self, subscription_id: str, event: Event) -> None:
        """Add the event of a test send, which is not stored otherwise. Raises SubscriptionNotFound."""
        await self._database.write(place_test, subscription_id, event)
