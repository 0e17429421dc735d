"""Deliveries, as rows: added as pending, read in bulk by the groups that workflows name them in."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import SETTLED, Counts, Delivery, DeliveryState
from bellwire.errors import DeliveryNotFound
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import deliveries, listed, subscriptions
from bellwire.targets import Channel

#: Deliveries, and events that they belong to, in one query. SQLite's expressions are at most 1,000 deep.
_PER_QUERY = 2_000
_EVENTS_PER_QUERY = 100

#: Every combination of some events and some subscriptions. The statement is made once, since making one costs more than
#: running it; beyond this many combinations, one that names each pair pays.
_LOOK_UP = select(deliveries).where(
    deliveries.c.event_key.in_(bindparam("keys", expanding=True)),
    deliveries.c.subscription_id.in_(bindparam("ids", expanding=True)),
)
_MAX_LOOKED_UP = 10_000

_DELIVERY_ID = re.compile(r"dlv_([a-z2-7]{26})_(.+)")
_UNLISTED = {DeliveryState.PENDING, DeliveryState.DELIVERED}

#: Event key and subscription id.
Pair = tuple[str, str]


async def add(connection: AsyncConnection, workflow_id: str, groups: Sequence[Group]) -> None:
    """Insert the deliveries of the groups as pending; those that exist already are left alone."""
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
        }
        # In one order for all, or two workers that insert the same rows could wait for each other.
        for (event_key, subscription_id), channel in sorted(_channels(groups).items())
    ]
    await execute_many(connection, insert_missing(connection, deliveries), rows)


def _channels(groups: Sequence[Group]) -> dict[Pair, Channel]:
    return {
        (group.event_key, subscription_id): group.channel
        for group in groups
        for subscription_id in group.subscription_ids
    }


def pairs_of(groups: Sequence[Group]) -> list[Pair]:
    """Each delivery of the groups once, in the order that every writer goes by."""
    return sorted(_channels(groups))


def among(pairs: Sequence[Pair]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together select the rows of `pairs`, which are in order; few queries of bounded size.

    One range of the primary key for each event: two to five times faster, on both databases, than (a, b) IN (…).
    """
    by_event: dict[str, list[str]] = defaultdict(list)
    size = 0
    for event_key, subscription_id in pairs:
        if size == _PER_QUERY or (len(by_event) == _EVENTS_PER_QUERY and event_key not in by_event):
            yield _any_of(by_event)
            by_event.clear()
            size = 0
        by_event[event_key].append(subscription_id)
        size += 1
    if by_event:
        yield _any_of(by_event)


def _any_of(by_event: Mapping[str, Sequence[str]]) -> ColumnElement[bool]:
    return or_(
        *(and_(deliveries.c.event_key == key, deliveries.c.subscription_id.in_(ids)) for key, ids in by_event.items())
    )


async def by_pairs(connection: AsyncConnection, pairs: Sequence[Pair], *, lock: bool = False) -> dict[Pair, Delivery]:
    """The deliveries that exist. With `lock`, nobody else changes them until the transaction ends."""
    wanted, found = set(pairs), dict[Pair, Delivery]()
    keys, ids = sorted({key for key, _ in wanted}), sorted({subscription_id for _, subscription_id in wanted})
    if lock or len(keys) * len(ids) > _MAX_LOOKED_UP:
        queries = [select(deliveries).where(condition) for condition in among(sorted(wanted))]
        if lock:
            order = (deliveries.c.event_key, deliveries.c.subscription_id)
            queries = [query.order_by(*order).with_for_update() for query in queries]
        results = [await connection.execute(query) for query in queries]
    else:
        results = [await connection.execute(_LOOK_UP, {"keys": keys, "ids": ids})]
    for result in results:
        for row in result.mappings():
            pair = row["event_key"], row["subscription_id"]
            if pair in wanted:
                found[pair] = _delivery(row)
    return found


async def listing(
    connection: AsyncConnection,
    *,
    event_key: str | None,
    subscription_id: str | None,
    tenant: str | None,
    state: DeliveryState | None,
    channel: Channel | None,
    after: str,
    limit: int,
) -> list[Delivery]:
    """Deliveries by event key and subscription id, after the id `after`. Raises DeliveryNotFound for a bad id."""
    order = (deliveries.c.event_key, deliveries.c.subscription_id)
    query = select(deliveries).order_by(*order).limit(limit)
    wanted = {"event_key": event_key, "subscription_id": subscription_id, "state": state, "channel": channel}
    for name, value in wanted.items():
        if value is not None:
            query = query.where(deliveries.c[name] == str(value))
    if state is not None and state not in _UNLISTED:
        query = query.where(listed)
    if tenant is not None:
        query = query.join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id).where(
            subscriptions.c.tenant == tenant
        )
    if after:
        parts = _DELIVERY_ID.fullmatch(after)
        if parts is None:
            raise DeliveryNotFound(f"{after[:120]} is not a delivery id, such as dlv_<event key>_<subscription id>")
        query = query.where(tuple_(*order) > tuple_(*parts.groups()))
    return [_delivery(row) for row in (await connection.execute(query)).mappings()]


