"""Ticks of schedules."""

from datetime import timedelta

from bellwire.contract import TickRecord, TickState
from bellwire.registry import Registry
from tests.factories import NOW


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
