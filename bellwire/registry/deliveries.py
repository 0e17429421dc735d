"""Deliveries: rows, and the resource `registry.deliveries`."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import REDELIVERY_PREFIX, Group
from bellwire.deliveries import SETTLED, Counts, Delivery, DeliveryKey, DeliveryState, parse_delivery_id
from bellwire.errors import DeliveryNotFound
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import deliveries, events, listed, subscriptions
from bellwire.registry.delivery_keys import attempts_by_key, channels_by_key, conditions, grouped, keys_of, without
from bellwire.targets import Channel

#: All combinations of some events and some subscriptions. The statement is built once, since building it costs more than
#: executing it. Beyond _MAX_COMBINATIONS, statements that name each key are cheaper.
_BY_COMBINATION = select(deliveries).where(
    deliveries.c.event_key.in_(bindparam("keys", expanding=True)),
    deliveries.c.subscription_id.in_(bindparam("ids", expanding=True)),
)
_MAX_COMBINATIONS = 10_000
_KEYS = select(deliveries.c.event_key, deliveries.c.subscription_id)
_OTHERS_BY_COMBINATION = _KEYS.where(
    deliveries.c.event_key.in_(bindparam("keys", expanding=True)),
    deliveries.c.subscription_id.in_(bindparam("ids", expanding=True)),
    deliveries.c.workflow_id != bindparam("own"),
)

#: States that the partial index of `listed` does not hold.
_UNLISTED = {DeliveryState.PENDING, DeliveryState.DELIVERED}


async def add(connection: AsyncConnection, workflow_id: str, groups: Sequence[Group]) -> tuple[Group, ...]:
    now = datetime.now(UTC)
    rows = [
        {
            "event_key": event_key,
            "subscription_id": subscription_id,
            "channel": str(channel),
            "state": str(DeliveryState.PENDING),
            "attempts": 0,
            "schedule_from": 0,
            "reason": "",
            "from_retry_after": False,
            "workflow_id": workflow_id,
            "updated_at": now,
            "created_at": now,
        }
        # Sorted, or two workers that insert the same rows could deadlock.
        for (event_key, subscription_id), channel in sorted(channels_by_key(groups).items())
    ]
    await execute_many(connection, insert_missing(connection, deliveries), rows)
    others = await _owned_by_others(connection, workflow_id, keys_of(groups))
    return without(groups, others) if others else tuple(groups)


async def _owned_by_others(
    connection: AsyncConnection, workflow_id: str, keys: Sequence[DeliveryKey]
) -> set[DeliveryKey]:
    """Those of the deliveries that another workflow has: a replay of past events, or a redelivery."""
    event_keys, ids = sorted({key for key, _ in keys}), sorted({subscription_id for _, subscription_id in keys})
    if len(event_keys) * len(ids) <= _MAX_COMBINATIONS:
        parameters = {"keys": event_keys, "ids": ids, "own": workflow_id}
        return {DeliveryKey(*row) for row in await connection.execute(_OTHERS_BY_COMBINATION, parameters)}
    others = set[DeliveryKey]()
    for condition in conditions(keys):
        query = _KEYS.where(condition, deliveries.c.workflow_id != workflow_id)
        others |= {DeliveryKey(*row) for row in await connection.execute(query)}
    return others


async def owned(connection: AsyncConnection, workflow_id: str, groups: Sequence[Group]) -> frozenset[DeliveryKey]:
    found = await by_keys(connection, keys_of(groups))
    return frozenset(key for key, delivery in found.items() if delivery.workflow_id == workflow_id)


async def by_keys(
    connection: AsyncConnection, keys: Sequence[DeliveryKey], *, lock: bool = False
) -> dict[DeliveryKey, Delivery]:
    """Return the deliveries that exist. `lock` locks their rows until the transaction ends."""
    wanted, found = set(keys), dict[DeliveryKey, Delivery]()
    event_keys, ids = sorted({key for key, _ in wanted}), sorted({subscription_id for _, subscription_id in wanted})
    if lock or len(event_keys) * len(ids) > _MAX_COMBINATIONS:
        queries = [select(deliveries).where(condition) for condition in conditions(sorted(wanted))]
        if lock:
            order = (deliveries.c.event_key, deliveries.c.subscription_id)
            queries = [query.order_by(*order).with_for_update() for query in queries]
        results = [await connection.execute(query) for query in queries]
    else:
        results = [await connection.execute(_BY_COMBINATION, {"keys": event_keys, "ids": ids})]
    for result in results:
        for row in result.mappings():
            key = DeliveryKey(row["event_key"], row["subscription_id"])
            if key in wanted:
                found[key] = _delivery(row)
    return found


async def list_(
    connection: AsyncConnection,
    *,
    event_key: str | None,
    subscription_id: str | None,
    tenant: str | None,
    state: DeliveryState | None,
    channel: Channel | None,
    event_type: str | None,
    since: datetime | None,
    until: datetime | None,
    after: str,
    limit: int,
) -> list[Delivery]:
    # By the time of the event, which an index holds; within an event by subscription.
    order = (events.c.accepted_at.desc(), deliveries.c.event_key.desc(), deliveries.c.subscription_id)
    query = select(deliveries).join(events, events.c.key == deliveries.c.event_key).order_by(*order).limit(limit)
    equal = {"event_key": event_key, "subscription_id": subscription_id, "state": state, "channel": channel}
    for name, value in equal.items():
        if value is not None:
            query = query.where(deliveries.c[name] == str(value))
    if since is not None:
        query = query.where(events.c.accepted_at >= since)
    if until is not None:
        query = query.where(events.c.accepted_at < until)
    if event_type is not None:
        query = query.where(events.c.type == event_type)
    if state is not None and state not in _UNLISTED:
        query = query.where(listed)
    if tenant is not None:
        query = query.join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id).where(
            subscriptions.c.tenant == tenant
        )
    if after:
        key = parse_delivery_id(after)
        if key is None:
            raise DeliveryNotFound(
                f"{after[:120]} is not a valid delivery id; expected dlv_<event key>_<subscription id>"
            )
        last = select(events.c.accepted_at, events.c.key).where(events.c.key == key.event_key)
        if tenant is not None:
            # Another tenant's event must be as one that does not exist.
            last = last.where(is_delivered_to(tenant))
        query = query.where(
            or_(
                tuple_(events.c.accepted_at, events.c.key) < last.scalar_subquery(),
                and_(deliveries.c.event_key == key.event_key, deliveries.c.subscription_id > key.subscription_id),
            )
        )
    return [_delivery(row) for row in (await connection.execute(query)).mappings()]


async def unsettled_of(connection: AsyncConnection, subscription_id: str) -> list[Delivery]:
    """Return all unsettled deliveries of a subscription."""
    unsettled = deliveries.c.state.not_in(sorted(map(str, SETTLED)))
    query = select(deliveries).where(deliveries.c.subscription_id == subscription_id, unsettled)
    rows = await connection.execute(query.order_by(deliveries.c.event_key))
    return [_delivery(row) for row in rows.mappings()]


async def redelivering(connection: AsyncConnection, event_key: str) -> list[str]:
    """Return the subscription ids of an event's unsettled deliveries that a workflow of their own redelivers."""
    unsettled = deliveries.c.state.not_in(sorted(map(str, SETTLED)))
    query = select(deliveries.c.subscription_id).where(
        deliveries.c.event_key == event_key, unsettled, deliveries.c.workflow_id.startswith(REDELIVERY_PREFIX)
    )
    return list((await connection.execute(query.order_by(deliveries.c.subscription_id))).scalars())


