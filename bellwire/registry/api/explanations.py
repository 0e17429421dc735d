"""Explanations: what is read to say why events matched subscriptions or not; the resource `registry.explanations`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Delivery, DeliveryKey
from bellwire.endpoint_health import EndpointHealth
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import deliveries as delivery_rows
from bellwire.registry import subscriptions as subscription_rows
from bellwire.registry.db.engine import Database
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.db.tables import audit_log, events, subscriptions, suppressions
from bellwire.registry.limits import by_channel
from bellwire.registry.suppressions import address_keys
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, SENDER_PREFIX, SuppressionReason
from bellwire.targets import Channel
from bellwire.tenants import ALL_TENANTS

#: Hashes of addresses in one query; SQLite takes 32,766 values in a statement.
_KEYS_PER_QUERY = 10_000
#: Changes of a subscription that are read, the first ones after the event.
MAX_CHANGES = 20


class FoundSuppression(NamedTuple):
    """A suppression that an address of a target has."""

    address: str
    reason: SuppressionReason
    #: As in `Suppression.subscription_id`: EVERYWHERE, the subscription, or an SMS sender.
    scope: str


class Candidate(NamedTuple):
    """A subscription with all that decides whether, and when, it gets an event."""

    subscription: Subscription
    created_at: datetime
    health: EndpointHealth
    #: Its delivery of the event; None: none is recorded.
    delivery: Delivery | None
    suppressions: tuple[FoundSuppression, ...]


class CandidatePage(NamedTuple):
    """Candidates by ascending id, and the limits of channels, in deliveries per second."""

    candidates: tuple[Candidate, ...]
    limits: dict[Channel, float]


class RecordedChange(NamedTuple):
    """A change of a subscription that the audit log has."""

    at: datetime
    #: What was done, such as subscription.paused.
    action: str


class RecentEvents(NamedTuple):
    """The newest events of a tenant."""

    #: Newest first.
    keys: tuple[tuple[str, datetime], ...]
    #: Events accepted before were not looked at; None: all events were.
    since: datetime | None


async def page(
    connection: AsyncConnection, event_key: str, *, tenant: str | None, after: str, limit: int
) -> CandidatePage:
    """A few statements, however many subscriptions the page has."""
    query = select(subscriptions.c.id, subscriptions.c.created_at).where(subscriptions.c.id > after)
    if tenant is not None:
        query = query.where(subscriptions.c.tenant == tenant)
    rows = await connection.execute(query.order_by(subscriptions.c.id).limit(limit))
    return await _of(connection, event_key, {row.id: row.created_at for row in rows})


async def of(connection: AsyncConnection, event_key: str, subscription_id: str) -> CandidatePage:
    query = select(subscriptions.c.id, subscriptions.c.created_at).where(subscriptions.c.id == subscription_id)
    return await _of(connection, event_key, {row.id: row.created_at for row in await connection.execute(query)})


async def _of(connection: AsyncConnection, event_key: str, created: dict[str, datetime]) -> CandidatePage:
    if not created:
        return CandidatePage((), {})
    contexts = await subscription_rows.by_ids(connection, created)
    keys = {name: DeliveryKey(event_key, name) for name in created}
    recorded = await delivery_rows.by_keys(connection, list(keys.values()))
    suppressed = await _suppressed(connection, [context.subscription for context in contexts.values()])
    return CandidatePage(
        tuple(
            Candidate(
                contexts[name].subscription,
                at,
                contexts[name].health,
                recorded.get(keys[name]),
                tuple(suppressed.get(name, ())),
            )
            for name, at in created.items()
            if name in contexts
        ),
        await by_channel(connection),
    )


async def _suppressed(connection: AsyncConnection, these: Sequence[Subscription]) -> dict[str, list[FoundSuppression]]:
    """The suppressions of the addresses of each subscription that has any, by its id, the widest scope first."""
    addresses = [(one, address) for one in these for address in one.target.recipients if address]
    ring = ring_of(connection.dialect)
    keys = {(one.channel, address): address_keys(ring, one.channel, address) for one, address in addresses}
    every, column = sorted({key for each in keys.values() for key in each}), suppressions.c
    rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for start in range(0, len(every), _KEYS_PER_QUERY):
        query = select(column.channel, column.address_key, column.subscription_id, column.reason).where(
            column.address_key.in_(every[start : start + _KEYS_PER_QUERY]),
            or_(
                column.subscription_id.in_([EVERYWHERE, *(one.id for one in these)]),
                column.subscription_id.startswith(SENDER_PREFIX, autoescape=True),
            ),
        )
        for row in await connection.execute(query.order_by(column.subscription_id)):
            rows.setdefault((row.channel, row.address_key), []).append((row.subscription_id, row.reason))
    found: dict[str, list[FoundSuppression]] = {}
    for one, address in addresses:
        for key in keys[one.channel, address]:
            for scope, reason in rows.get((str(one.channel), key), ()):
                if scope in {EVERYWHERE, one.id} or scope.startswith(SENDER_PREFIX):
                    found.setdefault(one.id, []).append(FoundSuppression(address, SuppressionReason(reason), scope))
    return found


async def changes(connection: AsyncConnection, subscription: Subscription, *, since: datetime) -> list[RecordedChange]:
    query = (
        select(audit_log.c.at, audit_log.c.action)
        .where(
            audit_log.c.tenant == subscription.tenant,
            # Ids begin with the time of day and year, so that the index finds where to start.
            audit_log.c.id >= _first_id(since),
            audit_log.c.resource == subscription.id,
            audit_log.c.action.startswith("subscription."),
            audit_log.c.at > since,
        )
        .order_by(audit_log.c.id)
        .limit(MAX_CHANGES)
    )
    return [RecordedChange(row.at, row.action) for row in await connection.execute(query)]


def _first_id(since: datetime) -> str:
    """The beginning of the ids (UUIDv7) that are given from this time on."""
    digits = f"{max(int(since.timestamp() * 1000), 0):012x}"
    return f"{digits[:8]}-{digits[8:]}"


async def recent(connection: AsyncConnection, tenant: str, *, limit: int) -> RecentEvents:
    ranges = []
    # Each is a range of an index, read up to the limit, however many events others have.
    for each in (tenant, ALL_TENANTS):
        own = select(events.c.key, events.c.accepted_at).where(events.c.tenant == each)
        newest = own.order_by(events.c.accepted_at.desc(), events.c.key.desc()).limit(limit).subquery()
        ranges.append(select(newest.c.key, newest.c.accepted_at))
    both = union_all(*ranges).subquery()
    query = select(both.c.key, both.c.accepted_at).order_by(both.c.accepted_at.desc(), both.c.key.desc()).limit(limit)
    keys = tuple((row.key, row.accepted_at) for row in await connection.execute(query))
    return RecentEvents(keys, keys[-1][1] if len(keys) == limit else None)


class Explanations:
    """The resource `registry.explanations`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def candidates(
        self, event_key: str, *, tenant: str | None = None, after: str = "", limit: int = 100
    ) -> CandidatePage:
        """Return subscriptions of one tenant or of all, by ascending id, after the id `after`."""
        return await self._database.read(page, event_key, tenant=tenant, after=after, limit=limit)

    async def candidate(self, event_key: str, subscription_id: str) -> CandidatePage:
        """Return a page of this subscription alone. Raises SubscriptionNotFound."""
        found = await self._database.read(of, event_key, subscription_id)
        if not found.candidates:
            raise SubscriptionNotFound.of(subscription_id)
        return found

    async def changes(self, subscription: Subscription, *, since: datetime) -> Sequence[RecordedChange]:
        """Return the first changes of a subscription after `since`, oldest first, as far as the audit log has them."""
        return await self._database.read(changes, subscription, since=since)

    async def recent_events(self, tenant: str, *, limit: int) -> RecentEvents:
        """Return the newest events for a tenant, those for all tenants included."""
        return await self._database.read(recent, tenant, limit=limit)
