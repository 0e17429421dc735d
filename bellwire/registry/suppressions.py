"""Suppressions, as rows: addresses that are written to no more, because they are dead or their owner said so."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.db.tables import suppressions
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import Channel

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

#: The same for many addresses of several channels and subscriptions at once.
_FOUND_OF_MANY = select(
    suppressions.c.channel, suppressions.c.address_key, suppressions.c.subscription_id, suppressions.c.reason
).where(
    suppressions.c.channel.in_(bindparam("channels", expanding=True)),
    suppressions.c.address_key.in_(bindparam("keys", expanding=True)),
)


def address_keys(ring: KeyRing | None, channel: Channel, address: str) -> tuple[str, ...]:
    """What may stand for an address: first what does in new rows, then what did under older keys, and in the clear.

    Equal however the address's letters are written, for no provider tells them apart.
    """
    text = f"{channel}\n{address.strip().casefold()}"
    keyed = [ring.address_key(key_id, text) for key_id in ring.ids] if ring else []
    return *keyed, hashlib.sha256(text.encode()).hexdigest()


async def suppress(connection: AsyncConnection, *new: Suppression) -> None:
    """Add them to the list; one that is there already stays as it is."""
    ring, now = ring_of(connection.dialect), datetime.now(UTC)
    rows = []
    for suppression in new:
        key, *older = address_keys(ring, suppression.channel, suppression.address)
        if older and await _known(connection, suppression, older):
            continue
        made = suppression.created_at or now
        rows.append({**suppression.model_dump(mode="json"), "address_key": key, "created_at": made})
    # In one order for all, or two workers that insert the same rows could wait for each other.
    rows.sort(key=lambda row: (row["channel"], row["address_key"], row["subscription_id"]))
    await execute_many(connection, insert_missing(connection, suppressions), rows)


async def _known(connection: AsyncConnection, suppression: Suppression, keys: Sequence[str]) -> bool:
    """Whether it is on the list under one of these keys."""
    given = {"channel": str(suppression.channel), "keys": keys, "scopes": [suppression.subscription_id]}
    return (await connection.execute(_FOUND, given)).first() is not None


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
        column.channel == str(channel),
        column.address_key.in_(address_keys(ring_of(connection.dialect), channel, address)),
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
    ring = ring_of(connection.dialect)
    keys = {address: address_keys(ring, channel, address) for address in addresses}
    given = {"channel": str(channel), "keys": sorted({key for some in keys.values() for key in some})}
    given["scopes"] = [EVERYWHERE, subscription_id, *also_for]
    found = {row.address_key: SuppressionReason(row.reason) for row in await connection.execute(_FOUND, given)}
    return {address: found[key] for address, some in keys.items() for key in some if key in found}


async def of_subscriptions(
    connection: AsyncConnection, wishes: Iterable[Subscription]
) -> dict[str, dict[str, SuppressionReason]]:
    """What `among` finds for the addresses of each subscription, by its id, in one statement; those that have any."""
    addresses = [(wish, address) for wish in wishes for address in wish.target.recipients]
    if not addresses:
        return {}
    ring = ring_of(connection.dialect)
    keys = {(wish.channel, address): address_keys(ring, wish.channel, address) for wish, address in addresses}
    asked = sorted({key for some in keys.values() for key in some})
    given = {"channels": sorted({str(wish.channel) for wish, _ in addresses}), "keys": asked}
    rows = (await connection.execute(_FOUND_OF_MANY, given)).all()
    if not rows:
        return {}
    reasons = {(row.address_key, row.subscription_id): SuppressionReason(row.reason) for row in rows}
    found: dict[str, dict[str, SuppressionReason]] = {}
    for wish, address in addresses:
        for key in keys[wish.channel, address]:
            if reason := reasons.get((key, EVERYWHERE)) or reasons.get((key, wish.id)):
                found.setdefault(wish.id, {})[address] = reason
                break
    return found


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


class Suppressions:
    """The suppression list."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, suppression: Suppression) -> None:
        """Write to an address no more; one that is on the list already stays as it is."""
        await self._database.write(suppress, suppression)

    async def lift(
        self,
        channel: Channel,
        address: str,
        *,
        subscription_id: str | None = None,
        reason: SuppressionReason | None = None,
    ) -> bool:
        """Write to an address again, for one subscription or, with None, for all; False if it was not on the list.

        With `reason`, only where that is why it is there.
        """
        return await self._database.write(lift, channel, address, subscription_id=subscription_id, reason=reason)

    async def among(
        self, channel: Channel, addresses: Sequence[str], *, subscription_id: str, also_for: Sequence[str] = ()
    ) -> dict[str, SuppressionReason]:
        """Those of the addresses that must not be written to for this subscription, or `also_for` these scopes, and why."""
        return await self._database.read(among, channel, addresses, subscription_id=subscription_id, also_for=also_for)

    async def list(
        self,
        *,
        channel: Channel | None = None,
        address: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Suppression]:
        """The list, newest first, of what came onto it before `before`."""
        return await self._database.read(listing, channel=channel, address=address, before=before, limit=limit)