def is_delivered_to(tenant: str) -> ColumnElement[bool]:
    """Whether an event of the query has a delivery for a subscription of the tenant."""
    return exists().where(
        deliveries.c.event_key == events.c.key,
        deliveries.c.subscription_id == subscriptions.c.id,
        subscriptions.c.tenant == tenant,
    )


async def counts(
    connection: AsyncConnection, event_keys: Iterable[str], *, tenant: str | None = None
) -> dict[str, Counts]:
    """Return the number of deliveries of each event by state, to one tenant or to all; events without any are absent."""
    query = (
        select(deliveries.c.event_key, deliveries.c.state, func.count())
        .where(deliveries.c.event_key.in_(sorted(set(event_keys))))
        .group_by(deliveries.c.event_key, deliveries.c.state)
    )
    if tenant is not None:
        query = query.join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id).where(
            subscriptions.c.tenant == tenant
        )
    counted: dict[str, Counts] = {}
    for event_key, state, number in await connection.execute(query):
        more = {"matched": number, **({state: number} if DeliveryState(state).settled else {})}
        counted[event_key] = counted.get(event_key, Counts()).plus(more)
    return counted


def _delivery(row: Mapping[Any, Any]) -> Delivery:
    remaining = row["remaining_recipients"]
    return Delivery.model_validate(
        {**row, "remaining_recipients": None if remaining is None else json.loads(remaining)}
    )


class Settlement(NamedTuple):
    """What `settle` did."""

    #: How many of all the deliveries are in which settled state, by event key. Deleted ones count as cancelled.
    states: dict[str, dict[DeliveryState, int]]
    #: How many this call has cancelled, by channel.
    cancelled: dict[Channel, int]


