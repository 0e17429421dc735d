"""Ticks: the resource `registry.ticks`. What each schedule has published, and for which time."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import TickRecord
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import ticks

_COLUMNS = (ticks.c.schedule, ticks.c.scheduled_at, ticks.c.state, ticks.c.event_key, ticks.c.workflow_id)


async def add(connection: AsyncConnection, record: TickRecord) -> None:
    row = {**record.model_dump(), "state": str(record.state), "recorded_at": datetime.now(UTC)}
    await connection.execute(insert_missing(connection, ticks), row)


async def list_(
    connection: AsyncConnection, schedule: str, *, since: datetime, until: datetime, limit: int
) -> list[TickRecord]:
    query = (
        select(*_COLUMNS)
        .where(ticks.c.schedule == schedule, ticks.c.scheduled_at >= since, ticks.c.scheduled_at <= until)
        .order_by(ticks.c.scheduled_at.desc())
        .limit(limit)
    )
    return [TickRecord(**row) for row in (await connection.execute(query)).mappings()]


async def forget(connection: AsyncConnection, *, before: datetime) -> None:
    """Delete the ticks that were scheduled before `before`."""
    await connection.execute(delete(ticks).where(ticks.c.scheduled_at < before))


class Ticks:
    """The resource `registry.ticks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: TickRecord) -> None:
        """Store a tick, unless one of its schedule and time is stored."""
        await self._database.write(add, record)

    async def list(
        self, schedule: str, *, since: datetime, until: datetime, limit: int = 1_000
    ) -> Sequence[TickRecord]:
        """The ticks of a schedule in a range of time, both ends included, newest first."""
        return await self._database.read(list_, schedule, since=since, until=until, limit=limit)
