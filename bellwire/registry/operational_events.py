"""Operational events: events about subscriptions, deliveries and publications that Bellwire itself publishes to tenants.

Each is inserted in the transaction that it reports on, published by a worker, and then deleted. Its id is assigned on
insertion, so that publishing it twice delivers it once.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Attempt, Delivery
from bellwire.endpoint_health import EndpointHealth
from bellwire.events import Event, uuid7
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import operational_events
from bellwire.tenants import ALL_TENANTS, DEFAULT_TENANT

SOURCE = "bellwire"


class OperationalEvent(StrEnum):
    """The event types."""

    FAILING = "bellwire.subscription.failing"
    DISABLED = "bellwire.subscription.disabled"
    EXHAUSTED = "bellwire.delivery.exhausted"
    CONFLICT = "bellwire.event.conflict"
    HANDLERS_ABSENT = "bellwire.handlers.absent"


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


def exhausted_event(delivery: Delivery, event: Event, *, tenant: str, last: Attempt) -> Event:
    """The event for a tenant about a delivery whose schedule has ended without success. It holds no address."""
    return Event(
        id=str(uuid7()),
        source=SOURCE,
        type=str(OperationalEvent.EXHAUSTED),
        subject=delivery.subscription_id,
        tenant=tenant,
        time=last.ended_at,
        data={
            "delivery": delivery.id,
            "subscription": delivery.subscription_id,
            "channel": str(delivery.channel),
            "event_key": delivery.event_key,
            "event_source": event.source,
            "event_id": event.id,
            "event_type": event.type,
            "attempts": last.number,
            "reason": last.outcome.reason,
        },
    )


def conflict_event(event: Event, *, workflow_id: str, run_id: str, published_by: str, now: datetime) -> Event:
    """The event for a tenant about one that is not delivered, since its source and id were used for other content before.

    Its id is the same each time that the run finds the conflict.
    """
    found_by = f"{event.key}\n{workflow_id}\n{run_id}"
    return Event(
        id=f"conflict-{hashlib.sha256(found_by.encode()).hexdigest()[:32]}",
        source=SOURCE,
        type=str(OperationalEvent.CONFLICT),
        subject=event.id,
        # An event for all tenants concerns its publisher, and not all of them.
        tenant=DEFAULT_TENANT if event.tenant == ALL_TENANTS else event.tenant,
        time=now,
        data={
            "event_key": event.key,
            "event_source": event.source,
            "event_id": event.id,
            "event_type": event.type,
            "workflow": workflow_id,
            "published_by": published_by,
        },
    )


def absent_event(service: str, *, tenant: str, handlers: Sequence[str], last_seen: datetime, now: datetime) -> Event:
    """The event for a tenant about a service of whose handlers no process runs. Their deliveries wait."""
    return Event(
        id=str(uuid7()),
        source=SOURCE,
        type=str(OperationalEvent.HANDLERS_ABSENT),
        subject=service,
        tenant=tenant,
        time=now,
        data={
            "service": service,
            "handlers": list(handlers),
            "last_seen": last_seen.isoformat(timespec="seconds"),
        },
    )


async def add(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Insert events; those whose id exists are left alone."""
    if events:
        await connection.execute(
            insert_missing(connection, operational_events),
            [{"id": event.id, "body": event.to_json()} for event in sorted(events, key=lambda event: event.id)],
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
