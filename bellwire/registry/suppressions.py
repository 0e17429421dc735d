"""Suppressions: rows, and the resource `registry.suppressions`. A suppressed address is not sent to."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Self

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.db.tables import subscriptions, suppressions
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, Reported, Suppression, SuppressionReason
from bellwire.targets import SPECS, Channel

_FOUND = (
    select(suppressions.c.address_key, suppressions.c.reason)
    .where(
        suppressions.c.channel == bindparam("channel"),
        suppressions.c.address_key.in_(bindparam("keys", expanding=True)),
        suppressions.c.subscription_id.in_(bindparam("scopes", expanding=True)),
    )
    # Of several reasons, the one that applies everywhere wins: it comes last.
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
    """Return the hashes by which an address may be stored: that of new rows, those by older keys, and the unkeyed one.

    All spellings of one address have the same.
    """
    text = f"{channel}\n{SPECS[channel].address_key(address)}"
    keyed = [ring.address_key(key_id, text) for key_id in ring.ids] if ring else []
    return *keyed, hashlib.sha256(text.encode(errors="replace")).hexdigest()


async def add(connection: AsyncConnection, *new: Suppression) -> None:
    ring, now = ring_of(connection.dialect), datetime.now(UTC)
    rows = []
    for suppression in new:
        key, *older = address_keys(ring, suppression.channel, suppression.address)
        if older and await _exists(connection, suppression, older):
            continue
        created_at = suppression.created_at or now
        rows.append({**suppression.model_dump(mode="json"), "address_key": key, "created_at": created_at})
    # Sorted, or two workers that insert the same rows could deadlock.
    rows.sort(key=lambda row: (row["channel"], row["address_key"], row["subscription_id"]))
    await execute_many(connection, insert_missing(connection, suppressions), rows)


async def _exists(connection: AsyncConnection, suppression: Suppression, keys: Sequence[str]) -> bool:
    """Whether it is stored under one of these keys."""
    values = {"channel": str(suppression.channel), "keys": keys, "scopes": [suppression.subscription_id]}
    return (await connection.execute(_FOUND, values)).first() is not None


async def lift(
    connection: AsyncConnection,
    channel: Channel,
    address: str,
    *,
    subscription_id: str | None,
    reason: SuppressionReason | None = None,
    until: datetime | None = None,
) -> bool:
    column = suppressions.c
    statement = delete(suppressions).where(
        column.channel == str(channel),
        column.address_key.in_(address_keys(ring_of(connection.dialect), channel, address)),
    )
    if subscription_id is not None:
        statement = statement.where(column.subscription_id == subscription_id)
    if reason is not None:
        statement = statement.where(column.reason == str(reason))
    if until is not None:
        statement = statement.where(column.created_at <= until)
    return (await connection.execute(statement)).rowcount > 0


async def among(
    connection: AsyncConnection,
    channel: Channel,
    addresses: Iterable[str],
    *,
    subscription_id: str,
    also_for: Sequence[str] = (),
) -> dict[str, SuppressionReason]:
    ring = ring_of(connection.dialect)
    keys = {address: address_keys(ring, channel, address) for address in addresses}
    values = {"channel": str(channel), "keys": sorted({key for each in keys.values() for key in each})}
    values["scopes"] = [EVERYWHERE, subscription_id, *also_for]
    found = {row.address_key: SuppressionReason(row.reason) for row in await connection.execute(_FOUND, values)}
    return {address: found[key] for address, each in keys.items() for key in each if key in found}


async def of_subscriptions(
    connection: AsyncConnection, subscriptions: Iterable[Subscription]
) -> dict[str, dict[str, SuppressionReason]]:
    """Return the suppressed addresses of each subscription that has any, by its id, with one statement."""
    addresses = [(one, address) for one in subscriptions for address in one.target.recipients]
    if not addresses:
        return {}
    ring = ring_of(connection.dialect)
    keys = {(one.channel, address): address_keys(ring, one.channel, address) for one, address in addresses}
    values = {
        "channels": sorted({str(one.channel) for one, _ in addresses}),
        "keys": sorted({key for each in keys.values() for key in each}),
    }
    rows = (await connection.execute(_FOUND_OF_MANY, values)).all()
    if not rows:
        return {}
    reasons = {(row.address_key, row.subscription_id): SuppressionReason(row.reason) for row in rows}
    found: dict[str, dict[str, SuppressionReason]] = {}
    for one, address in addresses:
        for key in keys[one.channel, address]:
            if reason := reasons.get((key, EVERYWHERE)) or reasons.get((key, one.id)):
                found.setdefault(one.id, {})[address] = reason
                break
    return found


async def list_(
    connection: AsyncConnection,
    *,
    channel: Channel | None,
    address: str | None,
    reported: Reported | None,
    before: datetime | None,
    limit: int,
) -> Sequence[Suppression]:
    column = suppressions.c
    query = select(suppressions).order_by(column.created_at.desc(), column.address_key).limit(limit)
    query = query.where(*_conditions(reported)) if reported else query
    if channel is not None:
        query = query.where(column.channel == str(channel))
    if address is not None:
        ring = ring_of(connection.dialect)
        keys = [key for each in Channel for key in address_keys(ring, each, address)]
        query = query.where(column.address_key.in_(keys))
    if before is not None:
        query = query.where(column.created_at < before)
    return [Suppression.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]


async def lift_reported(connection: AsyncConnection, reported: Reported, *, dry_run: bool) -> int:
    matching = _conditions(reported)
    if dry_run:
        counted = await connection.execute(select(func.count()).select_from(suppressions).where(*matching))
        return int(counted.scalar_one())
    return (await connection.execute(delete(suppressions).where(*matching))).rowcount


class Position(NamedTuple):
    """The place of a suppression in a list, the newest first."""

    created_at: datetime
    channel: str
    address_key: str
    subscription_id: str

    def __str__(self) -> str:
        return " ".join((self.created_at.isoformat(), *self[1:]))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        created_at, channel, address_key, subscription_id = text.split(" ", 3)  # the name of a sender may have spaces
        at = datetime.fromisoformat(created_at)
        if at.tzinfo is None:
            raise ValueError("the time has no time zone")
        return cls(at, channel, address_key, subscription_id)


class Listed(NamedTuple):
    """A suppression, and its place in the list."""

    position: Position
    suppression: Suppression


async def page(
    connection: AsyncConnection,
    *,
    tenant: str | None,
    subscription_id: str | None,
    channel: Channel | None,
    address: str | None,
    after: Position | None,
    limit: int,
) -> list[Listed]:
    column = suppressions.c
    tail = (column.channel, column.address_key, column.subscription_id)
    query = select(suppressions).order_by(column.created_at.desc(), *tail).limit(limit)
    if tenant is not None:
        query = query.join(subscriptions, subscriptions.c.id == column.subscription_id).where(
            subscriptions.c.tenant == tenant
        )
    if subscription_id is not None:
        query = query.where(column.subscription_id == subscription_id)
    if channel is not None:
        query = query.where(column.channel == str(channel))
    if address is not None:
        ring = ring_of(connection.dialect)
        query = query.where(
            column.address_key.in_([key for each in Channel for key in address_keys(ring, each, address)])
        )
    if after is not None:
        query = query.where(
            or_(
                column.created_at < after.created_at,
                and_(column.created_at == after.created_at, tuple_(*tail) > tuple_(*after[1:])),
            )
        )
    rows = (await connection.execute(query)).mappings()
    return [
        Listed(
            Position(row["created_at"], row["channel"], row["address_key"], row["subscription_id"]),
            Suppression.model_validate(dict(row)),
        )
        for row in rows
    ]


def _conditions(reported: Reported) -> list[ColumnElement[bool]]:
    column = suppressions.c
    return [
        *([column.channel == str(reported.channel)] if reported.channel else []),
        *([column.cause == reported.cause] if reported.cause is not None else []),
        *([column.reason == str(reported.reason)] if reported.reason else []),
        *([column.created_at >= reported.since] if reported.since else []),
    ]


class Suppressions:
    """The resource `registry.suppressions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, suppression: Suppression) -> None:
        """Suppress an address. An existing suppression stays as it is."""
        await self._database.write(add, suppression)

    async def lift(
        self,
        channel: Channel,
        address: str,
        *,
        subscription_id: str | None = None,
        reason: SuppressionReason | None = None,
        until: datetime | None = None,
    ) -> bool:
        """Remove the suppressions of an address, of one subscription or of all; return whether there were any.

        With `reason`, only those with this reason; with `until`, only those created by then.
        """
        return await self._database.write(
            lift, channel, address, subscription_id=subscription_id, reason=reason, until=until
        )

    async def lift_reported(self, reported: Reported, *, dry_run: bool = False) -> int:
        """Remove all suppressions that match; return how many. With `dry_run`, only count them."""
        if dry_run:
            return await self._database.read(lift_reported, reported, dry_run=True)
        return await self._database.write(lift_reported, reported, dry_run=False)

    async def among(
        self, channel: Channel, addresses: Sequence[str], *, subscription_id: str, also_for: Sequence[str] = ()
    ) -> dict[str, SuppressionReason]:
        """Return those of the addresses that are suppressed for this subscription, or for one of the scopes `also_for`."""
        return await self._database.read(among, channel, addresses, subscription_id=subscription_id, also_for=also_for)

    async def list(
        self,
        *,
        channel: Channel | None = None,
        address: str | None = None,
        reported: Reported | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Suppression]:
        """Return suppressions, newest first, created before `before`."""
        return await self._database.read(
            list_, channel=channel, address=address, reported=reported, before=before, limit=limit
        )

    async def page(
        self,
        *,
        tenant: str | None = None,
        subscription_id: str | None = None,
        channel: Channel | None = None,
        address: str | None = None,
        after: Position | None = None,
        limit: int = 100,
    ) -> Sequence[Listed]:
        """Return suppressions with their places, newest first, after this place. With `tenant`, those of its subscriptions."""
        return await self._database.read(
            page,
            tenant=tenant,
            subscription_id=subscription_id,
            channel=channel,
            address=address,
            after=after,
            limit=limit,
        )
