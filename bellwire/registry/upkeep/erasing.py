"""Erasing, as rows: one recipient's address out of subscriptions, and what is on record of what was sent to it.

Addresses and answers may be encrypted at rest, so they are found by reading and comparing, never in SQL.
"""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryState
from bellwire.events import Event
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.db.tables import (
    attempts,
    deliveries,
    events,
    subscriptions,
    suppressions,
)
from bellwire.registry.suppressions import address_keys
from bellwire.targets import Channel

#: `state_reason` of a subscription that was left without recipients, and `reason` of what it cancelled.
ERASED = "recipient erased"
#: What stays of an outcome. Reasons hold no address.
_KEPT = ("kind", "reason", "retry_after", "disable")

_ONE_DELIVERY = (
    deliveries.c.event_key == bindparam("key"),
    deliveries.c.subscription_id == bindparam("subscription"),
)
_BLANKED = (
    update(deliveries)
    .where(*_ONE_DELIVERY)
    .values(
        remaining_recipients=bindparam("new_remaining_recipients"),
        provider_id=bindparam("new_provider_id"),
        reason=bindparam("new_reason"),
    )
)
_CANCELLED = (
    update(deliveries)
    .where(*_ONE_DELIVERY)
    .values(
        state=str(DeliveryState.CANCELLED),
        reason=ERASED,
        delay=None,
        from_retry_after=False,
        updated_at=bindparam("now"),
    )
)
_FORGOTTEN = (
    update(attempts)
    .where(
        attempts.c.event_key == bindparam("key"),
        attempts.c.subscription_id == bindparam("subscription"),
        attempts.c.number == bindparam("attempt"),
    )
    .values(outcome=bindparam("new_outcome"), provider_id=bindparam("new_provider_id"))
)


class Recipient(NamedTuple):
    """Who is erased. Addresses are equal however their letters are written, as in the list of suppressions."""

    channel: Channel
    address: str

    def is_at(self, address: str) -> bool:
        return _plain(address) == _plain(self.address)

    def is_named_in(self, text: str) -> bool:
        return _plain(self.address) in _plain(text)


class AffectedSubscription(NamedTuple):
    """A subscription that sends to the recipient."""

    id: str
    #: It sends to others too, and stays.
    shared: bool


class RedactedBatch(NamedTuple):
    """What one batch of deliveries came to."""

    #: The last event key; None at the end.
    reached: str | None
    keys: Sequence[str] = ()
    deliveries: int = 0
    attempts: int = 0
    cancelled: int = 0
    #: Deliveries that were not settled; attempts at them may be under way.
    unsettled: int = 0
    #: The runs that hold what was cancelled.
    runs: frozenset[str] = frozenset()


def _plain(address: str) -> str:
    return address.strip().casefold()


def _addresses(target: str) -> list[str]:
    to = json.loads(target).get("to", [])
    return [to] if isinstance(to, str) else list(to)


async def holders(
    connection: AsyncConnection, recipient: Recipient, *, after: str, limit: int
) -> tuple[list[AffectedSubscription], str | None]:
    """Those of `limit` subscriptions beyond the id `after` that send to the recipient; the last id, None at the end."""
    rows = (
        await connection.execute(
            select(subscriptions.c.id, subscriptions.c.target)
            .where(subscriptions.c.channel == str(recipient.channel), subscriptions.c.id > after)
            .order_by(subscriptions.c.id)
            .limit(limit)
        )
    ).all()
    found = []
    for row in rows:
        mine = [recipient.is_at(address) for address in _addresses(row.target)]
        if any(mine):
            found.append(AffectedSubscription(row.id, shared=not all(mine)))
    return found, rows[-1].id if len(rows) == limit else None


async def retarget(connection: AsyncConnection, recipient: Recipient, subscription_id: str) -> None:
    """Take the recipient out of the target. A subscription that is left without any stays as an empty one, for its id."""
    this = subscriptions.c.id == subscription_id
    row = (await connection.execute(select(subscriptions.c.target).where(this).with_for_update())).one_or_none()
    if row is None:
        return
    left = [address for address in _addresses(row.target) if not recipient.is_at(address)]
    target = json.dumps({**json.loads(row.target), "to": left or ""}, separators=(",", ":"))
    emptied = {} if left else {"filters": "[]", "state_reason": ERASED}
    await connection.execute(update(subscriptions).where(this).values(target=target, **emptied))


