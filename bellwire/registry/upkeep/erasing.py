"""Erasure: row functions that remove one recipient's address from subscriptions, and from records of what was sent to it.

Addresses and responses may be encrypted, so they are compared here, never in SQL.
"""

import json
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import DeliveryState
from bellwire.events import Event
from bellwire.formats.mailboxes import folded
from bellwire.models import TRUSTED
from bellwire.registry.db.provider_tables import paces, wechat_grants
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.db.tables import (
    attempts,
    deliveries,
    events,
    idempotency_keys,
    sms_receipts,
    subscriptions,
    suppressions,
    test_sends,
)
from bellwire.registry.suppressions import address_keys
from bellwire.targets import SPECS, Channel
from bellwire.targets.recipients import erased, restored

#: The state reason of a subscription without recipients, and the reason of the deliveries that were cancelled with it.
ERASED = "recipient erased"
#: The fields of an outcome that are kept.
_KEPT = ("kind", "reason", "retry_after", "disable")

_DELIVERY = (
    deliveries.c.event_key == bindparam("key"),
    deliveries.c.subscription_id == bindparam("name"),
)
_REDACT_DELIVERY = (
    update(deliveries)
    .where(*_DELIVERY)
    .values(
        remaining_recipients=bindparam("new_remaining_recipients"),
        provider_id=bindparam("new_provider_id"),
        reason=bindparam("new_reason"),
    )
)
_CANCEL_DELIVERY = (
    update(deliveries)
    .where(*_DELIVERY)
    .values(
        state=str(DeliveryState.CANCELLED),
        reason=ERASED,
        delay=None,
        from_retry_after=False,
        updated_at=bindparam("now"),
    )
)
_REDACT_ATTEMPT = (
    update(attempts)
    .where(
        attempts.c.event_key == bindparam("key"),
        attempts.c.subscription_id == bindparam("name"),
        attempts.c.number == bindparam("attempt"),
    )
    .values(outcome=bindparam("new_outcome"), provider_id=bindparam("new_provider_id"), exchanges=None)
)


class Recipient(NamedTuple):
    """The recipient to erase, in any spelling, as in suppressions."""

    channel: Channel
    address: str

    def is_at(self, address: str) -> bool:
        key = SPECS[self.channel].address_key
        return key(address) == key(self.address)

    def is_named_in(self, text: str) -> bool:
        key = folded(SPECS[self.channel].address_key(self.address))
        return any(name in folded(text) for name in (folded(self.address.strip()), key)) or (
            self._has_account
            and bool(re.search(rf"(?<![\w-]){re.escape(key.partition('/')[2])}(?![\w-])", folded(text)))
        )

    @property
    def _has_account(self) -> bool:
        """Whether the address is `account/address`; providers know the second part of it."""
        return "account" in SPECS[self.channel].target.model_fields and "://" not in self.address


class AffectedSubscription(NamedTuple):
    """A subscription that sends to the recipient."""

    id: str
    #: Whether it sends to others too, and so is kept.
    shared: bool


class RedactedBatch(NamedTuple):
    """What redacting one batch of deliveries changed."""

    #: The last event key; None at the end.
    reached: str | None
    keys: Sequence[str] = ()
    deliveries: int = 0
    attempts: int = 0
    cancelled: int = 0
    #: Deliveries that were not settled; attempts at them may be in progress.
    unsettled: int = 0
    #: The workflows that own the cancelled deliveries.
    workflow_ids: frozenset[str] = frozenset()


async def affected(
    connection: AsyncConnection, recipient: Recipient, *, after: str, limit: int
) -> tuple[list[AffectedSubscription], str | None]:
    """Return those of `limit` subscriptions after the id `after` that send to the recipient, and the last id; None at the end."""
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
        matches = [recipient.is_at(address) for address in restored(json.loads(row.target)).recipients]
        if any(matches):
            found.append(AffectedSubscription(row.id, shared=not all(matches)))
    return found, rows[-1].id if len(rows) == limit else None


async def remove_recipient(connection: AsyncConnection, recipient: Recipient, subscription_id: str) -> None:
    """Remove the recipient from the target. A subscription without recipients is kept, empty, so that its id stays taken."""
    this = subscriptions.c.id == subscription_id
    row = (await connection.execute(select(subscriptions.c.target).where(this).with_for_update())).one_or_none()
    if row is None:
        return
    target = restored(json.loads(row.target))
    left = tuple(address for address in target.recipients if not recipient.is_at(address))
    kept = target.keeping(left).model_dump(mode="json", context=TRUSTED) if left else erased(recipient.channel)
    stored = json.dumps(kept, separators=(",", ":"))
    emptied = {} if left else {"filters": "[]", "state_reason": ERASED}
    changed = {"version": subscriptions.c.version + 1, "updated_at": datetime.now(UTC)}
    await connection.execute(update(subscriptions).where(this).values(target=stored, **changed, **emptied))
    await connection.execute(delete(test_sends).where(test_sends.c.subscription_id == subscription_id))


