"""Backlog: how many deliveries are not settled, how old the oldest is, and how many endpoints are disabled. For metrics."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, disabled, subscriptions, unsettled
from bellwire.targets import Channel

# Both read an index only, whose rows are those that they count.
_UNSETTLED = (
    select(deliveries.c.channel, func.count(), func.min(deliveries.c.created_at))
    .where(unsettled)
    .group_by(deliveries.c.channel)
)
_DISABLED = select(subscriptions.c.channel, func.count()).where(disabled).group_by(subscriptions.c.channel)


class ChannelBacklog(NamedTuple):
    """The backlog of one channel."""

    #: Deliveries that are pending, sending or waiting.
    unsettled: int = 0
    #: When the oldest of them was added; None if there is none.
    oldest: datetime | None = None
    #: Subscriptions that are disabled.
    disabled: int = 0


async def read(connection: AsyncConnection) -> dict[Channel, ChannelBacklog]:
    found = {Channel(channel): (number, oldest) for channel, number, oldest in await connection.execute(_UNSETTLED)}
    numbers = {Channel(channel): number for channel, number in await connection.execute(_DISABLED)}
    return {channel: ChannelBacklog(*found.get(channel, (0, None)), numbers.get(channel, 0)) for channel in Channel}


class Backlog:
    """The resource `registry.backlog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> dict[Channel, ChannelBacklog]:
        """The backlog of every channel now."""
        return await self._database.read(read)
