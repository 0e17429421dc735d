"""Tenants: the resource `registry.tenants`. A tenant exists from its first subscription on."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, cast

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryState
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, subscriptions, tenants
from bellwire.subscriptions import SubscriptionState


class StoredTenant(NamedTuple):
    """A tenant, and when its first subscription was stored."""

    id: str
    created_at: datetime


#: Subscriptions and deliveries of one tenant that are counted.
MAX_COUNTED = 10_000


class TenantCounts(NamedTuple):
    """What a tenant has, by state. States that nothing is in are absent."""

    subscriptions: dict[SubscriptionState, int]
    deliveries: dict[DeliveryState, int]
    #: Whether all were counted.
    complete: bool


async def list_(connection: AsyncConnection, *, after: str, limit: int) -> list[StoredTenant]:
    query = select(tenants.c.id, tenants.c.created_at).where(tenants.c.id > after).order_by(tenants.c.id).limit(limit)
    return [StoredTenant(*row) for row in await connection.execute(query)]


async def find(connection: AsyncConnection, name: str) -> StoredTenant | None:
    query = select(tenants.c.id, tenants.c.created_at).where(tenants.c.id == name)
    row = (await connection.execute(query)).one_or_none()
    return row and StoredTenant(*row)


async def counts(connection: AsyncConnection, name: str, *, limit: int) -> TenantCounts:
    of_subscriptions, of_deliveries = [
        dict(cast(Sequence[tuple[str, int]], (await connection.execute(query)).all()))
        for query in counting(name, limit)
    ]
    return TenantCounts(
        {SubscriptionState(state): number for state, number in of_subscriptions.items()},
        {DeliveryState(state): number for state, number in of_deliveries.items()},
        complete=max(sum(of_subscriptions.values()), sum(of_deliveries.values())) <= limit,
    )


def counting(name: str, limit: int) -> list[Select[str, int]]:
    """The queries that count subscriptions and deliveries by state. Each reads `limit` rows and one more at most, by the
    indexes of tenants and of subscriptions."""
    own = (
        select(subscriptions.c.id, subscriptions.c.state)
        .where(subscriptions.c.tenant == name)
        .order_by(subscriptions.c.id)
        .limit(limit + 1)
        .subquery()
    )
    theirs = (
        select(deliveries.c.state)
        .join_from(own, deliveries, own.c.id == deliveries.c.subscription_id)
        .limit(limit + 1)
        .subquery()
    )
    return [select(each.c.state, func.count()).group_by(each.c.state) for each in (own, theirs)]


class Tenants:
    """The resource `registry.tenants`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[StoredTenant]:
        """Return tenants by ascending name, after the name `after`."""
        return await self._database.read(list_, after=after, limit=limit)

    async def find(self, name: str) -> StoredTenant | None:
        """Return the tenant of this name; None if it never had a subscription."""
        return await self._database.read(find, name)

    async def counts(self, name: str, *, limit: int = MAX_COUNTED) -> TenantCounts:
        """Count a tenant's subscriptions and deliveries, about `limit` of each at most."""
        return await self._database.read(counts, name, limit=limit)
