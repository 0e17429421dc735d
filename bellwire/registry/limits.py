"""Rate limits: rows, and the resource `registry.limits`.

A delivery of a rate-limited subscription, or to an address that has a pace, reserves a time for its next attempt. The
reservation is made once per attempt and kept until the attempt is recorded. So a backlog costs one write per delivery, however
long it waits, and a retried activity finds its reservations.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryKey
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import deliveries, limits, subscriptions
from bellwire.registry.deliveries import by_keys
from bellwire.registry.providers import paces
from bellwire.sends import SendRequest
from bellwire.targets import Channel

#: Seconds for which `limited_channels` returns a cached result.
CACHE_SECONDS = 5.0


async def by_channel(connection: AsyncConnection) -> dict[Channel, float]:
    rows = await connection.execute(
        select(limits.c.channel, limits.c.per_second)
        # A newer version may have stored channels that this one does not know.
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
) -> dict[DeliveryKey, datetime]:
    """Locks deliveries before subscriptions and these before addresses, each by key, as `attempts.record` does."""
    limited = [request for request in requests if request.is_limited]
    consented_rates = {request.subscription.id: request.consented_rate for request in limited}
    keys = list(dict.fromkeys(request.delivery.key for request in limited))
    found = await by_keys(connection, keys, lock=True)
    reserved = {key: at for key, delivery in found.items() if (at := delivery.reservation(now))}
    unreserved: dict[str, list[DeliveryKey]] = defaultdict(list)
    for key in keys:
        if key in found and key not in reserved:
            unreserved[key.subscription_id].append(key)
    if unreserved:
        new = await _reserve_next(connection, unreserved, consented_rates, now)
        open_keys = {key for of_one in unreserved.values() for key in of_one}
        for key, at in (await paces.reserve(connection, limited, open_keys, now=now)).items():
            new[key] = max(at, new.get(key, at))
        statement = update(deliveries).where(
            deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("name")
        )
        rows = [{"key": key, "name": name, "at": at} for (key, name), at in sorted(new.items())]
        if rows:
            await connection.execute(statement.values(not_before=bindparam("at")), rows)
        reserved |= new
    return reserved


async def _reserve_next(
    connection: AsyncConnection,
    keys_by_subscription: Mapping[str, Sequence[DeliveryKey]],
    consented_rates: Mapping[str, float | None],
    now: datetime,
) -> dict[DeliveryKey, datetime]:
    """Reserve the next free times of each subscription, for its deliveries in their order."""
    column = subscriptions.c
    rows = await connection.execute(
        select(column.id, column.rate_limit, column.next_reservation_at)
        .where(column.id.in_(sorted(keys_by_subscription)))
        .order_by(column.id)
        .with_for_update(key_share=True)  # inserting deliveries, which refer to the row, need not wait
    )
    reserved, updated = dict[DeliveryKey, datetime](), []
    for name, rate_limit, next_free in rows:
        rates = [rate for rate in (rate_limit, consented_rates[name]) if rate is not None]
        if not rates:
            continue
        free = now if next_free is None else max(now, next_free)
        for key in keys_by_subscription[name]:
            reserved[key] = free
            free += timedelta(seconds=1 / min(rates))
        updated.append({"name": name, "free": free})
    if updated:
        statement = update(subscriptions).where(column.id == bindparam("name"))
        await connection.execute(statement.values(next_reservation_at=bindparam("free")), updated)
    return reserved


class RateLimits:
    """The resource `registry.limits`: limits of channels, and reservations of rate-limited subscriptions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limited: tuple[Channel, ...] = ()
        self._read_at = -CACHE_SECONDS

    async def by_channel(self) -> dict[Channel, float]:
        """Return the maximum deliveries per second of each channel that has a limit, uncached."""
        return await self._database.read(by_channel)

    async def limited_channels(self) -> tuple[Channel, ...]:
        """Return the channels that have a limit, at most CACHE_SECONDS old: workflows ask often."""
        if time.monotonic() >= self._read_at + CACHE_SECONDS:
            self._limited = tuple(sorted(await self.by_channel()))
            self._read_at = time.monotonic()
        return self._limited

    async def set(self, channel: Channel, per_second: float) -> None:
        """Limit a channel to `per_second` deliveries per second."""
        await self._database.write(set_limit, channel, per_second)

    async def clear(self, channel: Channel) -> None:
        """Remove the limit of a channel, if it has one."""
        await self._database.write(clear_limit, channel)

    async def reserve(self, requests: Sequence[SendRequest], *, now: datetime) -> dict[DeliveryKey, datetime]:
        """Reserve a time, `now` or later, for each request whose subscription has a rate limit, or whose address a pace.

        A delivery keeps the reservation it has, unless that has expired or an attempt was recorded since.
        """
        return await self._database.write(reserve, requests, now=now)
