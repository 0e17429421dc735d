"""The secrets that webhooks are signed with. Only this module reads and writes the column `secrets`.

The column holds a JSON list, newest first, of {"secret": …, "expires_at": RFC 3339 or null}. The newest has no end; those
before it go on signing until theirs, so that receivers have time to change over (Standard Webhooks, "Webhook signature").
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
from bellwire.keys.signing import (
    KeyKind,
    generate_secret,
    read_key,
    signing_key,
)
from bellwire.models import Payload
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import subscriptions
from bellwire.targets import SPECS, Channel

#: How long replaced secrets go on signing, unless a rotation says otherwise, and at most.
OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=30)
#: Replaced secrets that may go on signing at one time: each is a signature more in every request.
MAX_REPLACED = 10


class KeyInUse(Payload):
    """A secret that signs now, as far as people may see it."""

    kind: KeyKind
    #: What receivers verify with: whpk_…; None for a shared secret.
    public_key: str | None
    #: When it stops signing; None for the newest one.
    expires_at: datetime | None


class _Kept(NamedTuple):
    secret: str
    expires_at: datetime | None


def first(channel: Channel, given: str | None, kind: KeyKind | None) -> str | None:
    """What a new subscription is signed with: the secret that was given, or a new one; None where nothing is signed.

    Raises SubscriptionInvalid.
    """
    if SPECS[channel].signed:
        return _given_or_made(given, kind or KeyKind.SYMMETRIC, chosen=kind)
    _check_webhook(channel, asked=given is not None or kind is not None)
    return None


def stored(secret: str | None) -> str | None:
    """The column of a subscription that has this one secret."""
    return None if secret is None else _written([_Kept(secret, None)])


def live(column: str | None, *, now: datetime) -> tuple[SecretStr, ...]:
    """Those in the column that sign at the time, newest first."""
    return tuple(SecretStr(kept.secret) for kept in _read(column, now=now))


async def rotate(
    connection: AsyncConnection, subscription_id: str, *, overlap: timedelta, secret: str | None, kind: KeyKind | None
) -> SecretStr:
    """Sign with another secret from now on; with those before it for `overlap` more, or with none of them if it is zero.

    Those that an earlier rotation gave an end keep it. Raises SubscriptionNotFound and SubscriptionInvalid.
    """
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise SubscriptionInvalid(f"overlap: must be 0 to {MAX_OVERLAP.days} days; with 0 the old secrets stop at once")
    now = datetime.now(UTC)
    channel, kept = await _kept(connection, subscription_id, now=now, lock=True)
    _check_webhook(channel, asked=True)
    usual = read_key(kept[0].secret).kind if kept else KeyKind.SYMMETRIC
    new = _given_or_made(secret, kind or usual, chosen=kind)
    if kept and new == kept[0].secret:
        raise SubscriptionInvalid("secret: is the one in use already; give another, or leave it out to have one made")
    until = now + overlap
    replaced = [
        _Kept(old.secret, until if old.expires_at is None else old.expires_at)
        for old in kept
        if overlap and old.secret != new
    ]
    if len(replaced) > MAX_REPLACED:
        raise SubscriptionInvalid(
            f"secret: {MAX_REPLACED} old ones sign beside the newest already; wait until one has run out, or revoke them all"
        )
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id)
        .values(secrets=_written([_Kept(new, None), *replaced]))
    )
    return SecretStr(new)


async def in_use(connection: AsyncConnection, subscription_id: str) -> tuple[KeyInUse, ...]:
    """What signs now, newest first; nothing where nothing is signed. Raises SubscriptionNotFound."""
    _, found = await _kept(connection, subscription_id, now=datetime.now(UTC))
    keys = ((read_key(kept.secret), kept.expires_at) for kept in found)
    return tuple(KeyInUse(kind=key.kind, public_key=key.public, expires_at=end) for key, end in keys)


async def _kept(
    connection: AsyncConnection, subscription_id: str, *, now: datetime, lock: bool = False
) -> tuple[Channel, list[_Kept]]:
    query = select(subscriptions.c.channel, subscriptions.c.secrets).where(subscriptions.c.id == subscription_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise SubscriptionNotFound
    return Channel(row.channel), _read(row.secrets, now=now)


def _given_or_made(given: str | None, kind: KeyKind, *, chosen: KeyKind | None) -> str:
    if given is None:
        return generate_secret(kind)
    try:
        key = signing_key(given)
    except ValueError as error:
        raise SubscriptionInvalid(str(error)) from error
    if chosen is not None and key.kind is not chosen:
        raise SubscriptionInvalid(f"secret: is {key.kind}, and {chosen} was asked for; leave one of the two out")
    return given


def _check_webhook(channel: Channel, *, asked: bool) -> None:
    if asked and not SPECS[channel].signed:
        raise SubscriptionInvalid(f"secret: only webhooks are signed, and this target is {channel}; leave it out")


def _written(kept: Sequence[_Kept]) -> str:
    items = [{"secret": one.secret, "expires_at": one.expires_at and one.expires_at.isoformat()} for one in kept]
    return json.dumps(items, separators=(",", ":"))


def _read(column: str | None, *, now: datetime) -> list[_Kept]:
    """What the column holds and has not run out."""
    items = from_json(column) if column else ()
    ends = (item["expires_at"] and datetime.fromisoformat(item["expires_at"]) for item in items)
    return [_Kept(item["secret"], end) for item, end in zip(items, ends, strict=True) if end is None or end > now]


class SigningSecrets:
    """The secrets that sign webhooks."""

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
        """Sign with another secret from now on, and with those before it for `overlap` more; with zero they stop at once.

        It is made here unless given, of the kind in use unless `kind` is. Raises SubscriptionNotFound and
        SubscriptionInvalid.
        """
        return await self._database.write(rotate, subscription_id, overlap=overlap, secret=secret, kind=kind)

    async def in_use(self, subscription_id: str) -> tuple[KeyInUse, ...]:
        """What signs this subscription's webhooks now, newest first, without the secrets. Raises SubscriptionNotFound."""
        return await self._database.read(in_use, subscription_id)