async def unsettled_of(connection: AsyncConnection, subscription_id: str) -> list[Delivery]:
    """All deliveries of a subscription that are not settled."""
    these = (deliveries.c.subscription_id == subscription_id, deliveries.c.state.not_in(sorted(map(str, SETTLED))))
    query = select(deliveries).where(*these).order_by(deliveries.c.event_key)
    return [_delivery(row) for row in (await connection.execute(query)).mappings()]


async def counts(connection: AsyncConnection, event_keys: Iterable[str]) -> dict[str, Counts]:
    """How many deliveries of each event stand where; events without any are absent."""
    query = (
        select(deliveries.c.event_key, deliveries.c.state, func.count())
        .where(deliveries.c.event_key.in_(sorted(set(event_keys))))
        .group_by(deliveries.c.event_key, deliveries.c.state)
    )
    counted: dict[str, Counts] = {}
    for event_key, state, number in await connection.execute(query):
        more = {"matched": number, **({state: number} if DeliveryState(state).settled else {})}
        counted[event_key] = counted.get(event_key, Counts()).plus(more)
    return counted


def _delivery(row: Mapping[Any, Any]) -> Delivery:
    return Delivery.model_validate(
        {
            **row,
            "remaining_recipients": None
            if row["remaining_recipients"] is None
            else json.loads(row["remaining_recipients"]),
        }
    )


async def settle(
    connection: AsyncConnection, groups: Sequence[Group], *, reason: str
) -> dict[str, dict[DeliveryState, int]]:
    """Cancel what is not settled; how many of all the deliveries stand in which settled state, by event key.

    What was deleted meanwhile counts as cancelled.
    """
    pairs = pairs_of(groups)
    found = await by_pairs(connection, pairs, lock=True)
    unsettled = sorted(pair for pair, delivery in found.items() if not delivery.state.settled)
    for condition in among(unsettled):
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
    for pair in pairs:
        delivery = found.get(pair)
        state = delivery.state if delivery and delivery.state.settled else DeliveryState.CANCELLED
        settled[pair[0]][state] += 1
    return {event_key: dict(states) for event_key, states in settled.items()}


async def redeliver(
    connection: AsyncConnection, workflow_id: str, groups: Sequence[Group], *, abandoned: bool
) -> tuple[Group, ...]:
    """Make settled deliveries pending again, held by `workflow_id`, each with its schedule begun afresh; `orphans` too.

    What an earlier try of the same run has opened comes back once more. Addresses that are still owed a mail stay so: those
    that have it do not get it twice. An intent that was never answered for stays as well, so that an SMS is looked for first.
    """
    found = await by_pairs(connection, pairs_of(groups), lock=True)
    opened = {
        pair: item for pair, item in found.items() if item.state.settled or abandoned or _is_mine(item, workflow_id)
    }
    moved = sorted(pair for pair, item in opened.items() if not _is_mine(item, workflow_id))
    if moved:
        await connection.execute(
            update(deliveries)
            .where(
                deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("subscription")
            )
            .values(
                state=str(DeliveryState.PENDING),
                schedule_from=deliveries.c.attempts,
                delay=None,
                from_retry_after=False,
                not_before=None,
                workflow_id=workflow_id,
                updated_at=datetime.now(UTC),
            ),
            [{"key": key, "subscription": subscription_id} for key, subscription_id in moved],
        )
    return grouped([item for _, item in sorted(opened.items())])


def _is_mine(delivery: Delivery, workflow_id: str) -> bool:
    """Whether an earlier try of this run has opened it."""
    return delivery.state is DeliveryState.PENDING and delivery.workflow_id == workflow_id


def grouped(found: Sequence[Delivery]) -> tuple[Group, ...]:
    """The deliveries as groups, each with the number of its next attempt."""
    groups: dict[tuple[str, Channel, int], list[str]] = defaultdict(list)
    for delivery in found:
        groups[delivery.event_key, delivery.channel, delivery.attempts + 1].append(delivery.subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(ids), attempt=attempt)
        for (event_key, channel, attempt), ids in groups.items()
    )


class Deliveries:
    """Deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, workflow_id: str, groups: Sequence[Group]) -> None:
        """Insert deliveries as pending, held by `workflow_id`; those that exist already are left alone."""
        await self._database.write(add, workflow_id, groups)

    async def list(
        self,
        *,
        event_key: str | None = None,
        subscription_id: str | None = None,
        tenant: str | None = None,
        state: DeliveryState | None = None,
        channel: Channel | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """Deliveries by event key and subscription id, after the delivery whose id is `after`."""
        return await self._database.read(
            listing,
            event_key=event_key,
            subscription_id=subscription_id,
            tenant=tenant,
            state=state,
            channel=channel,
            after=after,
            limit=limit,
        )

    async def settle(self, groups: Sequence[Group], *, reason: str) -> dict[str, dict[DeliveryState, int]]:
        """Cancel what is not settled; how many of all these deliveries stand in which settled state, by event key."""
        return await self._database.write(settle, groups, reason=reason)

    async def redeliver(
        self, workflow_id: str, groups: Sequence[Group], *, abandoned: bool = False
    ) -> tuple[Group, ...]:
        """Make settled deliveries, and `orphans` whose run is gone, pending again, held by `workflow_id`.

        What was opened comes back, with the number of its next attempt.
        """
        return await self._database.write(redeliver, workflow_id, groups, abandoned=abandoned)
