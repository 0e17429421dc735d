"""Inserting: events become rows of the service's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bellwire.events import Event
from bellwire.outbox.connections import Row, execute, execute_async
from bellwire.temporal.publications import many_events
from bellwire.temporal.start_times import Delay, DeliverAt, start_time

if TYPE_CHECKING:
    from bellwire.catalog import Catalog

#: The same event again is the same row. An event with the same source and id but other content is a row of its own, which the
#: relay refuses: it must not make the service's transaction fail.
INSERT = (
    "INSERT INTO bellwire_outbox (source, event_id, subject, tenant, digest, event, deliver_at)"
    " VALUES (:source, :event_id, :subject, :tenant, :digest, :event, :deliver_at)"
    " ON CONFLICT (source, event_id, digest) DO NOTHING"
)


def insert(
    connection: Any,
    *events: Event,
    delay: Delay | None = None,
    deliver_at: DeliverAt | None = None,
    catalog: "Catalog | None" = None,
) -> None:
    """Insert events into the outbox, in the transaction of `connection`. The relay publishes them once it is committed.

    `connection` is a Session or Connection of SQLAlchemy, or a connection of a DB-API driver such as psycopg or sqlite3, for
    PostgreSQL or SQLite. The same event again is inserted once. `delay` and `deliver_at` are those of `Client.publish`; a delay
    counts from now. With a `catalog`, events are checked first. Raises EventInvalid if the catalog refuses one or the time is not
    valid, TypeError for anything that is no Event or no such connection, and the driver's own errors.
    """
    if rows := _rows(events, start_time(delay, deliver_at), catalog):
        execute(connection, INSERT, rows)


async def insert_async(
    connection: Any,
    *events: Event,
    delay: Delay | None = None,
    deliver_at: DeliverAt | None = None,
    catalog: "Catalog | None" = None,
) -> None:
    """The same for asynchronous connections: an AsyncSession or AsyncConnection of SQLAlchemy, or one of asyncpg or psycopg."""
    if rows := _rows(events, start_time(delay, deliver_at), catalog):
        await execute_async(connection, INSERT, rows)


def _rows(events: Sequence[Event], starts_at: datetime | None, catalog: "Catalog | None") -> list[Row]:
    rows: list[Row] = []
    for position, event in enumerate(many_events(events)):
        if catalog is not None:
            catalog.check(event, place=f"events[{position}]" if len(events) > 1 else "")
        rows.append(
            {
                "source": event.source,
                "event_id": event.id,
                "subject": event.subject,
                "tenant": event.tenant,
                "digest": event.digest,
                "event": event.to_json(),
                "deliver_at": starts_at.isoformat() if starts_at else None,
            }
        )
    return rows
