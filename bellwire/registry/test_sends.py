"""Test sends: what each sent and received, and the resource `registry.test_sends`.

It is private, so it travels through the registry and not through the history of the run. It stays until it is taken, and at
most until the next test send of the subscription.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.exchanges import Exchange, pack, unpack
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import subscriptions, test_sends


async def keep(
    connection: AsyncConnection, subscription_id: str, workflow_id: str, exchanges: Sequence[Exchange]
) -> None:
    packed = pack(exchanges)
    this = subscriptions.c.id == subscription_id
    found = await connection.execute(select(subscriptions.c.id).where(this).with_for_update())
    if packed is None or found.first() is None:
        return
    row = {"workflow_id": workflow_id, "exchanges": packed, "created_at": datetime.now(UTC)}
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(test_sends).values(subscription_id=subscription_id, **row)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["subscription_id"], set_={name: statement.excluded[name] for name in row}
        )
    )


async def take(connection: AsyncConnection, subscription_id: str, workflow_id: str) -> tuple[Exchange, ...]:
    this = (test_sends.c.subscription_id == subscription_id, test_sends.c.workflow_id == workflow_id)
    row = (await connection.execute(select(test_sends.c.exchanges).where(*this))).one_or_none()
    await connection.execute(delete(test_sends).where(*this))
    return () if row is None else unpack(row.exchanges)


async def forget(connection: AsyncConnection, *, before: datetime) -> None:
    await connection.execute(delete(test_sends).where(test_sends.c.created_at < before))


class TestSends:
    """The resource `registry.test_sends`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, subscription_id: str, workflow_id: str, exchanges: Sequence[Exchange]) -> None:
        """Store what this test send sent and received, instead of that of the last one. Nothing if there is none."""
        await self._database.write(keep, subscription_id, workflow_id, exchanges)

    async def take(self, subscription_id: str, workflow_id: str) -> tuple[Exchange, ...]:
        """Return what this test send sent and received, and delete it; nothing if it is not there."""
        return await self._database.write(take, subscription_id, workflow_id)