async def blank(
    connection: AsyncConnection,
    recipient: Recipient,
    holder: AffectedSubscription,
    *,
    after: str,
    limit: int,
    dry_run: bool,
) -> RedactedBatch:
    """Go over `limit` deliveries of a subscription beyond the event key `after`.

    Of one that sends to the recipient only, what is unsettled is cancelled. What is owed to others stays owed.
    """
    query = (
        select(
            deliveries.c.event_key,
            deliveries.c.state,
            deliveries.c.remaining_recipients,
            deliveries.c.provider_id,
            deliveries.c.reason,
            deliveries.c.workflow_id,
        )
        .where(deliveries.c.subscription_id == holder.id, deliveries.c.event_key > after)
        .order_by(deliveries.c.event_key)
        .limit(limit)
    )
    rows = (await connection.execute(query if dry_run else query.with_for_update())).all()
    blanked, cancelled, runs, unsettled = [], [], set(), 0
    for row in rows:
        this = {"key": row.event_key, "subscription": holder.id}
        remaining_recipients = _without(recipient, row.remaining_recipients)
        others_wait = holder.shared and remaining_recipients != "[]"
        if not DeliveryState(row.state).settled:
            unsettled += 1
            if not others_wait:
                cancelled.append({**this, "now": datetime.now(UTC)})
                runs.add(row.workflow_id)
        kept = {
            "new_remaining_recipients": remaining_recipients if others_wait else None,
            "new_provider_id": row.provider_id if holder.shared else None,
            "new_reason": ERASED if recipient.is_named_in(row.reason) else row.reason,
        }
        if kept != {
            "new_remaining_recipients": row.remaining_recipients,
            "new_provider_id": row.provider_id,
            "new_reason": row.reason,
        }:
            blanked.append({**this, **kept})
    keys = [row.event_key for row in rows]
    forgotten = await _answers(connection, recipient, holder, keys)
    if not dry_run:
        for statement, changes in ((_BLANKED, blanked), (_CANCELLED, cancelled), (_FORGOTTEN, forgotten)):
            if changes:
                await connection.execute(statement, changes)
    changed = {change["key"] for change in (*blanked, *cancelled)}
    reached = keys[-1] if len(keys) == limit else None
    return RedactedBatch(reached, keys, len(changed), len(forgotten), len(cancelled), unsettled, frozenset(runs))


async def _answers(
    connection: AsyncConnection, recipient: Recipient, holder: AffectedSubscription, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The changes to those attempts that hold more than they should."""
    rows = await connection.execute(
        select(attempts.c.event_key, attempts.c.number, attempts.c.outcome, attempts.c.provider_id)
        .where(attempts.c.event_key.in_(keys), attempts.c.subscription_id == holder.id)
        .order_by(attempts.c.event_key, attempts.c.number)
    )
    changes = []
    for row in rows:
        outcome = json.loads(row.outcome)
        kept = {name: outcome[name] for name in _KEPT if name in outcome}
        if recipient.is_named_in(kept["reason"]):
            kept["reason"] = ERASED
        if holder.shared:
            remaining_recipients = [
                address for address in outcome.get("remaining_recipients") or () if not recipient.is_at(address)
            ]
            kept |= {"provider_id": row.provider_id, "remaining_recipients": remaining_recipients or None}
        if any(value != kept.get(name) for name, value in outcome.items()):
            this = {"key": row.event_key, "subscription": holder.id, "attempt": row.number}
            changes.append({**this, "new_outcome": json.dumps(kept), "new_provider_id": kept.get("provider_id")})
    return changes


def _without(recipient: Recipient, remaining_recipients: str | None) -> str | None:
    """The addresses that are owed a mail, without the recipient's; None if all are owed it."""
    if remaining_recipients is None:
        return None
    addresses = json.loads(remaining_recipients)
    left = [address for address in addresses if not recipient.is_at(address)]
    return remaining_recipients if left == addresses else json.dumps(left)


async def blank_events(
    connection: AsyncConnection, keys: Sequence[str], only_to: Collection[str], *, dry_run: bool
) -> int:
    """Take `data` and `subject` out of those events that went to these subscriptions and to no others; how many.

    The fingerprint of the content stays, so that the same event published again is still known.
    """
    to_others = exists().where(
        deliveries.c.event_key == events.c.key, deliveries.c.subscription_id.not_in(sorted(only_to))
    )
    query = select(events.c.key, events.c.body).where(events.c.key.in_(keys), ~to_others).order_by(events.c.key)
    changed = []
    for row in await connection.execute(query if dry_run else query.with_for_update()):
        event = Event.restored(row.body)
        if event.data is not None or event.subject is not None:
            bare = event.model_copy(update={"data": None, "subject": None})
            changed.append({"event": row.key, "new_body": bare.to_json()})
    if changed and not dry_run:
        these = update(events).where(events.c.key == bindparam("event")).values(body=bindparam("new_body"))
        await connection.execute(these, changed)
    return len(changed)


async def blank_suppressions(connection: AsyncConnection, recipient: Recipient, *, dry_run: bool) -> int:
    """Keep that the address is written to no more, by its key, and forget the address; how many held it."""
    column = suppressions.c
    these = (
        column.channel == str(recipient.channel),
        column.address_key.in_(address_keys(ring_of(connection.dialect), recipient.channel, recipient.address)),
    )
    rows = (await connection.execute(select(column.address).where(*these))).all()
    if rows and not dry_run:
        await connection.execute(update(suppressions).where(*these).values(address=""))
    return sum(1 for row in rows if row.address)
