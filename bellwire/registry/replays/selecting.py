"""What a replay selects next."""

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group, ReplayCursor
from bellwire.deliveries import DeliveryKey, DeliveryState
from bellwire.registry import redeliverable
from bellwire.registry.redeliverable import Redeliverable
from bellwire.registry.replays import past_events
from bellwire.registry.replays.past_events import Place
from bellwire.replays import Replay, ReplayKind
from bellwire.subscriptions import Subscription


class Selection(NamedTuple):
    """The next deliveries of a replay."""

    groups: tuple[Group, ...]
    #: Where the next selection begins.
    cursor: ReplayCursor | None
    #: Whether none follow.
    ended: bool

    @property
    def size(self) -> int:
        return sum(len(group.subscription_ids) for group in self.groups)


async def select_next(
    connection: AsyncConnection, replay: Replay, subscription: Subscription, *, after: ReplayCursor | None, limit: int
) -> Selection:
    """Up to `limit` deliveries. There may be fewer, and more follow."""
    if replay.kind is ReplayKind.EVENTS:
        return await _past_events(connection, replay, subscription, after=after, limit=limit)
    return await _settled(connection, replay, after=after, limit=limit)


async def _past_events(
    connection: AsyncConnection, replay: Replay, subscription: Subscription, *, after: ReplayCursor | None, limit: int
) -> Selection:
    place = Place(after.stored_at, after.event_key) if after and after.stored_at else None
    found = await past_events.page(
        connection,
        subscription,
        types=replay.types,
        since=replay.since,
        until=replay.until,
        after=place,
        limit=limit,
    )
    reached = found.reached
    cursor = after if reached is None else ReplayCursor(stored_at=reached.stored_at, event_key=reached.event_key)
    groups = [
        Group(event_key=key, channel=subscription.channel, subscription_ids=(subscription.id,)) for key in found.keys
    ]
    return Selection(tuple(groups), cursor, found.ended)


async def _settled(connection: AsyncConnection, replay: Replay, *, after: ReplayCursor | None, limit: int) -> Selection:
    """One state after the other, and within a state by key."""
    states = [*dict.fromkeys(replay.states)]
    current = after.state if after and after.state in states else states[0]
    key = DeliveryKey(after.event_key, replay.subscription_id) if after and after.event_key else None
    while True:
        page = await redeliverable.page(
            connection,
            current,
            subscription_id=replay.subscription_id,
            event_key=replay.event_key,
            tenant=None,
            channel=None,
            types=replay.types,
            since=replay.since,
            until=replay.until,
            after=key,
            limit=limit,
        )
        if page:
            groups = tuple(map(_group, page))
            return Selection(groups, ReplayCursor(state=current, event_key=page[-1].key.event_key), ended=False)
        if current is states[-1]:
            return Selection((), after, ended=True)
        current, key = states[states.index(current) + 1], None


def _group(found: Redeliverable) -> Group:
    return Group(
        event_key=found.key.event_key,
        channel=found.channel,
        subscription_ids=(found.key.subscription_id,),
        attempt=found.attempts + 1,
    )


#: The states of deliveries that a replay of failed ones selects, unless it names some.
FAILED_STATES = (DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED)
