"""Subscriptions and their tenants, as rows."""

import base64
import binascii
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.conditions import Condition
from bellwire.errors import SubscriptionInvalid, SubscriptionNotFound
from bellwire.registry.conditions import CLEARED, COLUMNS, condition_of
from bellwire.registry.database import insert_missing
from bellwire.registry.tables import subscription_types, subscriptions, tenants
from bellwire.subscriptions import Channel, Subscription, SubscriptionState
from bellwire.wire import STORED

_PREFIX = "whsec_"
#: Bytes in a secret that Bellwire makes, and the bounds for others (Standard Webhooks, "Signature scheme").
_SECRET_BYTES = 32
_SECRET_BOUNDS = (24, 64)

_COLUMNS = (
    subscriptions.c.id,
    subscriptions.c.tenant,
    subscriptions.c.types,
    subscriptions.c.filters,
    subscriptions.c.target,
    subscriptions.c.template,
    subscriptions.c.parts,
    subscriptions.c.locale,
    subscriptions.c.retry_schedule,
    subscriptions.c.rate_limit,
    subscriptions.c.state,
    subscriptions.c.state_reason,
)
_JSON = ("types", "filters", "target", "parts", "retry_schedule")


async def subscribe(connection: AsyncConnection, subscription: Subscription, *, secret: str | None) -> SecretStr | None:
    """Store the subscription; the secret that its webhooks are signed with comes back."""
    signing = _secret_for(subscription, secret)
    now = datetime.now(UTC)
    await connection.execute(insert_missing(connection, tenants).values(id=subscription.tenant, created_at=now))
    stored = await connection.execute(
        insert_missing(connection, subscriptions)
        .values(**_row(subscription), secret=signing, created_at=now)
        .returning(subscriptions.c.id)
    )
    if stored.scalar_one_or_none() is None:
        raise SubscriptionInvalid(
            f"id: a subscription {subscription.id} exists already; choose another id, or leave it out"
        )
    if subscription.state is SubscriptionState.ACTIVE:
        await _index(connection, subscription.id, subscription.tenant, subscription.types)
    return None if signing is None else SecretStr(signing)


async def by_ids(
    connection: AsyncConnection, ids: Iterable[str]
) -> dict[str, tuple[Subscription, SecretStr | None, Condition]]:
    """The subscriptions that exist, each with its secret and how its receiver fares."""
    rows = await connection.execute(
        select(*_COLUMNS, *COLUMNS, subscriptions.c.secret).where(subscriptions.c.id.in_(sorted(set(ids))))
    )
    return {
        row["id"]: (_subscription(row), SecretStr(row["secret"]) if row["secret"] else None, condition_of(row))
        for row in rows.mappings()
    }


async def listing(
    connection: AsyncConnection,
    *,
    tenant: str | None,
    channel: Channel | None,
    state: SubscriptionState | None,
    after: str,
    limit: int,
) -> list[Subscription]:
    query = select(*_COLUMNS).where(subscriptions.c.id > after).order_by(subscriptions.c.id).limit(limit)
    for column, wanted in (("tenant", tenant), ("channel", channel), ("state", state)):
        if wanted is not None:
            query = query.where(subscriptions.c[column] == str(wanted))
    return [_subscription(row) for row in (await connection.execute(query)).mappings()]


async def set_state(
    connection: AsyncConnection, subscription_id: str, state: SubscriptionState, *, reason: str | None
) -> None:
    """Change the state, and whether events are matched with it. An active subscription has no reason, and begins well."""
    active = state is SubscriptionState.ACTIVE
    changed = await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id)
        .values(state=str(state), state_reason=None if active else reason, **(CLEARED if active else {}))
        .returning(subscriptions.c.tenant, subscriptions.c.types)
    )
    row = changed.one_or_none()
    if row is None:
        raise SubscriptionNotFound
    patterns = json.loads(row.types)
    if active:
        await _index(connection, subscription_id, row.tenant, patterns)
    else:
        column = subscription_types.c
        indexed = (column.pattern.in_(patterns), column.subscription_id == subscription_id)
        await connection.execute(delete(subscription_types).where(*indexed))


async def _index(connection: AsyncConnection, subscription_id: str, tenant: str, patterns: Iterable[str]) -> None:
    rows = [
        {"pattern": pattern, "subscription_id": subscription_id, "tenant": tenant} for pattern in sorted(set(patterns))
    ]
    await connection.execute(insert_missing(connection, subscription_types), rows)


def _row(subscription: Subscription) -> dict[str, Any]:
    row = subscription.model_dump(mode="json")
    row.update({name: json.dumps(row[name], separators=(",", ":")) for name in _JSON if row[name] is not None})
    return {**row, "channel": str(subscription.channel)}


def _subscription(row: Mapping[Any, Any]) -> Subscription:
    values = {column.name: row[column.name] for column in _COLUMNS}
    values.update({name: json.loads(values[name]) for name in _JSON if values[name] is not None})
    return Subscription.model_validate(values, context=STORED)


def _secret_for(subscription: Subscription, given: str | None) -> str | None:
    if subscription.channel is not Channel.WEBHOOK:
        if given is not None:
            raise SubscriptionInvalid(
                f"secret: only webhooks are signed, and this target is {subscription.channel}; leave it out"
            )
        return None
    if given is None:
        return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    try:
        size = len(base64.b64decode(given.removeprefix(_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    shortest, longest = _SECRET_BOUNDS
    if not given.startswith(_PREFIX) or not shortest <= size <= longest:
        raise SubscriptionInvalid(
            f"secret: must be whsec_ and the base64 of {shortest} to {longest} random bytes; or leave it out"
        )
    return given
