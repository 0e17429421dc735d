"""Grants of WeChat's users: rows, and the resource `registry.wechat_grants`.

A user of WeChat agrees to one message of a template at a time, and each message uses up one agreement. WeChat reports the
agreements to the gateway and tells no count, so they are counted here. Without a row, nothing is known.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.provider_tables import wechat_grants
from bellwire.registry.db.sealed import ring_of
from bellwire.registry.suppressions import address_keys
from bellwire.targets import Channel


class Grantee(NamedTuple):
    """A user of an account, and the template that the user agrees to."""

    account: str
    openid: str
    template_id: str


async def get(connection: AsyncConnection, grantee: Grantee) -> int | None:
    found = await connection.execute(select(wechat_grants.c.count).where(*_key(connection, grantee)))
    return found.scalars().first()


async def add(connection: AsyncConnection, grantee: Grantee, *, at: datetime) -> bool:
    count, counted_at = wechat_grants.c.count, wechat_grants.c.counted_at
    await _insert(connection, grantee)
    counted = await connection.execute(
        update(wechat_grants)
        .where(*_key(connection, grantee), or_(counted_at.is_(None), counted_at < at))
        .values(count=count + 1, counted_at=at)
    )
    return counted.rowcount > 0


async def spend(connection: AsyncConnection, grantee: Grantee) -> None:
    count = wechat_grants.c.count
    await connection.execute(update(wechat_grants).where(*_key(connection, grantee), count > 0).values(count=count - 1))


async def clear(connection: AsyncConnection, grantee: Grantee) -> None:
    await _insert(connection, grantee)
    await connection.execute(update(wechat_grants).where(*_key(connection, grantee)).values(count=0))


async def forget(connection: AsyncConnection, grantee: Grantee) -> None:
    await connection.execute(delete(wechat_grants).where(*_key(connection, grantee)))


async def _insert(connection: AsyncConnection, grantee: Grantee) -> None:
    """Insert a row without grants, unless there is one, perhaps by an older key."""
    if await get(connection, grantee) is not None:
        return
    row = {
        "account": grantee.account,
        "address_key": _keys(connection, grantee)[0],
        "template_id": grantee.template_id,
        "count": 0,
        "counted_at": None,
        "created_at": datetime.now(UTC),
    }
    await connection.execute(insert_missing(connection, wechat_grants), row)


def _keys(connection: AsyncConnection, grantee: Grantee) -> tuple[str, ...]:
    return address_keys(ring_of(connection.dialect), Channel.WECHAT, f"{grantee.account}/{grantee.openid}")


def _key(connection: AsyncConnection, grantee: Grantee) -> tuple[ColumnElement[bool], ...]:
    column = wechat_grants.c
    return (
        column.account == grantee.account,
        column.address_key.in_(_keys(connection, grantee)),
        column.template_id == grantee.template_id,
    )


class WechatGrants:
    """The resource `registry.wechat_grants`: how many messages of a template a user has agreed to and not got yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, grantee: Grantee) -> int | None:
        """Return the count; None if nothing is known."""
        return await self._database.read(get, grantee)

    async def add(self, grantee: Grantee, *, at: datetime) -> bool:
        """Count one more, which the user agreed to at this time; False if it was counted before."""
        return await self._database.write(add, grantee, at=at)

    async def spend(self, grantee: Grantee) -> None:
        """Count one less, if any are known."""
        await self._database.write(spend, grantee)

    async def clear(self, grantee: Grantee) -> None:
        """There are none: WeChat said so, or the user refuses the template."""
        await self._database.write(clear, grantee)

    async def forget(self, grantee: Grantee) -> None:
        """Nothing is known any more."""
        await self._database.write(forget, grantee)
