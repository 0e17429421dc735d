"""Idempotency keys: rows, and the resource `registry.idempotency`. A request with a known key is not executed again."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import idempotency_keys

#: How long a response is kept, and how long a request may take before its process is taken for dead.
KEPT, IN_PROGRESS = timedelta(hours=24), timedelta(minutes=2)


class StoredResponse(NamedTuple):
    """The response to the first request with a key."""

    status: int
    #: Empty if the response had a secret, which is not stored, or a recipient who was erased.
    body: str
    content_type: str


class Claim(NamedTuple):
    """What is known of a key when a request with it arrives."""

    #: The request is the first one and is to be executed.
    is_first: bool
    #: The first request was the same one.
    is_same: bool = True
    #: None while the first request is in progress.
    response: StoredResponse | None = None


async def claim(connection: AsyncConnection, owner: str, key: str, fingerprint: str) -> Claim:
    now = datetime.now(UTC)
    table = idempotency_keys.c
    over = or_(table.created_at < now - KEPT, and_(table.status.is_(None), table.created_at < now - IN_PROGRESS))
    await connection.execute(delete(idempotency_keys).where(table.owner == owner, over))
    row = {"owner": owner, "key": key, "fingerprint": fingerprint, "created_at": now}
    inserted = await connection.execute(insert_missing(connection, idempotency_keys), row)
    if inserted.rowcount:
        return Claim(is_first=True)
    stored = (await connection.execute(select(idempotency_keys).where(table.owner == owner, table.key == key))).one()
    if stored.fingerprint != fingerprint:
        return Claim(is_first=False, is_same=False)
    if stored.status is None:
        return Claim(is_first=False)
    return Claim(is_first=False, response=StoredResponse(stored.status, stored.body or "", stored.content_type or ""))


async def complete(connection: AsyncConnection, owner: str, key: str, response: StoredResponse | None) -> None:
    mine = and_(idempotency_keys.c.owner == owner, idempotency_keys.c.key == key)
    if response is None:
        await connection.execute(delete(idempotency_keys).where(mine))
    else:
        await connection.execute(update(idempotency_keys).where(mine).values(**response._asdict()))


class Idempotency:
    """The resource `registry.idempotency`. `owner` is the id of an API key: two keys never share an idempotency key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, owner: str, key: str, fingerprint: str) -> Claim:
        """Register a request, unless one with this key is known. `fingerprint` is equal for equal requests."""
        return await self._database.write(claim, owner, key, fingerprint)

    async def complete(self, owner: str, key: str, response: StoredResponse | None) -> None:
        """Store the response, or with None forget the request, so that it may be sent again."""
        await self._database.write(complete, owner, key, response)
