"""Tenants: the resource `registry.tenants`. A tenant exists from its first subscription on."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryState
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, subscriptions, tenants
from bellwire.subscriptions import SubscriptionState


class StoredTenant(NamedTuple):
    """A tenant, and when its first subscription was stored."""

    id: str
    created_at: datetime


class TenantCounts(NamedTuple):
    """What a tenant has, by state. States that nothing is in are absent."""

    subscriptions: dict[SubscriptionState, int]
    deliveries: dict[DeliveryState, int]


async def list_(connection: AsyncConnection, *, after: str, limit: int) -> list[StoredTenant]:
    query = select(tenants.c.id, tenants.c.created_at).where(tenants.c.id > after).order_by(tenants.c.id).limit(limit)
    return [StoredTenant(*row) for row in await connection.execute(query)]


async def find(connection: AsyncConnection, name: str) -> StoredTenant | None:
    query = select(tenants.c.id, tenants.c.created_at).where(tenants.c.id == name)
    row = (await connection.execute(query)).one_or_none()
    return row and StoredTenant(*row)


async def counts(connection: AsyncConnection, name: str) -> TenantCounts:
    own = subscriptions.c.tenant == name
    of_subscriptions = await connection.execute(
        select(subscriptions.c.state, func.count()).where(own).group_by(subscriptions.c.state)
    )
    of_deliveries = await connection.execute(
        select(deliveries.c.state, func.count())
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .where(own)
        .group_by(deliveries.c.state)
    )
    return TenantCounts(
        {SubscriptionState(state): number for state, number in of_subscriptions},
        {DeliveryState(state): number for state, number in of_deliveries},
    )


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

    async def counts(self, name: str) -> TenantCounts:
        """Count a tenant's subscriptions and deliveries. This reads each of its deliveries."""
        return await self._database.read(counts, name)
