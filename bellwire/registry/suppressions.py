"""Suppressions, as rows: addresses that are written to no more, because they are dead or their owner said so."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.database import insert_missing
from bellwire.registry.tables import suppressions
from bellwire.subscriptions import Channel
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason

_FOUND = (
    select(suppressions.c.address_key, suppressions.c.reason)
    .where(
        suppressions.c.channel == bindparam("channel"),
        suppressions.c.address_key.in_(bindparam("keys", expanding=True)),
        suppressions.c.subscription_id.in_(bindparam("scopes", expanding=True)),
    )
    # If both are there, the one for all says more.
    .order_by(suppressions.c.subscription_id.desc())
)


def address_key(channel: Channel, address: str) -> str:
    """What stands for an address: equal however its letters are written, for no provider tells them apart."""
    return hashlib.sha256(f"{channel}\n{address.strip().casefold()}".encode()).hexdigest()


async def suppress(connection: AsyncConnection, suppression: Suppression) -> None:
    """Add it to the list; one that is there already stays as it is."""
    key = address_key(suppression.channel, suppression.address)
    row = {**suppression.model_dump(mode="json", exclude={"created_at"}), "address_key": key}
    await connection.execute(
        insert_missing(connection, suppressions).values(**row, created_at=suppression.created_at or datetime.now(UTC))
    )


async def lift(
    connection: AsyncConnection,
    channel: Channel,
    address: str,
    *,
    subscription_id: str | None,
    reason: SuppressionReason | None = None,
) -> bool:
    """Take an address off the list, for one subscription or, with None, altogether; False if it was not on it.

    With `reason`, only what is there for it.
    """
    column = suppressions.c
    these = delete(suppressions).where(
        column.channel == str(channel), column.address_key == address_key(channel, address)
    )
    if subscription_id is not None:
        these = these.where(column.subscription_id == subscription_id)
    if reason is not None:
        these = these.where(column.reason == str(reason))
    return (await connection.execute(these)).rowcount > 0


async def among(
    connection: AsyncConnection,
    channel: Channel,
    addresses: Iterable[str],
    *,
    subscription_id: str,
    also_for: Sequence[str] = (),
) -> dict[str, SuppressionReason]:
    """Those of the addresses that must not be written to for this subscription, or `also_for` these scopes, and why."""
    keys = {address: address_key(channel, address) for address in addresses}
    given = {"channel": str(channel), "keys": sorted(set(keys.values()))}
    given["scopes"] = [EVERYWHERE, subscription_id, *also_for]
    found = {row.address_key: SuppressionReason(row.reason) for row in await connection.execute(_FOUND, given)}
    return {address: found[key] for address, key in keys.items() if key in found}


async def listing(
    connection: AsyncConnection, *, channel: Channel | None, address: str | None, before: datetime | None, limit: int
) -> Sequence[Suppression]:
    """The newest first, made before `before`."""
    column = suppressions.c
    query = select(suppressions).order_by(column.created_at.desc(), column.address_key).limit(limit)
    if channel is not None:
        query = query.where(column.channel == str(channel))
    if address is not None:
        query = query.where(column.address_key.in_([address_key(each, address) for each in Channel]))
    if before is not None:
        query = query.where(column.created_at < before)
    return [Suppression.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]
