"""API keys: rows, and the resource `registry.api_keys`. A key is stored as its hash and cannot be shown again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import ApiKeyNotFound
from bellwire.events import uuid7
from bellwire.keys.api_keys import Scope, api_key_hash, new_api_key
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import api_keys

#: The time of use is stored at most this often, so that reading with a key does not write each time.
USE_RESOLUTION = timedelta(minutes=1)
#: Time that a rotated key works beside its successor, unless told otherwise.
OVERLAP = timedelta(hours=24)

_BY_HASH = select(api_keys).where(api_keys.c.hash == bindparam("hash"))


class ApiKey(NamedTuple):
    """A key as it can be shown: all but the key itself."""

    id: str
    scope: Scope
    #: What it is for, in its owner's words; empty without any.
    description: str
    #: The first characters, by which people recognise it.
    hint: str
    created_at: datetime
    #: When it stops working; None: never.
    expires_at: datetime | None
    #: None until it is used; up to USE_RESOLUTION in the past.
    last_used_at: datetime | None
    #: When it was revoked; None if it was not.
    revoked_at: datetime | None

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class NewApiKey(NamedTuple):
    """A new key: the only time that its text is known."""

    api_key: ApiKey
    key: str


async def create(
    connection: AsyncConnection, scope: Scope, *, description: str, expires_at: datetime | None
) -> NewApiKey:
    key = new_api_key()
    row = {
        "id": f"key_{uuid7().hex}",
        "hash": api_key_hash(key),
        "scope": str(scope),
        "tenant": scope.tenant,
        "description": description,
        "hint": key[:7],
        "created_at": datetime.now(UTC),
        "expires_at": expires_at,
    }
    await connection.execute(api_keys.insert(), row)
    return NewApiKey(await get(connection, str(row["id"])), key)


async def get(connection: AsyncConnection, key_id: str) -> ApiKey:
    row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()
    if row is None:
        raise ApiKeyNotFound(f"no API key {key_id[:80]} exists; `python -m starter api-keys list` shows them")
    return _api_key(row)


async def by_hash(connection: AsyncConnection, key_hash: str) -> ApiKey | None:
    row = (await connection.execute(_BY_HASH, {"hash": key_hash})).one_or_none()
    return _api_key(row) if row else None


async def list_(connection: AsyncConnection, *, tenant: str | None, after: str, limit: int) -> list[ApiKey]:
    query = select(api_keys).where(api_keys.c.id > after).order_by(api_keys.c.id).limit(limit)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    return [_api_key(row) for row in await connection.execute(query)]


async def revoke(connection: AsyncConnection, key_id: str) -> ApiKey:
    await get(connection, key_id)
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=datetime.now(UTC))
    )
    return await get(connection, key_id)


async def rotate(connection: AsyncConnection, key_id: str, *, overlap: timedelta) -> NewApiKey:
    now = datetime.now(UTC)
    old = await get(connection, key_id)
    if not old.is_usable(now):
        raise ApiKeyNotFound(f"API key {key_id} is revoked or has expired; create a new one")
    new = await create(connection, old.scope, description=old.description, expires_at=old.expires_at)
    ends = now + overlap
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > ends))
        .values(expires_at=ends)
    )
    return new


async def record_use(connection: AsyncConnection, key_id: str, now: datetime) -> None:
    unused = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= now - USE_RESOLUTION)
    await connection.execute(update(api_keys).where(and_(api_keys.c.id == key_id, unused)).values(last_used_at=now))


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        scope=Scope.parse(row.scope),
        description=row.description,
        hint=row.hint,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


class ApiKeys:
    """The resource `registry.api_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, scope: Scope, *, description: str = "", expires_at: datetime | None = None) -> NewApiKey:
        """Store a new key and return it with its text, which cannot be read again."""
        return await self._database.write(create, scope, description=description, expires_at=expires_at)

    async def get(self, key_id: str) -> ApiKey:
        """Raises ApiKeyNotFound."""
        return await self._database.read(get, key_id)

    async def find(self, key: str) -> ApiKey | None:
        """The key with this text, usable or not; None if there is none."""
        return await self._database.read(by_hash, api_key_hash(key))

    async def list(self, *, tenant: str | None = None, after: str = "", limit: int = 100) -> Sequence[ApiKey]:
        """Keys in order of creation, after the id `after`; with `tenant`, those of its scope."""
        return await self._database.read(list_, tenant=tenant, after=after, limit=limit)

    async def revoke(self, key_id: str) -> ApiKey:
        """Let a key work no more. Revoking it again changes nothing. Raises ApiKeyNotFound."""
        return await self._database.write(revoke, key_id)

    async def rotate(self, key_id: str, *, overlap: timedelta = OVERLAP) -> NewApiKey:
        """Create a successor with the same scope. The old key works for `overlap` more. Raises ApiKeyNotFound."""
        return await self._database.write(rotate, key_id, overlap=overlap)

    async def record_use(self, key_id: str, now: datetime) -> None:
        """Store that a key was used, unless that was stored within USE_RESOLUTION."""
        await self._database.write(record_use, key_id, now)
