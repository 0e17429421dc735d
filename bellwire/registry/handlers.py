"""Handlers: services that have registered some, their subscriptions, and the resource `registry.handlers`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import HandlersConflict, SubscriptionInvalid
from bellwire.registry import operational_events, subscriptions
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import handler_services
from bellwire.replays import replay_since
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel, HandlerTarget

#: How long after its last poll a service counts as running: Temporal remembers polls for as long.
ABSENT_AFTER = timedelta(minutes=5)
#: Handlers that are read at a time.
_PAGE = 1_000
#: What a registration may change.
_DECLARED = ("types", "filters", "retry_schedule", "rate_limit")


class HandlerService(NamedTuple):
    """A service that has registered handlers."""

    service: str
    application: str
    registered_at: datetime
    #: When a process of it polled last, as far as is known.
    last_seen: datetime
    #: When its absence was reported; None: it is not absent.
    absent_since: datetime | None = None

    def is_alive(self, now: datetime) -> bool:
        """Whether a process of it polled in the last minutes."""
        return now - self.last_seen < ABSENT_AFTER


class Registered(NamedTuple):
    """What a registration did. Names of handlers."""

    created: tuple[str, ...]
    updated: tuple[str, ...]


async def register(
    connection: AsyncConnection,
    service: str,
    application: str,
    declared: Sequence[Subscription],
    *,
    is_live: bool,
    take_over: bool,
    since: Mapping[str, datetime],
) -> Registered:
    now = datetime.now(UTC)
    await connection.execute(
        insert_missing(connection, handler_services).values(
            service=service, application=application, registered_at=now, last_seen=now
        )
    )
    this = handler_services.c.service == service
    row = (await connection.execute(select(handler_services).where(this).with_for_update())).one()
    stored = HandlerService(*row)
    existing = await subscriptions.by_ids(connection, (each.id for each in declared))
    if (is_live or stored.is_alive(now)) and not take_over:
        if stored.application != application:
            raise HandlersConflict(
                f"service {service} is run by the application {stored.application}, not {application}; "
                "choose another service name, or take it over with replace=True"
            )
        # Two programs may have the same name. Versions of one have a handler in common.
        if not existing and (others := await list_handlers(connection, service)):
            raise HandlersConflict(
                f"service {service} runs with other handlers, such as {_name(others[0])}, and none of them is declared here; "
                "choose another service name, or take it over with replace=True"
            )
    values = {"application": application, "registered_at": now, "last_seen": now, "absent_since": None}
    await connection.execute(update(handler_services).where(this).values(**values))
    created, updated = list[str](), list[str]()
    for new in sorted(declared, key=lambda each: each.id):
        if new.id not in existing:
            replay = replay_since(new, since[new.id]) if new.id in since else None
            await subscriptions.create(connection, new, secret=None, replay=replay)
            created.append(_name(new))
        elif await _update(connection, existing[new.id].subscription, new):
            updated.append(_name(new))
    return Registered(tuple(sorted(created)), tuple(sorted(updated)))


async def _update(connection: AsyncConnection, before: Subscription, new: Subscription) -> bool:
    """Change a subscription to what is declared; return whether it was another. One that the tenant paused stays paused."""
    if before.tenant != new.tenant:
        raise SubscriptionInvalid(
            f"tenant: {_name(new)} is registered for the tenant {before.tenant}; "
            f"`python -m starter handlers remove {before.target.address}` first, or give it another name"
        )
    changed = any(getattr(before, name) != getattr(new, name) for name in _DECLARED)
    if changed:
        fields = {name: getattr(new, name) for name in _DECLARED}
        await subscriptions.replace(connection, [before.model_copy(update=fields)])
    if before.state is SubscriptionState.DISABLED:
        # It failed for long; a process that starts may have the remedy.
        await subscriptions.set_state(connection, new.id, SubscriptionState.ACTIVE, reason=None)
    return changed or before.state is SubscriptionState.DISABLED


async def list_services(connection: AsyncConnection) -> list[HandlerService]:
    rows = await connection.execute(select(handler_services).order_by(handler_services.c.service))
    return [HandlerService(*row) for row in rows]


async def list_handlers(connection: AsyncConnection, service: str | None) -> list[Subscription]:
    found, after = list[Subscription](), ""
    while True:
        page = await subscriptions.list_(
            connection, tenant=None, pattern=None, channel=Channel.HANDLER, state=None, after=after, limit=_PAGE
        )
        found += [each for each in page if service in {None, _target(each).service}]
        if len(page) < _PAGE:
            return sorted(found, key=lambda each: each.target.address)
        after = page[-1].id


async def record_seen(connection: AsyncConnection, service: str, at: datetime) -> None:
    later = (handler_services.c.service == service, handler_services.c.last_seen < at)
    await connection.execute(update(handler_services).where(*later).values(last_seen=at, absent_since=None))


async def report_absent(connection: AsyncConnection, service: str, now: datetime) -> bool:
    # Of several workers that look at the same time, one changes the row.
    absent = (
        handler_services.c.service == service,
        handler_services.c.absent_since.is_(None),
        handler_services.c.last_seen < now - ABSENT_AFTER,
    )
    changed = await connection.execute(
        update(handler_services).where(*absent).values(absent_since=now).returning(handler_services.c.last_seen)
    )
    last_seen = changed.scalar_one_or_none()
    if last_seen is None:
        return False
    by_tenant = defaultdict[str, list[str]](list)
    for each in await list_handlers(connection, service):
        by_tenant[each.tenant].append(_name(each))
    await operational_events.add(
        connection,
        [
            operational_events.absent_event(service, tenant=tenant, handlers=names, last_seen=last_seen, now=now)
            for tenant, names in by_tenant.items()
        ],
    )
    return True


async def forget(connection: AsyncConnection, service: str) -> bool:
    if await list_handlers(connection, service):
        return False
    await connection.execute(delete(handler_services).where(handler_services.c.service == service))
    return True


def _target(subscription: Subscription) -> HandlerTarget:
    assert isinstance(subscription.target, HandlerTarget)
    return subscription.target


def _name(subscription: Subscription) -> str:
    return _target(subscription).name


class HandlerServices:
    """The resource `registry.handlers`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(
        self,
        service: str,
        application: str,
        declared: Sequence[Subscription],
        *,
        is_live: bool = False,
        take_over: bool = False,
        since: Mapping[str, datetime] | None = None,
    ) -> Registered:
        """Create the subscriptions of a service's handlers, and change those that are declared otherwise; none is removed.

        `is_live`: whether some process polls for the service; `since`: by id, from when on a new subscription gets what happened
        before it. Raises HandlersConflict if another application runs the service, or
        one without any of these handlers, unless `take_over`; SubscriptionInvalid if a handler is registered for another tenant.
        """
        return await self._database.write(
            register, service, application, declared, is_live=is_live, take_over=take_over, since=since or {}
        )

    async def services(self) -> Sequence[HandlerService]:
        """Return the services that have registered handlers, by name."""
        return await self._database.read(list_services)

    async def list(self, service: str | None = None) -> Sequence[Subscription]:
        """Return the subscriptions of the handlers of one service or of all, by service and name."""
        return await self._database.read(list_handlers, service)

    async def record_seen(self, service: str, at: datetime) -> None:
        """Record that a process of the service polled at this time."""
        await self._database.write(record_seen, service, at)

    async def report_absent(self, service: str, *, now: datetime) -> bool:
        """Add the operational event of a service that has not polled for ABSENT_AFTER, once; return whether this call did."""
        return await self._database.write(report_absent, service, now)

    async def forget(self, service: str) -> bool:
        """Delete a service that has no handlers left; return whether it has none."""
        return await self._database.write(forget, service)
