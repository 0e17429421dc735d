"""Ticks of schedules."""

from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import insert

from bellwire import Client
from bellwire.contract import TickInput, TickRecord, TickState
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import ticks as table
from starter.operations.problems import InputInvalid
from starter.operations.scheduling import ticks
from starter.operations.scheduling.schedules import ScheduleDetails
from starter.operations.scheduling.specs import ScheduleFacts
from tests.factories import NOW, event


def record(hours: int, *, schedule: str = "report", state: TickState = TickState.PUBLISHED) -> TickRecord:
    return TickRecord(
        schedule=schedule,
        scheduled_at=NOW + timedelta(hours=hours),
        state=state,
        event_key=f"key-{hours}",
        workflow_id=f"event//schedules/report/{hours}",
    )


async def test_the_ticks_of_a_range_are_listed_newest_first(registry: Registry) -> None:
    for hours in range(4):
        await registry.ticks.add(record(hours))
    await registry.ticks.add(record(1, schedule="other"))
    found = await registry.ticks.list("report", since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=2))
    assert found == [record(2), record(1)]
    newest = await registry.ticks.list("report", since=NOW, until=NOW + timedelta(days=1), limit=1)
    assert newest == [record(3)]


async def test_a_tick_that_is_stored_is_not_changed(registry: Registry) -> None:
    await registry.ticks.add(record(1))
    await registry.ticks.add(record(1, state=TickState.DUPLICATE))
    assert await registry.ticks.list("report", since=NOW, until=NOW + timedelta(days=1)) == [record(1)]


async def test_old_ticks_are_purged(registry: Registry) -> None:
    await registry.ticks.add(record(-5))
    await registry.ticks.add(record(5))
    since, until = NOW - timedelta(days=1), NOW + timedelta(days=1)
    await registry.retention.purge(before=NOW, dry_run=True)
    assert len(await registry.ticks.list("report", since=since, until=until)) == 2
    await registry.retention.purge(before=NOW)
    assert await registry.ticks.list("report", since=since, until=until) == [record(5)]


def minutes(number: int) -> list[datetime]:
    return [NOW - timedelta(minutes=minute) for minute in range(number)]


async def recorded(database: Database, times: list[datetime]) -> None:
    rows = [{**record(0, state=TickState.DUPLICATE).model_dump(), "scheduled_at": time} for time in times]
    rows = [{**row, "state": str(row["state"]), "recorded_at": NOW} for row in rows]

    async def add(connection: Any) -> None:
        await connection.execute(insert(table), rows)

    await database.write(add)


async def test_all_ticks_of_a_range_are_compared(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = minutes(1_300)
    details = ScheduleDetails(
        name="report",
        facts=ScheduleFacts(type="report.due", source="/schedules/report", tenant="default", time_zone="UTC"),
        paused=False,
        note="",
        next_times=(),
        created_at=times[-1],
        tick=TickInput(schedule="report", event=event(), time_zone="UTC"),
        running=(),
    )

    async def scheduled(*_: object) -> Any:
        return details

    async def matching(*_: object) -> Any:
        return times

    monkeypatch.setattr(ticks, "get_schedule", scheduled)
    monkeypatch.setattr(ticks, "_matching_times", matching)
    client = cast(Client, type("Fake", (), {"temporal": None})())
    await recorded(database, times[:1_200])
    # It was published, and could not be recorded.
    await registry.events.accept([details.tick.event_at(times[1_200])], "workflow")
    found = await ticks.list_ticks(client, registry, "report", since=times[-1], until=NOW, limit=10_000)
    states = [str(tick.state) for tick in found]
    assert states == ["duplicate"] * 1_200 + ["published"] + ["missed"] * 99
    await recorded(database, [NOW - timedelta(minutes=minute, seconds=30) for minute in range(1_300, 1_400)])
    monkeypatch.setattr(ticks, "MAX_RECORDS", 1_299)
    with pytest.raises(InputInvalid, match="more than 1,299 ticks"):
        await ticks.list_ticks(client, registry, "report", since=NOW - timedelta(days=30), until=NOW)
