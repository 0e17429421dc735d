"""Settling deliveries that will not be attempted, and opening settled ones again."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import Delivery, DeliveryState
from bellwire.registry.db.tables import deliveries
from bellwire.registry.deliveries import among, by_pairs, pairs_of
from bellwire.subscriptions import Channel


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


async def reopen(
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
