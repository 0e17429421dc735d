"""Attempts: rows, their effect on deliveries, and the resource `registry.attempts`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Integer, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import (
    SETTLED,
    Attempt,
    DeliveryKey,
    DeliveryState,
    Outcome,
    OutcomeKind,
    parse_delivery_id,
)
from bellwire.endpoint_health import DisablePolicy
from bellwire.exchanges import pack, unpack
from bellwire.registry import deliveries as delivery_rows
from bellwire.registry import events, operational_events, subscriptions, suppressions
from bellwire.registry.api import event_types, feeds
from bellwire.registry.attempt_batcher import AttemptBatcher
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import attempts, deliveries
from bellwire.registry.delivery_keys import keys_of
from bellwire.registry.endpoint_health import record_health
from bellwire.registry.providers.replacing import NOTHING, replaced_messages
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState

#: Selects one delivery, unless it is settled or this attempt is already recorded.
_OPEN = (
    deliveries.c.event_key == bindparam("key"),
    deliveries.c.subscription_id == bindparam("name"),
    *(deliveries.c.state != str(state) for state in sorted(SETTLED)),  # bulk statements cannot expand NOT IN
    deliveries.c.attempts < bindparam("number"),
)
_RECORDED = (
    update(deliveries)
    .where(*_OPEN)
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("number"),
        schedule_from=deliveries.c.schedule_from + bindparam("uncounted", type_=Integer),
        reason=bindparam("new_reason"),
        delay=bindparam("new_delay"),
        from_retry_after=bindparam("new_from_retry_after"),
        remaining_recipients=bindparam("new_remaining_recipients"),
        provider_id=bindparam("new_provider_id"),
        # The intent stays until the outcome is known: the SMS may have been sent.
        intent_at=case((bindparam("is_unknown", type_=Boolean), deliveries.c.intent_at), else_=None),
        # The next attempt gets a reservation of its own.
        not_before=None,
        updated_at=bindparam("now"),
    )
)


async def load(connection: AsyncConnection, groups: Sequence[Group]) -> list[SendRequest]:
    loaded_at = datetime.now(UTC)
    found = await delivery_rows.by_keys(connection, keys_of(groups))
    stored = await events.by_keys(connection, (key.event_key for key in found))
    contexts = await subscriptions.by_ids(connection, (key.subscription_id for key in found))
    suppressed = await suppressions.of_subscriptions(connection, (each.subscription for each in contexts.values()))
    schedules = await event_types.schedules(connection, (event.type for event, _ in stored.values()))
    replacing = await replaced_messages(connection, found.values(), {key: event for key, (event, _) in stored.items()})
    requests = []
    for group in groups:
        for subscription_id in group.subscription_ids:
            delivery = found.get(DeliveryKey(group.event_key, subscription_id))
            if delivery is not None and group.event_key in stored and subscription_id in contexts:
                subscription, secrets, health = contexts[subscription_id]
                event, event_json = stored[group.event_key]
                replaced = replacing.get(delivery.key, NOTHING)
                requests.append(
                    SendRequest(
                        delivery=delivery,
                        events=(event,),
                        events_json=(event_json,),
                        subscription=subscription,
                        number=group.attempt,
                        extra=group.extra,
                        type_schedule=schedules.get(event.type),
                        secrets=secrets,
                        suppressed=suppressed.get(subscription_id, {}),
                        health=health,
                        loaded_at=loaded_at,
                        replaced_id=replaced.message_id,
                        outdated=replaced.outdated,
                    )
                )
    return requests


async def record_intent(connection: AsyncConnection, requests: Sequence[SendRequest]) -> None:
    # `updated_at` stays as it is: nothing is sent before `claim`, which compares it.
    # An earlier intent without an outcome stays too, with its provider: the SMS is reconciled there.
    provider = case((deliveries.c.intent_at.is_not(None), deliveries.c.provider_attempted), else_=None)
    since = func.coalesce(deliveries.c.intent_at, datetime.now(UTC))
    await _mark_sending(connection, requests, since=since, provider_attempted=provider)


async def lease(connection: AsyncConnection, requests: Sequence[SendRequest]) -> None:
    await _mark_sending(connection, requests, since=datetime.now(UTC))


async def _mark_sending(
    connection: AsyncConnection,
    requests: Sequence[SendRequest],
    *,
    since: datetime | ColumnElement[datetime],
    **values: ColumnElement[str | None],
) -> None:
    statement = update(deliveries).where(*_OPEN).values(state=str(DeliveryState.SENDING), intent_at=since, **values)
    rows = [{"key": key, "name": name, "number": number} for key, name, number in sorted(one.key for one in requests)]
    if rows:
        await connection.execute(statement, rows)


async def touch(connection: AsyncConnection, request: SendRequest) -> None:
    event_key, subscription_id, _ = request.key
    delivery = (deliveries.c.event_key == event_key, deliveries.c.subscription_id == subscription_id)
    await connection.execute(update(deliveries).where(*delivery).values(updated_at=datetime.now(UTC)))


async def claim(connection: AsyncConnection, request: SendRequest, *, provider: str | None = None) -> datetime | None:
    now = datetime.now(UTC)
    statement = (
        update(deliveries)
        .where(*_OPEN, deliveries.c.updated_at == request.delivery.updated_at)
        .values(
            state=str(DeliveryState.SENDING),
            intent_at=func.coalesce(deliveries.c.intent_at, now),
            provider_attempted=provider and f"{provider}/{request.number}",
            updated_at=now,
        )
    )
    event_key, subscription_id, number = request.key
    claimed = await connection.execute(statement, {"key": event_key, "name": subscription_id, "number": number})
    return now if claimed.rowcount == 1 else None


async def record(connection: AsyncConnection, recorded: Sequence[Attempt], policy: DisablePolicy) -> None:
    """Insert attempts, update their deliveries, suppress addresses, and update the health of endpoints.

    An attempt that is already recorded, or that ends after its delivery settled, does not change the delivery. Rows are
    written in one order by all workers, so that two never deadlock.
    """
    ordered = sorted(recorded, key=lambda attempt: (attempt.event_key, attempt.subscription_id, attempt.number))
    if not ordered:
        return
    now = datetime.now(UTC)
    await _report_exhausted(connection, [each for each in ordered if each.state is DeliveryState.EXHAUSTED])
    await execute_many(connection, _RECORDED, [{**_change(attempt), "now": now} for attempt in ordered])
    await execute_many(connection, insert_missing(connection, attempts), [_row(attempt) for attempt in ordered])
    await suppressions.add(connection, *(each for attempt in ordered for each in attempt.outcome.suppress))
    disabled = await record_health(connection, ordered, policy)
    for subscription_id, reason in disabled.items():
        await subscriptions.set_state(connection, subscription_id, SubscriptionState.DISABLED, reason=reason)
    # Last, since it locks feeds, which others then wait for.
    await feeds.place(connection, [attempt for attempt in ordered if attempt.outcome.to_feed], at=now)


async def _report_exhausted(connection: AsyncConnection, exhausted: Sequence[Attempt]) -> None:
    """Add an operational event for each delivery that one of these attempts is about to move to exhausted."""
    if not exhausted:
        return
    by_key = {DeliveryKey(attempt.event_key, attempt.subscription_id): attempt for attempt in exhausted}
    found = await delivery_rows.by_keys(connection, sorted(by_key), lock=True)
    moved = {
        key: delivery
        for key, delivery in found.items()
        if not delivery.state.settled and delivery.attempts < by_key[key].number
    }
    stored = await events.by_keys(connection, (key.event_key for key in moved))
    tenants = await subscriptions.tenants_of(connection, (key.subscription_id for key in moved))
    await operational_events.add(
        connection,
        [
            operational_events.exhausted_event(
                delivery, stored[key.event_key][0], tenant=tenants[key.subscription_id], last=by_key[key]
            )
            for key, delivery in moved.items()
            # No event about an operational event, or one could follow another without end.
            if stored[key.event_key][0].source != operational_events.SOURCE
        ],
    )


async def list_(connection: AsyncConnection, event_key: str, *, subscription_id: str | None) -> list[Attempt]:
    query = select(attempts).where(attempts.c.event_key == event_key)
    if subscription_id is not None:
        query = query.where(attempts.c.subscription_id == subscription_id)
    rows = await connection.execute(query.order_by(attempts.c.subscription_id, attempts.c.number))
    return [Attempt.model_validate({**row, "outcome": _outcome(row)}) for row in rows.mappings()]


def _outcome(row: Mapping[Any, Any]) -> Outcome:
    outcome = Outcome.model_validate_json(row["outcome"])
    exchanges = unpack(row["exchanges"])
    return outcome.model_copy(update={"exchanges": exchanges}) if exchanges else outcome


async def claimed_provider_ids(connection: AsyncConnection, provider_ids: Iterable[str]) -> set[str]:
    query = select(attempts.c.provider_id).where(attempts.c.provider_id.in_(sorted(set(provider_ids))))
    return {row.provider_id for row in await connection.execute(query)}


async def by_provider_ids(connection: AsyncConnection, provider_ids: Iterable[str]) -> dict[str, list[DeliveryKey]]:
    query = select(attempts.c.provider_id, attempts.c.event_key, attempts.c.subscription_id).where(
        attempts.c.provider_id.in_(sorted(set(provider_ids)))
    )
    found: dict[str, list[DeliveryKey]] = {}
    for row in await connection.execute(query.distinct()):
        found.setdefault(row.provider_id, []).append(DeliveryKey(row.event_key, row.subscription_id))
    return found


async def ended_at(connection: AsyncConnection, delivery_id: str, number: int) -> datetime | None:
    key = parse_delivery_id(delivery_id)
    if key is None:
        return None
    query = select(attempts.c.started_at, attempts.c.duration).where(
        attempts.c.event_key == key.event_key,
        attempts.c.subscription_id == key.subscription_id,
        attempts.c.number == number,
    )
    row = (await connection.execute(query)).first()
    return None if row is None else row.started_at + timedelta(seconds=row.duration)


def _change(attempt: Attempt) -> dict[str, object]:
    outcome = attempt.outcome
    remaining = outcome.remaining_recipients
    return {
        "key": attempt.event_key,
        "name": attempt.subscription_id,
        "number": attempt.number,
        "uncounted": int(attempt.extra),
        "new_state": str(attempt.state),
        "new_reason": outcome.reason,
        "new_delay": attempt.delay,
        "new_from_retry_after": attempt.from_retry_after,
        "new_remaining_recipients": None if remaining is None else json.dumps(remaining),
        "new_provider_id": outcome.provider_id,
        "is_unknown": outcome.kind is OutcomeKind.UNKNOWN,
    }


def _row(attempt: Attempt) -> dict[str, object]:
    return {
        "event_key": attempt.event_key,
        "subscription_id": attempt.subscription_id,
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration": attempt.duration,
        "state": str(attempt.state),
        "delay": attempt.delay,
        "from_retry_after": attempt.from_retry_after,
        "outcome": attempt.outcome.model_dump_json(),
        "provider_id": attempt.outcome.provider_id if attempt.receipts else None,
        "exchanges": pack(attempt.outcome.exchanges),
    }


class Attempts:
    """The resource `registry.attempts`."""

    def __init__(self, database: Database, policy: DisablePolicy) -> None:
        self._database = database
        self._batcher = AttemptBatcher(lambda attempts: database.write(record, attempts, policy))

    async def close(self) -> None:
        """Wait until the attempts that are being written are written."""
        await self._batcher.close()

    async def load(self, groups: Sequence[Group]) -> Sequence[SendRequest]:
        """Return what is needed to attempt each delivery, in the order of the groups; deleted ones are left out."""
        return await self._database.read(load, groups)

    async def record_intent(self, requests: Sequence[SendRequest]) -> None:
        """Record that these attempts, which must not be repeated, are about to be made, unless they are recorded."""
        await self._database.write(record_intent, requests)

    async def lease(self, requests: Sequence[SendRequest]) -> None:
        """Record or renew that this process is making these attempts; other processes read it by `Delivery.leased`."""
        await self._database.write(lease, requests)

    async def probe(self, request: SendRequest) -> None:
        """Write to a delivery's row, to find out before anything is sent whether the registry accepts writes."""
        await self._database.write(touch, request)

    async def claim(self, request: SendRequest, *, provider: str | None = None) -> datetime | None:
        """Claim one attempt just before it is submitted to `provider`; return the new `updated_at` of the delivery.

        Returns None if the delivery has changed since it was loaded: of several workers that loaded the same row, such as
        one that was thought dead, only one gets the claim.
        """
        return await self._database.write(claim, request, provider=provider)

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Record attempts and update their deliveries. A settled delivery stays settled.

        Disables subscriptions whose target is gone, or that have failed for too long.
        """
        await self._batcher.record(attempts)

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        """Return those of the providers' ids that some attempt is recorded with."""
        return await self._database.read(claimed_provider_ids, provider_ids)

    async def by_provider_ids(self, provider_ids: Sequence[str]) -> Mapping[str, Sequence[DeliveryKey]]:
        """Return the deliveries that each of the providers' ids is recorded with; others are left out.

        Providers, and accounts with one, may count their messages by the same numbers.
        """
        return await self._database.read(by_provider_ids, provider_ids)

    async def ended_at(self, delivery_id: str, number: int) -> datetime | None:
        """Return when an attempt ended; None if it is not recorded."""
        return await self._database.read(ended_at, delivery_id, number)

    async def list(self, event_key: str, subscription_id: str | None = None) -> Sequence[Attempt]:
        """Return the attempts of an event, or of one of its deliveries, by subscription and number."""
        return await self._database.read(list_, event_key, subscription_id=subscription_id)
