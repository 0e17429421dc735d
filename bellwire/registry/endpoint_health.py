"""Faring: what attempts say about their receivers, and what follows for the subscriptions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import MAX_REASON, Attempt, OutcomeKind
from bellwire.endpoint_health import DisablePolicy, EndpointHealth
from bellwire.events import Event
from bellwire.registry import operational_events
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.tables import subscriptions
from bellwire.registry.endpoint_health_columns import ATTEMPT_COLUMNS, COLUMNS, health_of
from bellwire.registry.operational_events import OperationalEvent, news
from bellwire.registry.subscriptions import set_state
from bellwire.subscriptions import SubscriptionState

#: Subscriptions in one query.
_PER_QUERY = 2_000

# Made once, since making a statement costs more than running it.
_LOCKED = (
    select(subscriptions.c.id, subscriptions.c.tenant, subscriptions.c.channel, subscriptions.c.state, *COLUMNS)
    .where(subscriptions.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(subscriptions.c.id)
    .with_for_update(key_share=True)  # new deliveries refer to the row meanwhile, and need not wait
)
_HEALTH_UPDATED = (
    update(subscriptions)
    .where(subscriptions.c.id == bindparam("name"))
    .values({column.name: bindparam(f"new_{column.name}", type_=column.type) for column in ATTEMPT_COLUMNS})
)


async def record_health(connection: AsyncConnection, made: Sequence[Attempt], disable_policy: DisablePolicy) -> None:
    """Write what these attempts say about their receivers, disable what is gone or has failed for too long, and note what
    tenants are to be told.

    Successes of subscriptions that were well cost nothing. Rows are locked after those of deliveries, in order of their ids.
    """
    if not any(map(_matters, made)):
        return
    of: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in made:
        of[attempt.subscription_id].append(attempt)
    concerned = sorted(name for name, attempts in of.items() if any(map(_matters, attempts)))
    for start in range(0, len(concerned), _PER_QUERY):
        rows = await connection.execute(_LOCKED, {"ids": concerned[start : start + _PER_QUERY]})
        changed, told = list[dict[str, Any]](), list[Event]()
        for row in rows.mappings().all():
            before, attempts = health_of(row), sorted(of[row["id"]], key=lambda attempt: attempt.ended_at)
            after = _after(before, attempts)
            now = attempts[-1].ended_at
            if reason := _why_disabled(row["state"], after, attempts, disable_policy):
                await set_state(connection, row["id"], SubscriptionState.DISABLED, reason=reason)
                told.append(_told(OperationalEvent.DISABLED, row, after, reason, now))
            elif (passed := disable_policy.warnings(after, now)) > after.warnings and row[
                "state"
            ] == SubscriptionState.ACTIVE:
                after = replace(after, warnings=passed)
                told.append(_told(OperationalEvent.FAILING, row, after, _last_failure(attempts), now))
            if after != before:
                changed.append({"name": row["id"], **_values(after)})
        await execute_many(connection, _HEALTH_UPDATED, changed)
        await operational_events.add(connection, told)


def _matters(attempt: Attempt) -> bool:
    if attempt.outcome.kind is OutcomeKind.DELIVERED:
        return attempt.degraded or attempt.outcome.disable
    return attempt.outcome.throttle or attempt.outcome.disable or _counts(attempt)


def _counts(attempt: Attempt) -> bool:
    """Whether it is a failure of the receiver's. An answer that was lost is neither a failure nor a success."""
    return attempt.outcome.kind in {OutcomeKind.REJECTED, OutcomeKind.DEFERRED} and not attempt.outcome.ours


def _after(health: EndpointHealth, attempts: Iterable[Attempt]) -> EndpointHealth:
    for attempt in attempts:
        if attempt.outcome.kind is OutcomeKind.DELIVERED:
            health = health.succeeded(attempt.started_at)
            continue
        if attempt.outcome.throttle:
            retry_after = attempt.outcome.retry_after
            health = health.throttled(attempt.started_at, attempt.ended_at, retry_after=retry_after)
        if _counts(attempt):
            health = health.failed(attempt.ended_at)
    return health


def _why_disabled(
    state: str, health: EndpointHealth, attempts: Sequence[Attempt], disable_policy: DisablePolicy
) -> str | None:
    """Why a subscription is to be disabled now; None if it is not, or is already."""
    if state == SubscriptionState.DISABLED:
        return None
    if gone := [attempt.outcome.reason for attempt in attempts if attempt.outcome.disable]:
        return gone[0]
    if state != SubscriptionState.ACTIVE or not disable_policy.should_disable(health, attempts[-1].ended_at):
        return None
    since = f"{health.failing_since:%Y-%m-%d %H:%M} UTC"
    return f"{health.failures} failures and no success since {since}; last {_last_failure(attempts)}"[:MAX_REASON]


def _last_failure(attempts: Sequence[Attempt]) -> str:
    return [attempt.outcome.reason for attempt in attempts if _counts(attempt)][-1]


def _told(kind: OperationalEvent, row: Mapping[Any, Any], health: EndpointHealth, reason: str, now: datetime) -> Event:
    return news(
        kind,
        row["id"],
        tenant=row["tenant"],
        channel=row["channel"],
        reason=reason,
        health=health,
        now=now,
    )


def _values(health: EndpointHealth) -> dict[str, Any]:
    """As columns."""
    return {f"new_{column.name}": getattr(health, column.name) or None for column in ATTEMPT_COLUMNS}