async def redact(
    connection: AsyncConnection,
    recipient: Recipient,
    subscription: AffectedSubscription,
    *,
    after: str,
    limit: int,
    dry_run: bool,
) -> RedactedBatch:
    """Redact `limit` deliveries of a subscription after the event key `after`.

    Unsettled deliveries are cancelled, unless others still have to get them.
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
        .where(deliveries.c.subscription_id == subscription.id, deliveries.c.event_key > after)
        .order_by(deliveries.c.event_key)
        .limit(limit)
    )
    rows = (await connection.execute(query if dry_run else query.with_for_update())).all()
    redacted, cancelled, workflow_ids, unsettled = [], [], set(), 0
    for row in rows:
        this = {"key": row.event_key, "name": subscription.id}
        remaining = _without(recipient, row.remaining_recipients)
        others_wait = subscription.shared and remaining != "[]"
        if not DeliveryState(row.state).settled:
            unsettled += 1
            if not others_wait:
                cancelled.append({**this, "now": datetime.now(UTC)})
                workflow_ids.add(row.workflow_id)
        before = {
            "new_remaining_recipients": row.remaining_recipients,
            "new_provider_id": row.provider_id,
            "new_reason": row.reason,
        }
        after_redaction = {
            "new_remaining_recipients": remaining if others_wait else None,
            "new_provider_id": row.provider_id if subscription.shared else None,
            "new_reason": ERASED if recipient.is_named_in(row.reason) else row.reason,
        }
        if after_redaction != before:
            redacted.append({**this, **after_redaction})
    keys = [row.event_key for row in rows]
    redacted_attempts = await _redacted_attempts(connection, recipient, subscription, keys)
    if not dry_run:
        for statement, changes in (
            (_REDACT_DELIVERY, redacted),
            (_CANCEL_DELIVERY, cancelled),
            (_REDACT_ATTEMPT, redacted_attempts),
        ):
            if changes:
                await connection.execute(statement, changes)
        if not subscription.shared:
            # They hold the ids by which the provider knows the messages.
            these = (sms_receipts.c.event_key.in_(keys), sms_receipts.c.subscription_id == subscription.id)
            await connection.execute(delete(sms_receipts).where(*these))
    return RedactedBatch(
        reached=keys[-1] if len(keys) == limit else None,
        keys=keys,
        deliveries=len({change["key"] for change in (*redacted, *cancelled)}),
        attempts=len(redacted_attempts),
        cancelled=len(cancelled),
        unsettled=unsettled,
        workflow_ids=frozenset(workflow_ids),
    )


async def _redacted_attempts(
    connection: AsyncConnection, recipient: Recipient, subscription: AffectedSubscription, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The changes to the attempts that hold data of the recipient."""
    rows = await connection.execute(
        select(
            attempts.c.event_key,
            attempts.c.number,
            attempts.c.outcome,
            attempts.c.exchanges.is_not(None).label("has_exchanges"),
        )
        .where(attempts.c.event_key.in_(keys), attempts.c.subscription_id == subscription.id)
        .order_by(attempts.c.event_key, attempts.c.number)
    )
    changes = []
    for row in rows:
        outcome = json.loads(row.outcome)
        kept = {name: outcome[name] for name in _KEPT if name in outcome}
        if recipient.is_named_in(kept["reason"]):
            kept["reason"] = ERASED
        if subscription.shared:
            remaining = [
                address for address in outcome.get("remaining_recipients") or () if not recipient.is_at(address)
            ]
            kept |= {"provider_id": outcome.get("provider_id"), "remaining_recipients": remaining or None}
        # Exchanges to others name the recipient too: in the mail's headers, and in what they were sent.
        if row.has_exchanges or any(value != kept.get(name) for name, value in outcome.items()):
            this = {"key": row.event_key, "name": subscription.id, "attempt": row.number}
            changes.append({**this, "new_outcome": json.dumps(kept), "new_provider_id": kept.get("provider_id")})
    return changes


def _without(recipient: Recipient, remaining_recipients: str | None) -> str | None:
    """The remaining recipients without this one; None if all remain."""
    if remaining_recipients is None:
        return None
    addresses = json.loads(remaining_recipients)
    left = [address for address in addresses if not recipient.is_at(address)]
    return remaining_recipients if left == addresses else json.dumps(left)


async def redact_events(
    connection: AsyncConnection, keys: Sequence[str], only_to: Collection[str], *, dry_run: bool
) -> int:
    """Remove `data` and `subject` of the events that went only to these subscriptions; return how many.

    The digest of the content is kept, so that publishing the same event again is still detected.
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
        statement = update(events).where(events.c.key == bindparam("event")).values(body=bindparam("new_body"))
        await connection.execute(statement, changed)
    return len(changed)


async def redact_suppressions(connection: AsyncConnection, recipient: Recipient, *, dry_run: bool) -> int:
    """Remove the address from its suppressions, which stay effective by its hash; return how many held it."""
    column = suppressions.c
    these = (
        column.channel == str(recipient.channel),
        column.address_key.in_(address_keys(ring_of(connection.dialect), recipient.channel, recipient.address)),
    )
    rows = (await connection.execute(select(column.address).where(*these))).all()
    if rows and not dry_run:
        await connection.execute(update(suppressions).where(*these).values(address=""))
    return sum(1 for row in rows if row.address)


async def delete_counted(connection: AsyncConnection, recipient: Recipient) -> None:
    """Delete what is counted of the recipient: messages that a user of WeChat has agreed to, and the pace of the address."""
    keys = address_keys(ring_of(connection.dialect), recipient.channel, recipient.address)
    for table in (wechat_grants, paces):
        await connection.execute(delete(table).where(table.c.address_key.in_(keys)))


async def redact_responses(
    connection: AsyncConnection, recipient: Recipient, *, after: tuple[str, str], limit: int
) -> tuple[str, str] | None:
    """Remove the recipient from stored responses of the HTTP API; return the place of the last one read, None at the end.

    A request that is sent again with its idempotency key is still not executed again.
    """
    column = idempotency_keys.c
    query = (
        select(column.owner, column.key, column.body)
        .where(tuple_(column.owner, column.key) > tuple_(*after), column.body.is_not(None))
        .order_by(column.owner, column.key)
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    for row in rows:
        if recipient.is_named_in(row.body):
            this = (column.owner == row.owner, column.key == row.key)
            await connection.execute(update(idempotency_keys).where(*this).values(body=""))
    return (rows[-1].owner, rows[-1].key) if len(rows) == limit else None
