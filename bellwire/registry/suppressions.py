"""Suppressions, as rows: addresses that are written to no more, because they are dead or their owner said so."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.keyring import KeyRing
from bellwire.registry.database import insert_missing
from bellwire.registry.sealed import ring_of
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


def address_keys(ring: KeyRing | None, channel: Channel, address: str) -> tuple[str, ...]:
    """What may stand for an address: first what does in new rows, then what did under older keys, and in the clear.

    Equal however the address's letters are written, for no provider tells them apart.
    """
    text = f"{channel}\n{address.strip().casefold()}"
    keyed = [ring.address_key(key_id, text) for key_id in ring.ids] if ring else []
    return *keyed, hashlib.sha256(text.encode()).hexdigest()


async def suppress(connection: AsyncConnection, suppression: Suppression) -> None:
    """Add it to the list; one that is there already stays as it is."""
    key, *older = address_keys(ring_of(connection.dialect), suppression.channel, suppression.address)
    if older and await _known(connection, suppression, older):
        return
    row = {**suppression.model_dump(mode="json", exclude={"created_at"}), "address_key": key}
    await connection.execute(
        insert_missing(connection, suppressions).values(**row, created_at=suppression.created_at or datetime.now(UTC))
    )


async def _known(connection: AsyncConnection, suppression: Suppression, keys: Sequence[str]) -> bool:
    """Whether it is on the list under one of these keys."""
    given = {"channel": str(suppression.channel), "keys": keys, "scopes": [suppression.subscription_id]}
    return (await connection.execute(_FOUND, given)).first() is not None


async def lift(connection: AsyncConnection, channel: Channel, address: str, *, subscription_id: str | None) -> bool:
    """Take an address off the list, for one subscription or, with None, altogether; False if it was not on it."""
    column = suppressions.c
    these = delete(suppressions).where(
        column.channel == str(channel),
        column.address_key.in_(address_keys(ring_of(connection.dialect), channel, address)),
    )
    if subscription_id is not None:
        these = these.where(column.subscription_id == subscription_id)
    return (await connection.execute(these)).rowcount > 0


async def among(
    connection: AsyncConnection, channel: Channel, addresses: Iterable[str], *, subscription_id: str
) -> dict[str, SuppressionReason]:
    """Those of the addresses that must not be written to for this subscription, and why."""
    ring = ring_of(connection.dialect)
    keys = {address: address_keys(ring, channel, address) for address in addresses}
    asked = sorted({key for some in keys.values() for key in some})
    given = {"channel": str(channel), "keys": asked, "scopes": [EVERYWHERE, subscription_id]}
    found = {row.address_key: SuppressionReason(row.reason) for row in await connection.execute(_FOUND, given)}
    return {address: found[key] for address, some in keys.items() for key in some if key in found}


async def listing(
    connection: AsyncConnection, *, channel: Channel | None, address: str | None, before: datetime | None, limit: int
) -> Sequence[Suppression]:
    """The newest first, made before `before`."""
    column = suppressions.c
    query = select(suppressions).order_by(column.created_at.desc(), column.address_key).limit(limit)
    if channel is not None:
        query = query.where(column.channel == str(channel))
    if address is not None:
        ring = ring_of(connection.dialect)
        keys = [key for each in Channel for key in address_keys(ring, each, address)]
        query = query.where(column.address_key.in_(keys))
    if before is not None:
        query = query.where(column.created_at < before)
    return [Suppression.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]
