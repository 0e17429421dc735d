"""Signing secrets of webhooks, and the resource `registry.signing_secrets`. Only this module accesses the column `secrets`.

The column holds a JSON list, newest first, of {"secret": …, "expires_at": RFC 3339 or null}. The newest secret never expires.
Replaced ones sign too until they expire, so that receivers have time to switch (Standard Webhooks, "Webhook signature").
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import SecretStr
from pydantic_core import from_json
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import SubscriptionInvalid, SubscriptionNotFound
from bellwire.keys.signing import KeyKind, generate_secret, read_key, signing_key
from bellwire.models import Payload
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import subscriptions
from bellwire.targets import SPECS, Channel

#: How long replaced secrets keep signing after a rotation: the default, and the maximum.
OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=30)
#: Replaced secrets that may sign at the same time. Each adds a signature to every request.
MAX_REPLACED = 10


class KeyInUse(Payload):
    """A secret that signs now, without the secret itself."""

    kind: KeyKind
    #: What receivers verify with: whpk_…; None for a shared secret.
    public_key: str | None
    #: When it stops signing; None for the newest one.
    expires_at: datetime | None


class _Secret(NamedTuple):
    secret: str
    expires_at: datetime | None


def first(channel: Channel, secret: str | None, kind: KeyKind | None) -> str | None:
    """Return the secret of a new subscription: the given or a generated one; None on channels that do not sign.

    Raises SubscriptionInvalid.
    """
    if SPECS[channel].signed:
        return _checked_or_generated(secret, kind or KeyKind.SYMMETRIC, requested=kind)
    if secret is not None or kind is not None:
        _check_channel(channel)
    return None


def stored(secret: str | None) -> str | None:
    """Return the column's value for a subscription with this one secret."""
    return None if secret is None else _dumped([_Secret(secret, None)])


def live(column: str | None, *, now: datetime) -> tuple[SecretStr, ...]:
    """Return the secrets in the column that have not expired, newest first."""
    return tuple(SecretStr(one.secret) for one in _loaded(column, now=now))


async def rotate(
    connection: AsyncConnection, subscription_id: str, *, overlap: timedelta, secret: str | None, kind: KeyKind | None
) -> SecretStr:
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise SubscriptionInvalid(f"overlap: must be 0 to {MAX_OVERLAP.days} days; with 0 the old secrets stop at once")
    now = datetime.now(UTC)
    channel, current = await _read(connection, subscription_id, now=now, lock=True)
    _check_channel(channel)
    current_kind = read_key(current[0].secret).kind if current else KeyKind.SYMMETRIC
    new = _checked_or_generated(secret, kind or current_kind, requested=kind)
    if current and new == current[0].secret:
        raise SubscriptionInvalid("secret: is already in use; give another one, or leave it out to generate one")
    until = now + overlap
    replaced = [
        _Secret(old.secret, until if old.expires_at is None else old.expires_at)
        for old in current
        if overlap and old.secret != new
    ]
    if len(replaced) > MAX_REPLACED:
        raise SubscriptionInvalid(
            f"secret: too many old secrets still sign (limit {MAX_REPLACED}); wait until one expires, or revoke them all"
        )
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id)
        .values(secrets=_dumped([_Secret(new, None), *replaced]))
    )
    return SecretStr(new)


async def in_use(connection: AsyncConnection, subscription_id: str) -> tuple[KeyInUse, ...]:
    _, current = await _read(connection, subscription_id, now=datetime.now(UTC))
    keys = ((read_key(one.secret), one.expires_at) for one in current)
    return tuple(KeyInUse(kind=key.kind, public_key=key.public, expires_at=end) for key, end in keys)


async def _read(
    connection: AsyncConnection, subscription_id: str, *, now: datetime, lock: bool = False
) -> tuple[Channel, list[_Secret]]:
    query = select(subscriptions.c.channel, subscriptions.c.secrets).where(subscriptions.c.id == subscription_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise SubscriptionNotFound.of(subscription_id)
    return Channel(row.channel), _loaded(row.secrets, now=now)


def _checked_or_generated(secret: str | None, kind: KeyKind, *, requested: KeyKind | None) -> str:
    if secret is None:
        return generate_secret(kind)
    try:
        key = signing_key(secret)
    except ValueError as error:
        raise SubscriptionInvalid(str(error)) from error
    if requested is not None and key.kind is not requested:
        raise SubscriptionInvalid(f"secret: is {key.kind}, but the kind is {requested}; leave one of the two out")
    return secret


def _check_channel(channel: Channel) -> None:
    if not SPECS[channel].signed:
        raise SubscriptionInvalid(f"secret: only webhooks are signed, and this target is {channel}; leave it out")


def _dumped(secrets: Sequence[_Secret]) -> str:
    items = [{"secret": one.secret, "expires_at": one.expires_at and one.expires_at.isoformat()} for one in secrets]
    return json.dumps(items, separators=(",", ":"))


def _loaded(column: str | None, *, now: datetime) -> list[_Secret]:
    """Return the secrets in the column that have not expired."""
    items = from_json(column) if column else ()
    ends = (item["expires_at"] and datetime.fromisoformat(item["expires_at"]) for item in items)
    return [_Secret(item["secret"], end) for item, end in zip(items, ends, strict=True) if end is None or end > now]


class SigningSecrets:
    """The resource `registry.signing_secrets`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rotate(
        self,
        subscription_id: str,
        *,
        overlap: timedelta = OVERLAP,
        secret: str | None = None,
        kind: KeyKind | None = None,
    ) -> SecretStr:
        """Replace the signing secret and return the new one. The old secrets sign too for `overlap`; with zero they stop.

        The new secret is generated unless `secret` is given, of the current kind unless `kind` is given. Secrets that an
        earlier rotation replaced keep their expiry. Raises SubscriptionNotFound and SubscriptionInvalid.
        """
        return await self._database.write(rotate, subscription_id, overlap=overlap, secret=secret, kind=kind)

    async def in_use(self, subscription_id: str) -> tuple[KeyInUse, ...]:
        """Return the secrets that sign now, newest first; none on other channels. Raises SubscriptionNotFound."""
        return await self._database.read(in_use, subscription_id)
