"""Announcements, as rows: events about subscriptions that Bellwire publishes itself, from the moment that they happen.

Written in the same transaction as what they tell of, published by a worker, and then deleted. The event has its id from the
beginning, so that publishing it twice is publishing it once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.endpoint_health import EndpointHealth
from bellwire.events import Event, uuid7
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import operational_events

SOURCE = "bellwire"


class OperationalEvent(StrEnum):
    """The types of these events."""

    FAILING = "bellwire.subscription.failing"
    DISABLED = "bellwire.subscription.disabled"


def news(
    kind: OperationalEvent,
    subscription_id: str,
    *,
    tenant: str,
    channel: str,
    reason: str,
    health: EndpointHealth,
    now: datetime,
) -> Event:
    """The event that tells a tenant of its subscription; without the address."""
    since = health.failing_since
    return Event(
        id=str(uuid7()),
        source=SOURCE,
        type=str(kind),
        subject=subscription_id,
        tenant=tenant,
        time=now,
        data={
            "subscription": subscription_id,
            "channel": channel,
            "reason": reason,
            "failing_since": None if since is None else since.isoformat(timespec="seconds"),
            "failures": health.failures,
        },
    )


async def add(connection: AsyncConnection, events: Sequence[Event]) -> None:
    if events:
        await connection.execute(
            insert(operational_events), [{"id": event.id, "body": event.to_json()} for event in events]
        )


async def listing(connection: AsyncConnection, *, limit: int) -> list[Event]:
    """The first events that are still to be published."""
    rows = await connection.execute(select(operational_events.c.body).order_by(operational_events.c.id).limit(limit))
    return [Event.restored(body) for (body,) in rows]


async def remove(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await connection.execute(delete(operational_events).where(operational_events.c.id.in_(sorted(set(ids)))))


class OperationalEvents:
    """Operational events that are not published yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, limit: int = 100) -> Sequence[Event]:
        """The first events that are still to be published."""
        return await self._database.read(listing, limit=limit)

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget events that have been published."""
        await self._database.write(remove, ids)
