"""Rate limits, as rows: those of channels, and the moments that deliveries of a limited subscription have reserved.

A moment is reserved once per attempt and kept until the attempt is recorded: a backlog costs one write each, however long
it waits, and an activity that is tried again finds the moment that it had.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import deliveries, limits, subscriptions
from bellwire.registry.deliveries import Pair, by_pairs
from bellwire.sends import SendRequest
from bellwire.targets import Channel

#: Seconds for which `limited_channels` answers from memory.
CACHE_SECONDS = 5.0


async def of_channels(connection: AsyncConnection) -> dict[Channel, float]:
    """Deliveries per second, by channel; those that only a newer version knows are left out."""
    rows = await connection.execute(
        select(limits.c.channel, limits.c.per_second)
        .where(limits.c.channel.in_([str(channel) for channel in Channel]))
        .order_by(limits.c.channel)
    )
    return {Channel(channel): per_second for channel, per_second in rows}


async def set_limit(connection: AsyncConnection, channel: Channel, per_second: float) -> None:
    await connection.execute(insert_missing(connection, limits).values(channel=str(channel), per_second=per_second))
    await connection.execute(update(limits).where(limits.c.channel == str(channel)).values(per_second=per_second))


async def clear_limit(connection: AsyncConnection, channel: Channel) -> None:
    await connection.execute(delete(limits).where(limits.c.channel == str(channel)))


async def reserve(
    connection: AsyncConnection, requests: Sequence[SendRequest], *, now: datetime
) -> dict[Pair, datetime]:
    """Each limited delivery's moment: the one it has, or the next that its subscription has free from `now` on.

    Locks deliveries before subscriptions, each in order of their keys, as `attempts.record` does.
    """
    limited = [request for request in requests if request.rate is not None]
    consented = {request.subscription.id: request.consented_rate for request in limited}
    pairs = list(dict.fromkeys((request.delivery.event_key, request.subscription.id) for request in limited))
    found = await by_pairs(connection, pairs, lock=True)
    slots = {pair: slot for pair, delivery in found.items() if (slot := delivery.slot(now))}
    asking: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair in found and pair not in slots:
            asking[pair[1]].append(pair)
    if asking:
        fresh = await _take(connection, asking, consented, now)
        moved = update(deliveries).where(
            deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("subscription")
        )
        rows = [{"key": key, "subscription": name, "slot": slot} for (key, name), slot in sorted(fresh.items())]
        if rows:
            await connection.execute(moved.values(not_before=bindparam("slot")), rows)
        slots |= fresh
    return slots


async def _take(
    connection: AsyncConnection, asking: dict[str, list[Pair]], consented: dict[str, float | None], now: datetime
) -> dict[Pair, datetime]:
    """The next free moments of each subscription, for the deliveries that ask, in their order."""
    column = subscriptions.c
    rows = await connection.execute(
        select(column.id, column.rate_limit, column.next_slot_at)
        .where(column.id.in_(sorted(asking)))
        .order_by(column.id)
        .with_for_update(key_share=True)  # new deliveries refer to the row meanwhile, and need not wait
    )
    slots, used = dict[Pair, datetime](), []
    for name, own, free in rows:
        rates = [rate for rate in (own, consented[name]) if rate is not None]
        if not rates:
            continue
        slot = now if free is None else max(now, free)
        for pair in asking[name]:
            slots[pair] = slot
            slot += timedelta(seconds=1 / min(rates))
        used.append({"name": name, "free": slot})
    if used:
        await connection.execute(
            update(subscriptions).where(column.id == bindparam("name")).values(next_slot_at=bindparam("free")), used
        )
    return slots


class RateLimits:
    """Rate limits of channels, and the reservations of rate-limited subscriptions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limited: tuple[Channel, ...] = ()
        self._read_at = -CACHE_SECONDS

    async def by_channel(self) -> dict[Channel, float]:
        """Most deliveries per second of the channels that have a limit."""
        return await self._database.read(of_channels)

    async def limited_channels(self) -> tuple[Channel, ...]:
        """The channels that have a limit, as it stood within the last CACHE_SECONDS seconds: runs ask for it often."""
        if time.monotonic() >= self._read_at + CACHE_SECONDS:
            self._limited = tuple(sorted(await self.by_channel()))
            self._read_at = time.monotonic()
        return self._limited

    async def set(self, channel: Channel, per_second: float) -> None:
        await self._database.write(set_limit, channel, per_second)

    async def clear(self, channel: Channel) -> None:
        """Leave the channel without a limit, whether or not it had one."""
        await self._database.write(clear_limit, channel)

    async def reserve(self, requests: Sequence[SendRequest], *, now: datetime) -> dict[tuple[str, str], datetime]:
        """A moment from `now` on for each delivery whose subscription has a rate limit, by event key and subscription id.

        One that has a moment already that has not lapsed, and has not been attempted since, keeps it.
        """
        return await self._database.write(reserve, requests, now=now)
