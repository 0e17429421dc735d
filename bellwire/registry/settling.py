"""Settling deliveries that will not be attempted, and opening settled ones again."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import SETTLED, Delivery, DeliveryState
from bellwire.registry.deliveries import among, by_pairs, pairs_of
from bellwire.registry.tables import deliveries
from bellwire.subscriptions import Channel


async def settle(
    connection: AsyncConnection, groups: Sequence[Group], *, reason: str
) -> dict[str, dict[DeliveryState, int]]:
    """Cancel what is not settled; how many of all the deliveries stand in which settled state, by event key."""
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
                stated=False,
                intent_at=None,
                updated_at=datetime.now(UTC),
            )
        )
    settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
    for (event_key, _), delivery in found.items():
        settled[event_key][delivery.state if delivery.state.settled else DeliveryState.CANCELLED] += 1
    return {event_key: dict(states) for event_key, states in settled.items()}


async def reopen(connection: AsyncConnection, workflow_id: str, groups: Sequence[Group]) -> tuple[Group, ...]:
    """Make settled deliveries pending again, held by `workflow_id`, each with its schedule begun afresh.

    What is not settled is left out, except what an earlier try of the same run has opened. Addresses that are still
    owed a mail stay so: those that have it do not get it twice.
    """
    found = await by_pairs(connection, pairs_of(groups), lock=True)
    settled = sorted(pair for pair, delivery in found.items() if delivery.state in SETTLED)
    if settled:
        await connection.execute(
            update(deliveries)
            .where(
                deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("subscription")
            )
            .values(
                state=str(DeliveryState.PENDING),
                schedule_from=deliveries.c.attempts,
                delay=None,
                stated=False,
                intent_at=None,
                workflow_id=workflow_id,
                updated_at=datetime.now(UTC),
            ),
            [{"key": key, "subscription": subscription_id} for key, subscription_id in settled],
        )
    return grouped([delivery for _, delivery in sorted(found.items()) if _is_opened(delivery, workflow_id)])


def _is_opened(delivery: Delivery, workflow_id: str) -> bool:
    """Whether `delivery`, as it was before, is open in this run now."""
    mine = delivery.state is DeliveryState.PENDING and delivery.workflow_id == workflow_id
    return delivery.state.settled or mine


def grouped(found: Sequence[Delivery]) -> tuple[Group, ...]:
    """The deliveries as groups, each with the number of its next attempt."""
    groups: dict[tuple[str, Channel, int], list[str]] = defaultdict(list)
    for delivery in found:
        groups[delivery.event_key, delivery.channel, delivery.attempts + 1].append(delivery.subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(ids), attempt=attempt)
        for (event_key, channel, attempt), ids in groups.items()
    )
