"""Events, as rows: each accepted once, owned by the run that delivers it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import EventSummary, LookupResult, PublishResult
from bellwire.deliveries import Counts
from bellwire.errors import DeliveryNotFound, EventNotFound
from bellwire.events import Event, event_key
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import events
from bellwire.registry.deliveries import by_pairs, counts, grouped

# Made once, since making a statement costs more than running it.
_THESE = events.c.key.in_(bindparam("keys", expanding=True))
_BODIES = select(events.c.key, events.c.body).where(_THESE)
_OWNERS = select(events.c.key, events.c.digest, events.c.workflow_id, events.c.run_id).where(_THESE)


class StoredEvent(NamedTuple):
    """An event as the registry has it."""

    event: Event
    #: The run that delivers it.
    workflow_id: str
    digest: str
    accepted_at: datetime
    counts: Counts


async def accept(
    connection: AsyncConnection, published: Sequence[Event], workflow_id: str, run_id: str
) -> dict[str, EventSummary]:
    """Store the events that are new, for this run; how each stands comes back, by event key."""
    digests = {event.key: (event, event.digest) for event in reversed(published)}
    now = datetime.now(UTC)
    rows = [
        {
            "key": key,
            "source": event.source,
            "id": event.id,
            "type": event.type,
            "tenant": event.tenant,
            "digest": digest,
            "workflow_id": workflow_id,
            "run_id": run_id,
            "accepted_at": now,
            "body": event.to_json(),
        }
        # In one order for all, or two runs that share events could wait for each other.
        for key, (event, digest) in sorted(digests.items())
    ]
    if not rows:
        return {}
    await execute_many(connection, insert_missing(connection, events), rows)
    known = await connection.execute(_OWNERS, {"keys": sorted(digests)})
    owners = {key: (digest, (owner, owning_run)) for key, digest, owner, owning_run in known}
    return {
        event.key: EventSummary(
            source=event.source,
            id=event.id,
            result=_standing(owners[event.key], digests[event.key][1], (workflow_id, run_id)),
            workflow_id=owners[event.key][1][0],
        )
        for event in published
    }


def _standing(stored: tuple[str, tuple[str, str]], digest: str, run: tuple[str, str]) -> PublishResult:
    """Another digest is a conflict even for the same workflow id: Temporal may have forgotten what it was started with."""
    stored_digest, owner = stored
    if stored_digest != digest:
        return PublishResult.CONFLICT
    return PublishResult.OWNED if owner == run else PublishResult.DUPLICATE


async def by_keys(connection: AsyncConnection, keys: Iterable[str]) -> dict[str, tuple[Event, str]]:
    """The events that exist, each with its CloudEvents JSON, by key."""
    rows = await connection.execute(_BODIES, {"keys": sorted(set(keys))})
    return {key: (Event.restored(body), body) for key, body in rows}


async def stored(connection: AsyncConnection, source: str, event_id: str) -> StoredEvent:
    """Raises EventNotFound."""
    found = await _read(connection, select(events).where(events.c.key == event_key(source, event_id)))
    if not found:
        raise EventNotFound
    return found[0]


async def with_id(connection: AsyncConnection, event_id: str, *, source: str | None) -> list[StoredEvent]:
    """The events of this id, of one source or of all, newest first."""
    query = select(events).where(events.c.id == event_id)
    if source is not None:
        query = query.where(events.c.source == source)
    return await _read(connection, _newest_first(query))


async def listing(
    connection: AsyncConnection, *, event_type: str | None, tenant: str | None, after: str, limit: int
) -> list[StoredEvent]:
    """Events, newest first, after the one whose key is `after`. `tenant` is whom they were addressed to."""
    query = select(events)
    if event_type is not None:
        query = query.where(events.c.type == event_type)
    if tenant is not None:
        query = query.where(events.c.tenant == tenant)
    if after:
        last = select(events.c.accepted_at, events.c.key).where(events.c.key == after)
        query = query.where(tuple_(events.c.accepted_at, events.c.key) < last.scalar_subquery())
    return await _read(connection, _newest_first(query).limit(limit))


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(events.c.accepted_at.desc(), events.c.key.desc())


async def _read(connection: AsyncConnection, query: Select[Any]) -> list[StoredEvent]:
    rows = (await connection.execute(query)).all()
    counted = await counts(connection, [row.key for row in rows])
    return [
        StoredEvent(
            Event.restored(row.body), row.workflow_id, row.digest, row.accepted_at, counted.get(row.key, Counts())
        )
        for row in rows
    ]


async def lookup(connection: AsyncConnection, source: str, event_id: str, subscription_id: str | None) -> LookupResult:
    """Raises EventNotFound or DeliveryNotFound."""
    event = await stored(connection, source, event_id)
    result = LookupResult(
        event_key=event.event.key,
        workflow_id=event.workflow_id,
        digest=event.digest,
        accepted_at=event.accepted_at,
        counts=event.counts,
    )
    if subscription_id is None:
        return result
    found = await by_pairs(connection, [(event.event.key, subscription_id)])
    if not found:
        raise DeliveryNotFound
    (delivery,) = found.values()
    return result.model_copy(
        update={
            "delivery": grouped([delivery])[0],
            "delivery_state": delivery.state,
            "delivery_workflow_id": delivery.workflow_id,
        }
    )


class Events:
    """Events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accept(self, events: Sequence[Event], workflow_id: str, run_id: str = "") -> dict[str, EventSummary]:
        """Store events for the run that publishes them; how each stands, by event key. The same run may ask again."""
        return await self._database.write(accept, events, workflow_id, run_id)

    async def by_keys(self, keys: Sequence[str]) -> dict[str, Event]:
        """Those of the events that exist."""
        return {key: event for key, (event, _) in (await self._database.read(by_keys, keys)).items()}

    async def list(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the word of CloudEvents
        tenant: str | None = None,
        after: str = "",
        limit: int = 50,
    ) -> Sequence[StoredEvent]:
        """Events, newest first, after the one whose key is `after`; `tenant` is whom they were addressed to."""
        return await self._database.read(listing, event_type=type, tenant=tenant, after=after, limit=limit)

    async def with_id(self, event_id: str, *, source: str | None = None) -> Sequence[StoredEvent]:
        """The events of this id, newest first."""
        return await self._database.read(with_id, event_id, source=source)

    async def lookup(self, source: str, event_id: str, subscription_id: str | None = None) -> LookupResult:
        """Raises EventNotFound or DeliveryNotFound."""
        return await self._database.read(lookup, source, event_id, subscription_id)
