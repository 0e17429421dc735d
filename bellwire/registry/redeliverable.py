"""Settled deliveries that can be sent again, in pages, and the resource `registry.redeliverable`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryKey, DeliveryState
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, events, listed, subscriptions
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel

_QUERY = (
    select(
        deliveries.c.event_key,
        deliveries.c.subscription_id,
        deliveries.c.channel,
        deliveries.c.attempts,
        subscriptions.c.tenant,
        subscriptions.c.state.label("subscription_state"),
        events.c.type,
    )
    .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
    .join(events, events.c.key == deliveries.c.event_key)
    .order_by(deliveries.c.event_key, deliveries.c.subscription_id)
)


class Redeliverable(NamedTuple):
    """A settled delivery, with what a selection looks at."""

    key: DeliveryKey
    channel: Channel
    #: Attempts made so far.
    attempts: int
    tenant: str
    event_type: str
    subscription_state: SubscriptionState


async def page(
    connection: AsyncConnection,
    state: DeliveryState,
    *,
    subscription_id: str | None,
    event_key: str | None,
    tenant: str | None,
    channel: Channel | None,
    since: datetime | None,
    until: datetime | None,
    types: Sequence[str] = (),
    after: DeliveryKey | None,
    limit: int,
) -> list[Redeliverable]:
    column = deliveries.c
    query = _QUERY.where(column.state == str(state)).limit(limit)
    for each, value in (
        (column.subscription_id, subscription_id),
        (column.event_key, event_key),
        (subscriptions.c.tenant, tenant),
        (column.channel, channel),
    ):
        if value is not None:
            query = query.where(each == str(value))
    if state is not DeliveryState.DELIVERED:
        query = query.where(listed)
    if since is not None:
        query = query.where(column.updated_at >= since)
    if until is not None:
        query = query.where(column.updated_at < until)
    if types:
        query = query.where(or_(*map(_is_of_type, types)))
    if after is not None:
        query = query.where(tuple_(column.event_key, column.subscription_id) > tuple_(*after))
    return [
        Redeliverable(
            DeliveryKey(row.event_key, row.subscription_id),
            Channel(row.channel),
            row.attempts,
            row.tenant,
            row.type,
            SubscriptionState(row.subscription_state),
        )
        for row in await connection.execute(query)
    ]


def _is_of_type(pattern: str) -> ColumnElement[bool]:
    """Whether the type of an event matches a pattern."""
    if not pattern.endswith("*"):
        return events.c.type == pattern
    prefix = pattern.removesuffix("*")
    return func.substr(events.c.type, 1, len(prefix)) == prefix


class RedeliverableDeliveries:
    """The resource `registry.redeliverable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        state: DeliveryState,
        *,
        subscription_id: str | None = None,
        event_key: str | None = None,
        tenant: str | None = None,
        channel: Channel | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: DeliveryKey | None = None,
        limit: int = 1_000,
    ) -> Sequence[Redeliverable]:
        """Return deliveries in this settled state by key, after the key `after`.

        `since` and `until` bound when they settled: from the first, before the second.
        """
        return await self._database.read(
            page,
            state,
            subscription_id=subscription_id,
            event_key=event_key,
            tenant=tenant,
            channel=channel,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
