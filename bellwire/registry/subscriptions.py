"""Subscriptions and their tenants: rows, and the resource `registry.subscriptions`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic_core import from_json
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.endpoint_health import Consent, EndpointHealth
from bellwire.errors import SubscriptionChanged, SubscriptionInvalid, SubscriptionNotFound
from bellwire.keys.signing import KeyKind
from bellwire.models import TRUSTED
from bellwire.registry import signing_secrets
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import deliveries, subscription_types, subscriptions, tenants
from bellwire.registry.endpoint_health import COLUMNS, HEALTHY_VALUES, UNKNOWN_VALUES, health_of, set_consent
from bellwire.registry.replays import replays
from bellwire.replays import Replay
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import SPECS, Channel
from bellwire.targets.recipients import is_erased, restored

_COLUMNS = (
    subscriptions.c.id,
    subscriptions.c.tenant,
    subscriptions.c.types,
    subscriptions.c.filters,
    subscriptions.c.target,
    subscriptions.c.template,
    subscriptions.c.templates,
    subscriptions.c.locale,
    subscriptions.c.retry_schedule,
    subscriptions.c.rate_limit,
    subscriptions.c.state,
    subscriptions.c.state_reason,
    subscriptions.c.version,
    subscriptions.c.updated_at,
)
#: What an update may change. All else has operations of its own, or stays as it was created.
UPDATED = ("types", "filters", "target", "template", "templates", "locale", "retry_schedule", "rate_limit")
_JSON_COLUMNS = ("types", "filters", "target", "templates", "retry_schedule")

# Built once, since building a statement costs more than executing it.
_BY_IDS = select(*_COLUMNS, *COLUMNS, subscriptions.c.secrets).where(
    subscriptions.c.id.in_(bindparam("ids", expanding=True))
)


class SubscriptionContext(NamedTuple):
    """A subscription with what an attempt needs besides it."""

    subscription: Subscription
    #: The secrets that sign its webhooks now, newest first; empty on other channels.
    secrets: tuple[SecretStr, ...]
    health: EndpointHealth


async def create(
    connection: AsyncConnection,
    subscription: Subscription,
    *,
    secret: str | None,
    kind: KeyKind | None = None,
    replay: Replay | None = None,
) -> SecretStr | None:
    """Insert a subscription, with a replay of its past, and return the secret that signs its webhooks."""
    signing = signing_secrets.first(subscription.channel, secret, kind)
    now = datetime.now(UTC)
    await connection.execute(insert_missing(connection, tenants).values(id=subscription.tenant, created_at=now))
    inserted = await connection.execute(
        insert_missing(connection, subscriptions)
        .values(**_row(subscription), version=1, secrets=signing_secrets.stored(signing), created_at=now)
        .returning(subscriptions.c.id)
    )
    if inserted.scalar_one_or_none() is None:
        raise SubscriptionInvalid(f"id: {subscription.id} is already in use; choose another id, or leave it out")
    if subscription.state is SubscriptionState.ACTIVE:
        await _index(connection, subscription.id, subscription.tenant, subscription.types)
    if replay is not None:
        await replays.add(connection, replay)
    return None if signing is None else SecretStr(signing)


async def by_ids(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, SubscriptionContext]:
    """Return the subscriptions that exist, by id."""
    rows = await connection.execute(_BY_IDS, {"ids": sorted(set(ids))})
    now = datetime.now(UTC)
    return {
        row["id"]: SubscriptionContext(
            _subscription(row), signing_secrets.live(row["secrets"], now=now), health_of(row)
        )
        for row in rows.mappings()
    }


async def tenants_of(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, str]:
    """The tenant of each subscription that exists, by id."""
    query = select(subscriptions.c.id, subscriptions.c.tenant).where(subscriptions.c.id.in_(sorted(set(ids))))
    return {row.id: row.tenant for row in await connection.execute(query)}


async def known_tenants(connection: AsyncConnection, names: Iterable[str]) -> set[str]:
    """Those of the names that a subscription was stored for at any time."""
    query = select(tenants.c.id).where(tenants.c.id.in_(sorted(set(names))))
    return set((await connection.execute(query)).scalars())


async def list_(
    connection: AsyncConnection,
    *,
    tenant: str | None,
    pattern: str | None,
    channel: Channel | None,
    state: SubscriptionState | None,
    after: str,
    limit: int,
) -> list[Subscription]:
    query = select(*_COLUMNS).where(subscriptions.c.id > after).order_by(subscriptions.c.id).limit(limit)
    for column, value in (("tenant", tenant), ("channel", channel), ("state", state)):
        if value is not None:
            query = query.where(subscriptions.c[column] == str(value))
    if pattern is not None:
        query = query.where(subscriptions.c.types.contains(json.dumps(pattern), autoescape=True))
    return [_subscription(row) for row in (await connection.execute(query)).mappings()]


async def set_state(
    connection: AsyncConnection,
    subscription_id: str,
    state: SubscriptionState,
    *,
    reason: str | None,
    if_state: SubscriptionState | None = None,
) -> bool:
    """Change the state and add or remove the index rows that matching reads. An active subscription has no reason."""
    active = state is SubscriptionState.ACTIVE
    these = [subscriptions.c.id == subscription_id]
    if if_state is not None:
        these.append(subscriptions.c.state == str(if_state))
    changed = await connection.execute(
        update(subscriptions)
        .where(*these)
        .values(
            state=str(state),
            state_reason=None if active else reason,
            version=subscriptions.c.version + 1,
            updated_at=datetime.now(UTC),
            **(HEALTHY_VALUES if active else {}),
        )
        .returning(subscriptions.c.tenant, subscriptions.c.types, subscriptions.c.target)
    )
    row = changed.one_or_none()
    if row is None:
        if if_state is not None:
            return False
        raise SubscriptionNotFound.of(subscription_id)
    if active and is_erased(json.loads(row.target)):
        raise SubscriptionInvalid("target: the recipient was erased; create a new subscription with another id")
    patterns = json.loads(row.types)
    if active:
        await _index(connection, subscription_id, row.tenant, patterns)
    else:
        await _unindex(connection, subscription_id, patterns)
    return True


async def replace(connection: AsyncConnection, changed: Sequence[Subscription]) -> list[Subscription]:
    """Replace the fields of `UPDATED` and return the subscriptions with their new versions."""
    found = await by_ids(connection, (each.id for each in changed))
    after = []
    # Sorted, or two operators who change the same subscriptions could deadlock.
    for new in sorted(changed, key=lambda each: each.id):
        if new.id not in found:
            raise SubscriptionNotFound.of(new.id)
        before = found[new.id].subscription
        if new.channel is not before.channel:
            raise SubscriptionInvalid(
                f"target.channel: is {before.channel}; create a new subscription for {new.channel}"
            )
        after.append(await _replace_one(connection, before, new))
    return after


async def _replace_one(connection: AsyncConnection, before: Subscription, new: Subscription) -> Subscription:
    await _forget_plans(connection, before, new)
    version, now, row = new.version + 1, datetime.now(UTC), _row(new)
    values: dict[str, Any] = {"version": version, "updated_at": now, **{name: row[name] for name in UPDATED}}
    if new.target.address != before.target.address:
        values |= {"address_version": version, **UNKNOWN_VALUES}
    if new.rate_limit != before.rate_limit:
        values["next_reservation_at"] = None
    this = (subscriptions.c.id == new.id, subscriptions.c.version == new.version)
    if (await connection.execute(update(subscriptions).where(*this).values(**values))).rowcount != 1:
        raise SubscriptionChanged(
            f"{new.id} is no longer at version {new.version}; read it again, and make the change to its present version"
        )
    if before.state is SubscriptionState.ACTIVE:
        await _unindex(connection, new.id, set(before.types) - set(new.types))
        await _index(connection, new.id, before.tenant, new.types)
    return before.model_copy(
        update={**{name: getattr(new, name) for name in UPDATED}, "version": version, "updated_at": now}
    )


async def _forget_plans(connection: AsyncConnection, before: Subscription, new: Subscription) -> None:
    """Drop what deliveries keep for their next attempt and the change makes wrong: reserved times, remaining recipients.

    Before the subscription's row is written, since recording attempts locks deliveries first too.
    """
    columns = deliveries.c
    outdated = [
        *([columns.not_before] if new.rate_limit != before.rate_limit else []),
        # Some of the old recipients may have the mail already; the new ones do not, and twice is better than never.
        *([columns.remaining_recipients] if new.target.recipients != before.target.recipients else []),
    ]
    for column in outdated:
        these = (columns.subscription_id == new.id, column.is_not(None))
        rows = select(columns.event_key).where(*these).order_by(columns.event_key).with_for_update()
        if (await connection.execute(rows)).first() is not None:
            await connection.execute(update(deliveries).where(*these).values({column: None}))


async def _unindex(connection: AsyncConnection, subscription_id: str, patterns: Iterable[str]) -> None:
    column = subscription_types.c
    indexed = (column.pattern.in_(sorted(patterns)), column.subscription_id == subscription_id)
    await connection.execute(delete(subscription_types).where(*indexed))


async def _index(connection: AsyncConnection, subscription_id: str, tenant: str, patterns: Iterable[str]) -> None:
    rows = [
        {"pattern": pattern, "subscription_id": subscription_id, "tenant": tenant} for pattern in sorted(set(patterns))
    ]
    await execute_many(connection, insert_missing(connection, subscription_types), rows)


def _row(subscription: Subscription) -> dict[str, Any]:
    row = subscription.model_dump(mode="json", context=TRUSTED, exclude={"version", "updated_at"})
    row.update({name: json.dumps(row[name], separators=(",", ":")) for name in _JSON_COLUMNS if row[name] is not None})
    return {**row, "channel": str(subscription.channel)}


def _subscription(row: Mapping[Any, Any]) -> Subscription:
    values = {column.name: row[column.name] for column in _COLUMNS}
    values.update({name: from_json(values[name]) for name in _JSON_COLUMNS if values[name] is not None})
    if not is_erased(values["target"]):
        return Subscription.model_validate(values, context=TRUSTED)
    target = restored(values["target"])
    # Put in afterwards: what is left of a target is not a valid one.
    subscription = Subscription.model_validate({**values, "target": SPECS[target.channel].example}, context=TRUSTED)
    return subscription.model_copy(update={"target": target})


class Subscriptions:
    """The resource `registry.subscriptions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        subscription: Subscription,
        *,
        secret: str | None = None,
        kind: KeyKind | None = None,
        replay: Replay | None = None,
    ) -> SecretStr | None:
        """Store a new subscription and return the secret that signs its webhooks, generated unless `secret` is given.

        `replay` is of its past: `bellwire.replays.replay_since` makes one. It is stored in the same transaction, and a worker
        starts it. Raises SubscriptionInvalid if the id is in use, or the secret is malformed or not of this `kind`.
        """
        return await self._database.write(create, subscription, secret=secret, kind=kind, replay=replay)

    async def get(self, subscription_id: str) -> Subscription:
        """Raises SubscriptionNotFound."""
        return (await self.context(subscription_id)).subscription

    async def context(self, subscription_id: str) -> SubscriptionContext:
        """Return a subscription with its secrets and the health of its endpoint. Raises SubscriptionNotFound."""
        found = await self._database.read(by_ids, [subscription_id])
        if not found:
            raise SubscriptionNotFound.of(subscription_id)
        return found[subscription_id]

    async def existing(self, ids: Iterable[str]) -> Mapping[str, Subscription]:
        """Return the subscriptions that exist, by id."""
        return {key: each.subscription for key, each in (await self._database.read(by_ids, ids)).items()}

    async def list(
        self,
        *,
        tenant: str | None = None,
        pattern: str | None = None,
        channel: Channel | None = None,
        state: SubscriptionState | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Subscription]:
        """Return subscriptions by ascending id, after the id `after`. `pattern` is one of their type patterns, literally."""
        return await self._database.read(
            list_, tenant=tenant, pattern=pattern, channel=channel, state=state, after=after, limit=limit
        )

    async def update(self, changed: Sequence[Subscription]) -> Sequence[Subscription]:
        """Replace types, filters, target, template, templates, locale, retry schedule and rate limit, of all or of none.

        `version` of each is the one that it was read at; returns them by id, with their new versions. Tenant and state stay.
        Attempts that are loaded later use the new fields. A target with another address starts with no record of health
        or consent. Raises SubscriptionChanged if the version is another now, SubscriptionNotFound, and SubscriptionInvalid
        for a target of another channel.
        """
        return await self._database.write(replace, changed)

    async def known_tenants(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that a subscription was stored for at any time, whether it still exists or not."""
        return await self._database.read(known_tenants, names)

    async def set_state(
        self,
        subscription_id: str,
        state: SubscriptionState,
        *,
        reason: str | None = None,
        if_state: SubscriptionState | None = None,
    ) -> bool:
        """Change the state, with `if_state` only from that one; return whether it did. Activating resets the endpoint's health.

        Raises SubscriptionNotFound, and SubscriptionInvalid for activating a subscription whose recipient was erased.
        """
        return await self._database.write(set_state, subscription_id, state, reason=reason, if_state=if_state)

    async def record_consent(self, subscription_id: str, consent: Consent) -> None:
        """Store the consent of a webhook's endpoint; later attempts read it."""
        await self._database.write(set_consent, subscription_id, consent)
