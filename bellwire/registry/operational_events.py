"""Operational events: events about subscriptions that Bellwire itself publishes to their tenants.

Each is inserted in the transaction that it reports on, published by a worker, and then deleted. Its id is assigned on
insertion, so that publishing it twice delivers it once.
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
    """The event types."""

    FAILING = "bellwire.subscription.failing"
    DISABLED = "bellwire.subscription.disabled"


def event_of(
    kind: OperationalEvent,
    subscription_id: str,
    *,
    tenant: str,
    channel: str,
    reason: str,
    health: EndpointHealth,
    now: datetime,
) -> Event:
    """Return the event for a tenant about its subscription. It holds no address."""
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


async def list_(connection: AsyncConnection, *, limit: int) -> list[Event]:
    rows = await connection.execute(select(operational_events.c.body).order_by(operational_events.c.id).limit(limit))
    return [Event.restored(body) for (body,) in rows]


async def remove(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await connection.execute(delete(operational_events).where(operational_events.c.id.in_(sorted(set(ids)))))


class OperationalEvents:
    """The resource `registry.operational_events`: those that are not published yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, limit: int = 100) -> Sequence[Event]:
        """Return the oldest events."""
        return await self._database.read(list_, limit=limit)

    async def remove(self, ids: Sequence[str]) -> None:
        """Delete events that have been published."""
        await self._database.write(remove, ids)