async def settle(connection: AsyncConnection, groups: Sequence[Group], *, reason: str) -> Settlement:
    """Cancel the deliveries that are not settled."""
    keys = keys_of(groups)
    found = await by_keys(connection, keys, lock=True)
    unsettled = sorted(key for key, delivery in found.items() if not delivery.state.settled)
    for condition in conditions(unsettled):
        await connection.execute(
            update(deliveries)
            .where(condition)
            .values(
                state=str(DeliveryState.CANCELLED),
                reason=reason,
                delay=None,
                from_retry_after=False,
                updated_at=datetime.now(UTC),
            )
        )
    settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
    for key in keys:
        delivery = found.get(key)
        state = delivery.state if delivery and delivery.state.settled else DeliveryState.CANCELLED
        settled[key.event_key][state] += 1
    cancelled = Counter(found[key].channel for key in unsettled)
    return Settlement({event_key: dict(states) for event_key, states in settled.items()}, dict(cancelled))


async def redeliver(
    connection: AsyncConnection, workflow_id: str, groups: Sequence[Group], *, abandoned: bool, unchanged_only: bool
) -> tuple[Group, ...]:
    next_attempts = attempts_by_key(groups)
    found = await by_keys(connection, list(next_attempts), lock=True)
    reset = {
        key: delivery
        for key, delivery in found.items()
        if _is_reset_by(delivery, workflow_id)
        or (
            (delivery.state.settled or abandoned)
            and (not unchanged_only or delivery.attempts + 1 == next_attempts[key])
        )
    }
    changed = sorted(key for key, delivery in reset.items() if not _is_reset_by(delivery, workflow_id))
    if changed:
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("name"))
            .values(
                state=str(DeliveryState.PENDING),
                schedule_from=deliveries.c.attempts,
                delay=None,
                from_retry_after=False,
                not_before=None,
                workflow_id=workflow_id,
                updated_at=datetime.now(UTC),
            ),
            [{"key": event_key, "name": subscription_id} for event_key, subscription_id in changed],
        )
    return grouped([delivery for _, delivery in sorted(reset.items())])


def _is_reset_by(delivery: Delivery, workflow_id: str) -> bool:
    """Whether an earlier try of the same workflow has reset it."""
    return delivery.state is DeliveryState.PENDING and delivery.workflow_id == workflow_id


class Deliveries:
    """The resource `registry.deliveries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, workflow_id: str, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Insert deliveries as pending, owned by `workflow_id`, and return those that it owns.

        Those that exist stay as they are: the workflow that inserts a delivery sends it, and no other does.
        """
        return await self._database.write(add, workflow_id, groups)

    async def owned(self, workflow_id: str, groups: Sequence[Group]) -> Set[DeliveryKey]:
        """Those of the deliveries that exist and that the workflow has."""
        return await self._database.read(owned, workflow_id, groups)

    async def list(
        self,
        *,
        event_key: str | None = None,
        subscription_id: str | None = None,
        tenant: str | None = None,
        state: DeliveryState | None = None,
        channel: Channel | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """Return deliveries, those of the newest events first and then by subscription id, after the delivery id `after`.

        `since`: only of events that were accepted then or later; `until`: before. Raises DeliveryNotFound for a malformed
        `after`.
        """
        return await self._database.read(
            list_,
            event_key=event_key,
            subscription_id=subscription_id,
            tenant=tenant,
            state=state,
            channel=channel,
            event_type=event_type,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )

    async def redelivering(self, event_key: str) -> Sequence[str]:
        """Return the subscription ids of an event's unsettled deliveries that are redelivered by workflows of their own."""
        return await self._database.read(redelivering, event_key)

    async def settle(self, groups: Sequence[Group], *, reason: str) -> Settlement:
        """Cancel the deliveries that are not settled."""
        return await self._database.write(settle, groups, reason=reason)

    async def redeliver(
        self,
        workflow_id: str,
        groups: Sequence[Group],
        *,
        abandoned: bool = False,
        unchanged_only: bool = False,
    ) -> tuple[Group, ...]:
        """Reset settled deliveries to pending, owned by `workflow_id`, with their schedules restarted; return them.

        `abandoned` also resets unsettled ones, whose workflow is gone. `unchanged_only` leaves out those whose next attempt is no
        longer the one that their group names. Deliveries that an earlier try of the same workflow reset are returned again. What
        is known of earlier attempts stays: remaining recipients, so that no recipient gets a mail twice, and an unanswered
        intent, so that an SMS is reconciled before it is sent again.
        """
        return await self._database.write(
            redeliver, workflow_id, groups, abandoned=abandoned, unchanged_only=unchanged_only
        )
