"""Events: rows, and the resource `registry.events`. Each event is stored once, owned by the workflow that delivers it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import EventSummary, LookupResult, PublishResult
from bellwire.deliveries import Counts, DeliveryKey
from bellwire.errors import DeliveryNotFound, EventNotFound
from bellwire.events import Event, event_key
from bellwire.receipts import KnownEvent
from bellwire.registry import operational_events
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import events
from bellwire.registry.deliveries import by_keys as deliveries_by_keys
from bellwire.registry.deliveries import counts, is_delivered_to
from bellwire.registry.delivery_keys import grouped
from bellwire.tenants import ALL_TENANTS

# Built once, since building a statement costs more than executing it.
_BY_KEYS = events.c.key.in_(bindparam("keys", expanding=True))
_BODIES = select(events.c.key, events.c.body).where(_BY_KEYS)
_OWNERS = select(events.c.key, events.c.digest, events.c.workflow_id, events.c.run_id).where(_BY_KEYS)


class StoredEvent(NamedTuple):
    """An event as the registry stores it."""

    event: Event
    #: The workflow that delivers it.
    workflow_id: str
    digest: str
    accepted_at: datetime
    counts: Counts


class _Owner(NamedTuple):
    digest: str
    workflow_id: str
    run_id: str

    def result_for(self, other: "_Owner") -> PublishResult:
        """Compare digests first: Temporal may have forgotten what an earlier run of the same workflow id was started with."""
        if self.digest != other.digest:
            return PublishResult.CONFLICT
        return PublishResult.OWNED if self == other else PublishResult.DUPLICATE


async def accept(
    connection: AsyncConnection, published: Sequence[Event], workflow_id: str, run_id: str
) -> dict[str, EventSummary]:
    by_key = {event.key: event for event in reversed(published)}
    own = {key: _Owner(event.digest, workflow_id, run_id) for key, event in by_key.items()}
    now = datetime.now(UTC)
    rows = [
        {
            "key": key,
            "source": event.source,
            "id": event.id,
            "type": event.type,
            "tenant": event.tenant,
            "digest": own[key].digest,
            "workflow_id": workflow_id,
            "run_id": run_id,
            "accepted_at": now,
            "body": event.to_json(),
        }
        # Sorted, or two workflows that publish the same events could deadlock.
        for key, event in sorted(by_key.items())
    ]
    if not rows:
        return {}
    await execute_many(connection, insert_missing(connection, events), rows)
    stored = await connection.execute(_OWNERS, {"keys": sorted(by_key)})
    owners = {key: _Owner(*owner) for key, *owner in stored}
    summaries = {
        event.key: EventSummary(
            source=event.source,
            id=event.id,
            result=owners[event.key].result_for(own[event.key]),
            workflow_id=owners[event.key].workflow_id,
        )
        for event in published
    }
    conflicts = [
        operational_events.conflict_event(
            event, workflow_id=workflow_id, run_id=run_id, published_by=summaries[key].workflow_id, now=now
        )
        for key, event in by_key.items()
        # No event about an operational event, or one could follow another without end.
        if summaries[key].result is PublishResult.CONFLICT and event.source != operational_events.SOURCE
    ]
    await operational_events.add(connection, conflicts)
    return summaries


async def known(connection: AsyncConnection, published: Sequence[Event]) -> dict[str, KnownEvent]:
    rows = await connection.execute(_OWNERS, {"keys": sorted({event.key for event in published})})
    return {key: KnownEvent(digest, workflow_id) for key, digest, workflow_id, _ in rows}


async def by_keys(connection: AsyncConnection, keys: Iterable[str]) -> dict[str, tuple[Event, str]]:
    """Return the events that exist, each with its CloudEvents JSON, by key."""
    rows = await connection.execute(_BODIES, {"keys": sorted(set(keys))})
    return {key: (Event.restored(body), body) for key, body in rows}


async def with_id(connection: AsyncConnection, event_id: str, *, source: str | None) -> list[StoredEvent]:
    query = select(events).where(events.c.id == event_id)
    if source is not None:
        query = query.where(events.c.source == source)
    return await _read(connection, _newest_first(query))


async def get(
    connection: AsyncConnection, key: str, *, visible_to: str | None = None, or_for_all: bool = False
) -> StoredEvent:
    query = select(events).where(events.c.key == key)
    if visible_to is not None:
        for_all = events.c.tenant == ALL_TENANTS
        query = query.where(or_(_is_visible_to(visible_to), for_all) if or_for_all else _is_visible_to(visible_to))
    found = await _read(connection, query, tenant=visible_to)
    if not found:
        raise EventNotFound(f"no event has the key {key[:40]}; it is the last part of a receipt's Location")
    return found[0]


async def list_(
    connection: AsyncConnection,
    *,
    event_type: str | None,
    tenant: str | None,
    visible_to: str | None,
    since: datetime | None,
    until: datetime | None,
    after: str,
    limit: int,
) -> list[StoredEvent]:
    query = select(events)
    if visible_to is not None:
        query = query.where(_is_visible_to(visible_to))
    if event_type is not None:
        query = query.where(events.c.type == event_type)
    if tenant is not None:
        query = query.where(events.c.tenant == tenant)
    if since is not None:
        query = query.where(events.c.accepted_at >= since)
    if until is not None:
        query = query.where(events.c.accepted_at < until)
    if after:
        last = select(events.c.accepted_at, events.c.key).where(events.c.key == after)
        if visible_to is not None:
            # One that the tenant may not see must be as one that does not exist.
            last = last.where(_is_visible_to(visible_to))
        query = query.where(tuple_(events.c.accepted_at, events.c.key) < last.scalar_subquery())
    return await _read(connection, _newest_first(query).limit(limit), tenant=visible_to)


def _is_visible_to(tenant: str) -> ColumnElement[bool]:
    """Whether an event is for a tenant, or is delivered to it."""
    return or_(events.c.tenant == tenant, is_delivered_to(tenant))


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(events.c.accepted_at.desc(), events.c.key.desc())


async def _read(connection: AsyncConnection, query: Select[Any], *, tenant: str | None = None) -> list[StoredEvent]:
    """The events of a query, with counts of the deliveries to one tenant or to all."""
    rows = (await connection.execute(query)).all()
    counted = await counts(connection, [row.key for row in rows], tenant=tenant)
    return [
        StoredEvent(
            Event.restored(row.body), row.workflow_id, row.digest, row.accepted_at, counted.get(row.key, Counts())
        )
        for row in rows
    ]


async def lookup(connection: AsyncConnection, source: str, event_id: str, subscription_id: str | None) -> LookupResult:
    found = await _read(connection, select(events).where(events.c.key == event_key(source, event_id)))
    if not found:
        raise EventNotFound
    stored = found[0]
    result = LookupResult(
        event_key=stored.event.key,
        workflow_id=stored.workflow_id,
        digest=stored.digest,
        accepted_at=stored.accepted_at,
        counts=stored.counts,
    )
    if subscription_id is None:
        return result
    key = DeliveryKey(stored.event.key, subscription_id)
    delivery = (await deliveries_by_keys(connection, [key])).get(key)
    if delivery is None:
        raise DeliveryNotFound
    return result.model_copy(
        update={
            "delivery": grouped([delivery])[0],
            "delivery_state": delivery.state,
            "delivery_workflow_id": delivery.workflow_id,
        }
    )


class Events:
    """The resource `registry.events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accept(self, events: Sequence[Event], workflow_id: str, run_id: str = "") -> dict[str, EventSummary]:
        """Store the events that are new, owned by this run; return which workflow delivers each, by event key.

        Idempotent: the same run gets the same result again.
        """
        return await self._database.write(accept, events, workflow_id, run_id)

    async def known(self, events: Sequence[Event]) -> dict[str, KnownEvent]:
        """Return those of the events whose source and id were published before, by event key."""
        return await self._database.read(known, events)

    async def by_keys(self, keys: Sequence[str]) -> dict[str, Event]:
        """Return the events that exist, by key."""
        return {key: event for key, (event, _) in (await self._database.read(by_keys, keys)).items()}

    async def list(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the word of CloudEvents
        tenant: str | None = None,
        visible_to: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str = "",
        limit: int = 50,
    ) -> Sequence[StoredEvent]:
        """Return events, newest first, after the event key `after`. `tenant` is the one that they were published for;
        `visible_to` a tenant that they were published for or delivered to, whose deliveries are counted.
        `since`: accepted then or later; `until`: before.
        """
        return await self._database.read(
            list_,
            event_type=type,
            tenant=tenant,
            visible_to=visible_to,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )

    async def get(self, key: str, *, visible_to: str | None = None, or_for_all: bool = False) -> StoredEvent:
        """Return the event with this key, `visible_to` as in `list`; `or_for_all`: also one for all tenants.

        Raises EventNotFound.
        """
        return await self._database.read(get, key, visible_to=visible_to, or_for_all=or_for_all)

    async def with_id(self, event_id: str, *, source: str | None = None) -> Sequence[StoredEvent]:
        """Return the events with this id, of one source or of all, newest first."""
        return await self._database.read(with_id, event_id, source=source)

    async def lookup(self, source: str, event_id: str, subscription_id: str | None = None) -> LookupResult:
        """Return what is stored about an event and, with `subscription_id`, about one of its deliveries.

        Raises EventNotFound or DeliveryNotFound.
        """
        return await self._database.read(lookup, source, event_id, subscription_id)
