"""Endpoint health, as columns of a subscription's row, and how recorded attempts change it.

All of these columns are null while an endpoint is healthy, so that successes cost nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import MAX_REASON, Attempt, OutcomeKind
from bellwire.endpoint_health import HEALTHY, Consent, DisablePolicy, EndpointHealth
from bellwire.events import Event
from bellwire.registry import operational_events
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.tables import subscriptions
from bellwire.registry.operational_events import OperationalEvent
from bellwire.subscriptions import SubscriptionState

#: Subscriptions in one query.
_PER_QUERY = 2_000

#: The columns that recording attempts updates.
_ATTEMPT_COLUMNS = (
    subscriptions.c.throttled_until,
    subscriptions.c.throttles,
    subscriptions.c.failing_since,
    subscriptions.c.failures,
    subscriptions.c.warnings,
)
COLUMNS = (*_ATTEMPT_COLUMNS, subscriptions.c.consent, subscriptions.c.consented_at, subscriptions.c.consented_rate)
#: The values that a subscription gets when it is activated, and when its address changes.
HEALTHY_VALUES = {column.name: None for column in _ATTEMPT_COLUMNS}
UNKNOWN_VALUES = {column.name: None for column in COLUMNS}

# Built once, since building a statement costs more than executing it.
_LOCKED = (
    select(
        subscriptions.c.id,
        subscriptions.c.tenant,
        subscriptions.c.channel,
        subscriptions.c.state,
        subscriptions.c.address_version,
        *COLUMNS,
    )
    .where(subscriptions.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(subscriptions.c.id)
    .with_for_update(key_share=True)  # inserting deliveries, which refer to the row, need not wait
)
_UPDATED = (
    update(subscriptions)
    .where(subscriptions.c.id == bindparam("name"))
    .values({column.name: bindparam(f"new_{column.name}", type_=column.type) for column in _ATTEMPT_COLUMNS})
)


def health_of(row: Mapping[Any, Any]) -> EndpointHealth:
    """Return the health that a row with COLUMNS holds."""
    if row["throttled_until"] is None and row["failing_since"] is None and row["consent"] is None:
        return HEALTHY
    consent = None
    if row["consent"] is not None:
        consent = Consent(row["consent"], row["consented_at"], row["consented_rate"])
    return EndpointHealth(
        throttled_until=row["throttled_until"],
        throttles=row["throttles"] or 0,
        failing_since=row["failing_since"],
        failures=row["failures"] or 0,
        warnings=row["warnings"] or 0,
        consent=consent,
    )


async def set_consent(connection: AsyncConnection, subscription_id: str, consent: Consent) -> None:
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id)
        .values(consent=consent.given_for, consented_at=consent.given_at, consented_rate=consent.rate)
    )


async def record_health(
    connection: AsyncConnection, recorded: Sequence[Attempt], policy: DisablePolicy
) -> dict[str, str]:
    """Update the health of the endpoints of these attempts and add operational events for their tenants.

    Returns why subscriptions are to be disabled, by id; their rows are locked. Successes on healthy endpoints cost nothing.
    Locks rows after those of deliveries, ordered by id.
    """
    attempts_by_subscription: dict[str, list[Attempt]] = defaultdict(list)
    if not any(map(_matters, recorded)):
        return {}
    for attempt in recorded:
        attempts_by_subscription[attempt.subscription_id].append(attempt)
    affected = sorted(name for name, attempts in attempts_by_subscription.items() if any(map(_matters, attempts)))
    disabled: dict[str, str] = {}
    for start in range(0, len(affected), _PER_QUERY):
        rows = await connection.execute(_LOCKED, {"ids": affected[start : start + _PER_QUERY]})
        changed, events = list[dict[str, Any]](), list[Event]()
        for row in rows.mappings().all():
            attempts = sorted(
                (each for each in attempts_by_subscription[row["id"]] if _is_at_address(each, row["address_version"])),
                key=lambda attempt: attempt.ended_at,
            )
            if not attempts:
                continue
            before, now = health_of(row), attempts[-1].ended_at
            after = _after(before, attempts)
            if reason := _reason_to_disable(row["state"], after, attempts, policy):
                disabled[row["id"]] = reason
                events.append(_event(OperationalEvent.DISABLED, row, after, reason, now))
            elif row["state"] == SubscriptionState.ACTIVE and (due := policy.warnings(after, now)) > after.warnings:
                after = replace(after, warnings=due)
                events.append(_event(OperationalEvent.FAILING, row, after, _last_failure(attempts), now))
            if after != before:
                changed.append({"name": row["id"], **_values(after)})
        await execute_many(connection, _UPDATED, changed)
        await operational_events.add(connection, events)
    return disabled


def _matters(attempt: Attempt) -> bool:
    if attempt.outcome.kind is OutcomeKind.DELIVERED:
        return attempt.degraded or attempt.outcome.disable
    return attempt.outcome.throttle or attempt.outcome.disable or _is_failure(attempt)


def _is_at_address(attempt: Attempt, address_version: int | None) -> bool:
    """Whether it was made at the present address of the subscription, and not before an update changed that."""
    version = attempt.subscription_version
    return version is None or address_version is None or version >= address_version


def _is_failure(attempt: Attempt) -> bool:
    """Whether it counts as a failure of the endpoint. An unknown outcome counts neither as a failure nor as a success."""
    outcome = attempt.outcome
    return outcome.kind in {OutcomeKind.REJECTED, OutcomeKind.DEFERRED} and outcome.fault.counts_against_endpoint


def _after(health: EndpointHealth, attempts: Iterable[Attempt]) -> EndpointHealth:
    for attempt in attempts:
        if attempt.outcome.kind is OutcomeKind.DELIVERED:
            health = health.after_success(attempt.started_at)
            continue
        if attempt.outcome.throttle:
            retry_after = attempt.outcome.retry_after
            health = health.after_throttling(attempt.started_at, attempt.ended_at, retry_after=retry_after)
        if _is_failure(attempt):
            health = health.after_failure(attempt.ended_at)
    return health


def _reason_to_disable(
    state: str, health: EndpointHealth, attempts: Sequence[Attempt], policy: DisablePolicy
) -> str | None:
    """Why the subscription is to be disabled now; None if it is not, or already was."""
    if state == SubscriptionState.DISABLED:
        return None
    if reasons := [attempt.outcome.reason for attempt in attempts if attempt.outcome.disable]:
        return reasons[0]
    if state != SubscriptionState.ACTIVE or not policy.should_disable(health, attempts[-1].ended_at):
        return None
    since = f"{health.failing_since:%Y-%m-%d %H:%M} UTC"
    return f"{health.failures} failures and no success since {since}; last {_last_failure(attempts)}"[:MAX_REASON]


def _last_failure(attempts: Sequence[Attempt]) -> str:
    return [attempt.outcome.reason for attempt in attempts if _is_failure(attempt)][-1]


def _event(kind: OperationalEvent, row: Mapping[Any, Any], health: EndpointHealth, reason: str, now: datetime) -> Event:
    return operational_events.event_of(
        kind, row["id"], tenant=row["tenant"], channel=row["channel"], reason=reason, health=health, now=now
    )


def _values(health: EndpointHealth) -> dict[str, Any]:
    """The columns as bind parameters."""
    return {f"new_{column.name}": getattr(health, column.name) or None for column in _ATTEMPT_COLUMNS}
