"""Deliveries, as rows: added as pending, read in bulk by the groups that workflows name them in."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import SETTLED, Counts, Delivery, DeliveryState
from bellwire.errors import DeliveryNotFound
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import insert_missing
from bellwire.registry.db.tables import deliveries, listed, subscriptions
from bellwire.subscriptions import Channel

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
