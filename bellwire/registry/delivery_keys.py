"""Delivery keys: the primary keys of deliveries, the groups that workflows name them by, and conditions that select them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from sqlalchemy import ColumnElement, and_, or_

from bellwire.contract import Group
from bellwire.deliveries import Delivery, DeliveryKey
from bellwire.registry.db.tables import deliveries
from bellwire.targets import Channel

#: Deliveries, and events that they belong to, in one query. SQLite's expressions are at most 1,000 deep.
_PER_QUERY = 2_000
_EVENTS_PER_QUERY = 100


def channels_by_key(groups: Sequence[Group]) -> dict[DeliveryKey, Channel]:
    return {
        DeliveryKey(group.event_key, subscription_id): group.channel
        for group in groups
        for subscription_id in group.subscription_ids
    }


def attempts_by_key(groups: Sequence[Group]) -> dict[DeliveryKey, int]:
    """Return the number of the next attempt that each group names."""
    return {
        DeliveryKey(group.event_key, subscription_id): group.attempt
        for group in groups
        for subscription_id in group.subscription_ids
    }


def keys_of(groups: Sequence[Group]) -> list[DeliveryKey]:
    """Return each delivery of the groups once, in the order in which all writers lock rows."""
    return sorted(channels_by_key(groups))


def grouped(deliveries: Sequence[Delivery]) -> tuple[Group, ...]:
    """Return the deliveries as groups, each with the number of the next attempt."""
    groups: dict[tuple[str, Channel, int], list[str]] = defaultdict(list)
    for delivery in deliveries:
        groups[delivery.event_key, delivery.channel, delivery.attempts + 1].append(delivery.subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(ids), attempt=attempt)
        for (event_key, channel, attempt), ids in groups.items()
    )


def without(groups: Sequence[Group], keys: Collection[DeliveryKey]) -> tuple[Group, ...]:
    """Return the groups without these deliveries, in the same order."""
    remaining = []
    for group in groups:
        ids = tuple(each for each in group.subscription_ids if (group.event_key, each) not in keys)
        if ids:
            remaining.append(group.model_copy(update={"subscription_ids": ids}))
    return tuple(remaining)


def conditions(keys: Sequence[DeliveryKey]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together select the rows of `keys`, which are sorted; few queries of bounded size.

    Each event is one range of the primary key: two to five times faster, on both databases, than (a, b) IN (…).
    """
    by_event: dict[str, list[str]] = defaultdict(list)
    size = 0
    for event_key, subscription_id in keys:
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
