"""Paces of addresses: rows. For some addresses, a provider takes only so many messages, whichever subscriptions they are of.

A row has the time until which an address is used up, as in the generic cell rate algorithm (ITU-T I.371).
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryKey
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import insert_missing
from bellwire.registry.db.provider_tables import paces
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.suppressions import address_keys
from bellwire.sends import SendRequest
from bellwire.targets.channel import Pace


async def reserve(
    connection: AsyncConnection, requests: Sequence[SendRequest], keys: Collection[DeliveryKey], *, now: datetime
) -> dict[DeliveryKey, datetime]:
    """Reserve the next free times of the addresses, for those of the requests whose deliveries have these `keys`."""
    ring = ring_of(connection.dialect)
    wanted: dict[str, dict[DeliveryKey, Pace]] = defaultdict(dict)
    for request in requests:
        if (pace := request.subscription.target.pace) is not None and request.delivery.key in keys:
            address_key, *_ = address_keys(ring, request.subscription.channel, pace.address)
            wanted[address_key][request.delivery.key] = pace
    if not wanted:
        return {}
    new = [{"address_key": key, "used_until": now} for key in sorted(wanted)]
    await execute_many(connection, insert_missing(connection, paces), new)
    rows = await connection.execute(
        select(paces).where(paces.c.address_key.in_(sorted(wanted))).order_by(paces.c.address_key).with_for_update()
    )
    reserved, changed = dict[DeliveryKey, datetime](), []
    for address_key, used_until in rows:
        until = max(now, used_until)
        for delivery, pace in wanted[address_key].items():
            reserved[delivery] = max(now, until - timedelta(seconds=pace.interval * (pace.burst - 1)))
            until += timedelta(seconds=pace.interval)
        changed.append({"key": address_key, "until": until})
    statement = update(paces).where(paces.c.address_key == bindparam("key")).values(used_until=bindparam("until"))
    await connection.execute(statement, changed)
    return reserved


async def forget(connection: AsyncConnection, *, before: datetime) -> None:
    """Delete the rows of addresses that got nothing since `before`."""
    await connection.execute(delete(paces).where(paces.c.used_until < before))
