"""Access tokens of providers: rows, and the resource `registry.provider_tokens`.

Many providers give an account one token at a time, and some end the old one as soon as they issue another. So all workers use
the token of one row. The worker that claims the row gets the next token; no connection is held while the provider is asked.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.provider_tables import provider_tokens


class StoredToken(NamedTuple):
    """The token of an account."""

    #: Never logged, and never in a history.
    token: str
    #: Which of the account's tokens it is, from 1.
    generation: int
    fetched_at: datetime
    expires_at: datetime


async def get(connection: AsyncConnection, provider: str, account: str) -> StoredToken | None:
    row = (await connection.execute(select(provider_tokens).where(*_key(provider, account)))).one_or_none()
    if row is None or row.token is None:
        return None
    return StoredToken(row.token, row.generation, row.fetched_at, row.expires_at)


async def claim(
    connection: AsyncConnection, provider: str, account: str, *, generation: int, by: str, lasting: timedelta
) -> bool:
    now = datetime.now(UTC)
    row = {"provider": provider, "account": account, "generation": 0}
    await connection.execute(insert_missing(connection, provider_tokens), row)
    free = or_(provider_tokens.c.claimed_until.is_(None), provider_tokens.c.claimed_until < now)
    claimed = await connection.execute(
        update(provider_tokens)
        .where(*_key(provider, account), provider_tokens.c.generation == generation, free)
        .values(claimed_by=by, claimed_until=now + lasting)
    )
    return bool(claimed.rowcount)


async def store(
    connection: AsyncConnection, provider: str, account: str, *, generation: int, token: str, expires_at: datetime
) -> StoredToken | None:
    now = datetime.now(UTC)
    stored = await connection.execute(
        update(provider_tokens)
        .where(*_key(provider, account), provider_tokens.c.generation == generation)
        .values(
            generation=generation + 1,
            token=token,
            expires_at=expires_at,
            fetched_at=now,
            claimed_by=None,
            claimed_until=None,
        )
    )
    return StoredToken(token, generation + 1, now, expires_at) if stored.rowcount else None


async def release(connection: AsyncConnection, provider: str, account: str, *, by: str) -> None:
    await connection.execute(
        update(provider_tokens)
        .where(*_key(provider, account), provider_tokens.c.claimed_by == by)
        .values(claimed_by=None, claimed_until=None)
    )


def _key(provider: str, account: str) -> tuple[ColumnElement[bool], ...]:
    return provider_tokens.c.provider == provider, provider_tokens.c.account == account


class ProviderTokens:
    """The resource `registry.provider_tokens`: one token for each account with a provider."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, provider: str, account: str) -> StoredToken | None:
        """Return the account's token; None before the first one. It may have expired."""
        return await self._database.read(get, provider, account)

    async def claim(self, provider: str, account: str, *, generation: int, by: str, lasting: timedelta) -> bool:
        """Return whether the caller `by` is to get the token after `generation` (0: the first one).

        False while another caller has claimed it, for up to `lasting`, and if the generation is not the stored one.
        """
        return await self._database.write(claim, provider, account, generation=generation, by=by, lasting=lasting)

    async def store(
        self, provider: str, account: str, *, generation: int, token: str, expires_at: datetime
    ) -> StoredToken | None:
        """Store the token after `generation` and end the claim; None if another caller has stored one meanwhile."""
        return await self._database.write(
            store, provider, account, generation=generation, token=token, expires_at=expires_at
        )

    async def release(self, provider: str, account: str, *, by: str) -> None:
        """End the caller's claim without a token, so that others may ask at once."""
        await self._database.write(release, provider, account, by=by)
