"""Recalls: what taking an event back needs of its deliveries, and the record of it. The resource `registry.recalls`."""

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import RECALLED
from bellwire.deliveries import Delivery
from bellwire.registry import deliveries as delivery_rows
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, unsettled
from bellwire.targets import Channel


async def channels(connection: AsyncConnection, event_key: str, subscription_id: str | None) -> tuple[Channel, ...]:
    query = select(deliveries.c.channel).distinct().where(*_these(event_key, subscription_id))
    return tuple(map(Channel, sorted((await connection.execute(query)).scalars())))


async def unsettled_in(connection: AsyncConnection, event_key: str, subscription_id: str | None) -> tuple[str, ...]:
    query = select(deliveries.c.workflow_id).distinct().where(*_these(event_key, subscription_id), unsettled)
    return tuple(sorted((await connection.execute(query)).scalars()))


async def record(connection: AsyncConnection, delivery: Delivery) -> None:
    found = (await delivery_rows.by_keys(connection, [delivery.key], lock=True)).get(delivery.key)
    # Not one that was sent again meanwhile. The id may be encrypted, so it is compared here.
    if found is not None and found.attempts == delivery.attempts and found.provider_id == delivery.provider_id:
        these = _these(delivery.event_key, delivery.subscription_id)
        await connection.execute(update(deliveries).where(*these).values(reason=RECALLED))


def _these(event_key: str, subscription_id: str | None) -> list[ColumnElement[bool]]:
    these = [deliveries.c.event_key == event_key]
    return these if subscription_id is None else [*these, deliveries.c.subscription_id == subscription_id]


class Recalls:
    """The resource `registry.recalls`. Without a subscription id, its methods are about all deliveries of an event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def channels(self, event_key: str, subscription_id: str | None = None) -> tuple[Channel, ...]:
        """Return the channels of an event's deliveries."""
        return await self._database.read(channels, event_key, subscription_id)

    async def unsettled_in(self, event_key: str, subscription_id: str | None = None) -> tuple[str, ...]:
        """Return the workflows that have an unsettled delivery of an event."""
        return await self._database.read(unsettled_in, event_key, subscription_id)

    async def record(self, delivery: Delivery) -> None:
        """Record that the message of a delivery was taken back. Its state stays as it is."""
        await self._database.write(record, delivery)
