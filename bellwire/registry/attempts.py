"""Attempts, as rows, and what each one makes of its delivery and its subscription."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import Boolean, ColumnElement, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import SETTLED, Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import DisablePolicy
from bellwire.registry import deliveries as rows_of
from bellwire.registry import events, subscriptions, suppressions
from bellwire.registry.attempt_batcher import AttemptBatcher
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import attempts, deliveries
from bellwire.registry.endpoint_health import record_health
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState

#: One delivery, so long as it is not settled and the attempt in question is not recorded.
_OPEN = (
    deliveries.c.event_key == bindparam("key"),
    deliveries.c.subscription_id == bindparam("subscription"),
    *(deliveries.c.state != str(state) for state in sorted(SETTLED)),  # NOT IN does not go with many rows at once
    deliveries.c.attempts < bindparam("number"),
)
_MOVED = (
    update(deliveries)
    .where(*_OPEN)
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("number"),
        reason=bindparam("new_reason"),
        delay=bindparam("new_delay"),
        from_retry_after=bindparam("new_from_retry_after"),
        remaining_recipients=bindparam("new_remaining_recipients"),
        provider_id=bindparam("new_provider_id"),
        # Until the outcome is known, what was announced may have been sent.
        intent_at=case((bindparam("is_unknown", type_=Boolean), deliveries.c.intent_at), else_=None),
        # The next attempt, if there is one, takes a slot of its own.
        not_before=None,
        updated_at=bindparam("now"),
    )
)


async def load(connection: AsyncConnection, groups: Sequence[Group]) -> list[SendRequest]:
    """What is needed to attempt each delivery now, in the order of the groups; what no longer exists is left out."""
    found = await rows_of.by_pairs(connection, rows_of.pairs_of(groups))
    happened = await events.by_keys(connection, (key for key, _ in found))
    wishes = await subscriptions.by_ids(connection, (subscription_id for _, subscription_id in found))
    unwanted = await suppressions.of_subscriptions(connection, (wish for wish, _, _ in wishes.values()))
    requests = []
    for group in groups:
        for subscription_id in group.subscription_ids:
            delivery = found.get((group.event_key, subscription_id))
            if delivery is not None and group.event_key in happened and subscription_id in wishes:
                wish, secrets, health = wishes[subscription_id]
                event, event_json = happened[group.event_key]
                requests.append(
                    SendRequest(
                        delivery=delivery,
                        events=(event,),
                        events_json=(event_json,),
                        subscription=wish,
                        number=group.attempt,
                        secrets=secrets,
                        suppressed=unwanted.get(subscription_id, {}),
                        health=health,
                    )
                )
    return requests


async def record_intent(connection: AsyncConnection, requests: Sequence[SendRequest]) -> None:
    """Note that these attempts are about to be made, where they have not been recorded already.

    `updated_at` stays: until `announce`, nothing has been sent, and whoever has read the same rows may still send.
    """
    # An earlier intent that was never answered for stays: what it sent is looked for from then on, where it was asked for.
    still = case((deliveries.c.intent_at.is_not(None), deliveries.c.provider_attempted), else_=None)
    since = func.coalesce(deliveries.c.intent_at, datetime.now(UTC))
    await _mark_sending(connection, requests, since=since, provider_attempted=still)


async def lease(connection: AsyncConnection, requests: Sequence[SendRequest]) -> None:
    """Note that these attempts are under way now, where they have not been recorded already."""
    await _mark_sending(connection, requests, since=datetime.now(UTC))


async def _mark_sending(
    connection: AsyncConnection,
    requests: Sequence[SendRequest],
    *,
    since: datetime | ColumnElement[datetime],
    **more: ColumnElement[str | None],
) -> None:
    marked = update(deliveries).where(*_OPEN).values(state=str(DeliveryState.SENDING), intent_at=since, **more)
    rows = sorted((request.delivery.event_key, request.subscription.id, request.number) for request in requests)
    if rows:
        await connection.execute(
            marked, [{"key": key, "subscription": wish, "number": number} for key, wish, number in rows]
        )


async def touch(connection: AsyncConnection, request: SendRequest) -> None:
    """Write that the delivery was looked at."""
    this = (
        deliveries.c.event_key == request.delivery.event_key,
        deliveries.c.subscription_id == request.subscription.id,
    )
    await connection.execute(update(deliveries).where(*this).values(updated_at=datetime.now(UTC)))


async def claim_attempt(
    connection: AsyncConnection, request: SendRequest, *, provider: str | None = None
) -> datetime | None:
    """Note that this attempt is made now, by `provider`; None if anybody has touched the delivery since it was read.

    Of several workers that have read the same row, one that was taken for dead among them, only one hears the moment that
    the row bears from now on.
    """
    now = datetime.now(UTC)
    mine = (
        update(deliveries)
        .where(*_OPEN, deliveries.c.updated_at == request.delivery.updated_at)
        .values(
            state=str(DeliveryState.SENDING),
            intent_at=func.coalesce(deliveries.c.intent_at, now),
            provider_attempted=provider and f"{provider}/{request.number}",
            updated_at=now,
        )
    )
    made = await connection.execute(
        mine, {"key": request.delivery.event_key, "subscription": request.subscription.id, "number": request.number}
    )
    return now if made.rowcount == 1 else None


async def record(connection: AsyncConnection, made: Sequence[Attempt], disable_policy: DisablePolicy) -> None:
    """Insert attempts, move their deliveries on, and note how the receivers fare. One that is on record, or comes after
    settling, moves no delivery.

    Rows are written in one order for all, or two workers could wait for each other.
    """
    ordered = sorted(made, key=lambda attempt: (attempt.event_key, attempt.subscription_id, attempt.number))
    if not ordered:
        return
    now = datetime.now(UTC)
    await execute_many(connection, _MOVED, [{**_change(attempt), "now": now} for attempt in ordered])
    await execute_many(connection, insert_missing(connection, attempts), [_row(attempt) for attempt in ordered])
    await suppressions.suppress(connection, *(each for attempt in ordered for each in attempt.outcome.suppress))
    disabled = await record_health(connection, ordered, disable_policy)
    for subscription_id, reason in disabled.items():
        await subscriptions.set_state(connection, subscription_id, SubscriptionState.DISABLED, reason=reason)


async def listing(connection: AsyncConnection, event_key: str, *, subscription_id: str | None) -> list[Attempt]:
    """The attempts of an event, or of one of its deliveries, by subscription and number."""
    query = select(attempts).where(attempts.c.event_key == event_key)
    if subscription_id is not None:
        query = query.where(attempts.c.subscription_id == subscription_id)
    rows = await connection.execute(query.order_by(attempts.c.subscription_id, attempts.c.number))
    return [
        Attempt.model_validate({**row, "outcome": Outcome.model_validate_json(row["outcome"])})
        for row in rows.mappings()
    ]


async def claimed(connection: AsyncConnection, provider_ids: Iterable[str]) -> set[str]:
    """Those of the ids that some attempt has recorded."""
    query = select(attempts.c.provider_id).where(attempts.c.provider_id.in_(sorted(set(provider_ids))))
    return {row.provider_id for row in await connection.execute(query)}


def _change(attempt: Attempt) -> dict[str, object]:
    outcome = attempt.outcome
    return {
        "key": attempt.event_key,
        "subscription": attempt.subscription_id,
        "number": attempt.number,
        "new_state": str(attempt.state),
        "new_reason": outcome.reason,
        "new_delay": attempt.delay,
        "new_from_retry_after": attempt.from_retry_after,
        "new_remaining_recipients": None
        if outcome.remaining_recipients is None
        else json.dumps(outcome.remaining_recipients),
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
        "provider_id": attempt.outcome.provider_id,
    }


class Attempts:
    """Attempts."""

    def __init__(self, database: Database, disable_policy: DisablePolicy) -> None:
        self._database = database
        self._batcher = AttemptBatcher(lambda attempts: database.write(record, attempts, disable_policy))

    async def close(self) -> None:
        """Wait for the attempts that are being written."""
        await self._batcher.close()

    async def load(self, groups: Sequence[Group]) -> Sequence[SendRequest]:
        """Deliveries with all that an attempt needs, in the order of the groups."""
        return await self._database.read(load, groups)

    async def record_intent(self, requests: Sequence[SendRequest]) -> None:
        """Announce attempts whose repetition would do harm, before they are made."""
        await self._database.write(record_intent, requests)

    async def lease(self, requests: Sequence[SendRequest]) -> None:
        """Tell other processes that these attempts are under way here, now; `Delivery.leased` reads it."""
        await self._database.write(lease, requests)

    async def probe(self, request: SendRequest) -> None:
        """Write something about a delivery, to find out whether the registry takes writes before anything is sent."""
        await self._database.write(touch, request)

    async def claim(self, request: SendRequest, *, provider: str | None = None) -> datetime | None:
        """Claim one attempt, at once before a provider is asked for it; what `updated_at` is from now on.

        None if the delivery is not as it was when `request` was read.
        """
        return await self._database.write(claim_attempt, request, provider=provider)

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Put attempts on record: deliveries move on, never back from settled.

        Subscriptions whose receiver is gone, or has failed for too long, are disabled.
        """
        await self._batcher.record(attempts)

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        """Those of the providers' ids that some attempt has on record."""
        return await self._database.read(claimed, provider_ids)

    async def list(self, event_key: str, subscription_id: str | None = None) -> Sequence[Attempt]:
        """The attempts of an event, or of one of its deliveries, by subscription and number."""
        return await self._database.read(listing, event_key, subscription_id=subscription_id)
