"""Replays: rows, and the resource `registry.replays`."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import ReplayCursor, replay_batches_prefix
from bellwire.deliveries import DeliveryState
from bellwire.errors import ReplayNotFound
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries
from bellwire.registry.replays.selecting import Selection, select_next
from bellwire.registry.replays.table import replays
from bellwire.replays import Replay, ReplayState
from bellwire.subscriptions import Subscription

#: Selections that a count makes at most, and their size.
MAX_COUNTED, _COUNTED_AT_ONCE = 100, 5_000
#: Seconds that a count takes at most. A replay begins, and a request is answered, without it.
COUNT_SECONDS = 5.0

_ENDED = sorted(str(state) for state in ReplayState if state.ended)


async def add(connection: AsyncConnection, replay: Replay) -> None:
    row = replay.model_dump()
    row.update({name: json.dumps([str(each) for each in row[name]]) for name in ("states", "types")})
    await connection.execute(insert(replays).values(**{**row, "kind": str(replay.kind), "state": str(replay.state)}))


async def get(connection: AsyncConnection, replay_id: str) -> Replay | None:
    row = (await connection.execute(select(replays).where(replays.c.id == replay_id))).mappings().one_or_none()
    return None if row is None else _replay(row)


async def list_(
    connection: AsyncConnection, *, tenant: str | None, subscription_id: str | None, before: str, limit: int
) -> list[Replay]:
    query = select(replays).order_by(replays.c.id.desc()).limit(limit)
    for column, value in ((replays.c.tenant, tenant), (replays.c.subscription_id, subscription_id)):
        if value is not None:
            query = query.where(column == value)
    if before:
        query = query.where(replays.c.id < before)
    return [_replay(row) for row in (await connection.execute(query)).mappings()]


async def not_started(connection: AsyncConnection, *, before: datetime, limit: int) -> list[Replay]:
    query = (
        select(replays)
        .where(replays.c.started_at.is_(None), replays.c.created_at < before, replays.c.state.not_in(_ENDED))
        .order_by(replays.c.id)
        .limit(limit)
    )
    return [_replay(row) for row in (await connection.execute(query)).mappings()]


async def record_progress(connection: AsyncConnection, replay_id: str, *, done: int) -> Replay | None:
    now = datetime.now(UTC)
    changed = await connection.execute(
        update(replays)
        .where(replays.c.id == replay_id)
        .values(done=done, updated_at=now, started_at=func.coalesce(replays.c.started_at, now))
        .returning(*replays.c)
    )
    row = changed.mappings().one_or_none()
    return None if row is None else _replay(row)


async def set_state(
    connection: AsyncConnection,
    replay_id: str,
    state: ReplayState,
    *,
    if_states: Sequence[ReplayState],
    reason: str | None,
) -> bool:
    now = datetime.now(UTC)
    changed = await connection.execute(
        update(replays)
        .where(replays.c.id == replay_id, replays.c.state.in_([str(each) for each in if_states]))
        .values(state=str(state), state_reason=reason, updated_at=now, ended_at=now if state.ended else None)
    )
    return bool(changed.rowcount)


async def end_wait(connection: AsyncConnection, replay_id: str) -> bool:
    changed = await connection.execute(
        update(replays)
        .where(
            replays.c.id == replay_id,
            replays.c.state == str(ReplayState.PAUSED),
            replays.c.state_reason.is_not(None),
        )
        .values(state=str(ReplayState.RUNNING), state_reason=None, updated_at=datetime.now(UTC))
    )
    return bool(changed.rowcount)


async def set_total(connection: AsyncConnection, replay_id: str, total: int) -> None:
    await connection.execute(update(replays).where(replays.c.id == replay_id).values(total=total))


async def outcomes(connection: AsyncConnection, replay: Replay) -> dict[DeliveryState, int]:
    query = (
        select(deliveries.c.state, func.count())
        .where(
            deliveries.c.subscription_id == replay.subscription_id,
            deliveries.c.workflow_id.startswith(replay_batches_prefix(replay.id), autoescape=True),
        )
        .group_by(deliveries.c.state)
    )
    return {DeliveryState(state): number for state, number in await connection.execute(query)}


def _replay(row: Mapping[Any, Any]) -> Replay:
    values = {name: json.loads(row[name]) for name in ("states", "types")}
    return Replay.model_validate({**row, **values})


class Replays:
    """The resource `registry.replays`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, replay: Replay) -> None:
        """Store a replay, which a workflow carries out once it is started. `subscriptions.create` stores one too."""
        await self._database.write(add, replay)

    async def get(self, replay_id: str) -> Replay:
        """Raises ReplayNotFound."""
        found = await self._database.read(get, replay_id)
        if found is None:
            raise ReplayNotFound(f"no replay has the id {replay_id[:80]}")
        return found

    async def list(
        self, *, tenant: str | None = None, subscription_id: str | None = None, before: str = "", limit: int = 100
    ) -> Sequence[Replay]:
        """Replays, newest first, before the id `before`."""
        return await self._database.read(
            list_, tenant=tenant, subscription_id=subscription_id, before=before, limit=limit
        )

    async def not_started(self, *, before: datetime, limit: int = 100) -> Sequence[Replay]:
        """Replays that were stored before this time, and whose workflow has not begun."""
        return await self._database.read(not_started, before=before, limit=limit)

    async def record_progress(self, replay_id: str, *, done: int) -> Replay | None:
        """Store how many deliveries were attempted, and return the replay; None if it was deleted."""
        return await self._database.write(record_progress, replay_id, done=done)

    async def set_state(
        self, replay_id: str, state: ReplayState, *, if_states: Sequence[ReplayState], reason: str | None = None
    ) -> bool:
        """Change the state if it is one of `if_states`; return whether it was."""
        return await self._database.write(set_state, replay_id, state, if_states=if_states, reason=reason)

    async def end_wait(self, replay_id: str) -> bool:
        """Have a replay run that waits for its subscription; return whether it did. One that an operator paused stays so."""
        return await self._database.write(end_wait, replay_id)

    async def set_total(self, replay_id: str, total: int) -> None:
        """Store how many deliveries it selects."""
        await self._database.write(set_total, replay_id, total)

    async def select(
        self, replay: Replay, subscription: Subscription, *, after: ReplayCursor | None = None, limit: int
    ) -> Selection:
        """Select up to `limit` of its deliveries after the cursor. There may be fewer, and more follow."""
        return await self._database.read(select_next, replay, subscription, after=after, limit=limit)

    async def count(self, replay: Replay, subscription: Subscription) -> int | None:
        """How many deliveries it selects now; None if they are too many to count in a few seconds."""
        total, cursor = 0, None
        with suppress(TimeoutError):
            async with asyncio.timeout(COUNT_SECONDS):
                for _ in range(MAX_COUNTED):
                    selection = await self.select(replay, subscription, after=cursor, limit=_COUNTED_AT_ONCE)
                    total, cursor = total + selection.size, selection.cursor
                    if selection.ended:
                        return total
        return None

    async def outcomes(self, replay: Replay) -> Mapping[DeliveryState, int]:
        """How many of its deliveries are in which state now. Those that something else has redelivered since are left out."""
        return await self._database.read(outcomes, replay)
