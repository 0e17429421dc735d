"""Recurring publications: schedules of the real server, triggered and backfilled, with the ticks that they leave."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from bellwire import Event
from bellwire.catalog.event_types import NewEventType
from bellwire.events import uuid7
from bellwire.registry.db.auditing import Actor, acting
from starter.operations.problems import InputInvalid
from starter.operations.scheduling.schedules import (
    ScheduleExists,
    ScheduleNotFound,
    backfill_schedule,
    create_schedule,
    delete_schedule,
    get_schedule,
    list_schedules,
    pause_schedule,
    resume_schedule,
    trigger_schedule,
)
from starter.operations.scheduling.specs import NewSchedule
from starter.operations.scheduling.ticks import ScheduledState, ScheduledTick, list_ticks
from tests.acceptance.conftest import System
from tests.acceptance.test_publishing_later import PATIENCE, starter


def named(kind: str, **fields: Any) -> NewSchedule:
    """A schedule of a name of its own that ticks at half past two in the night, unless `fields` say otherwise."""
    name = f"{kind}-{uuid7()}"
    event = Event(source=f"/schedules/{name}", type=f"schedules.{kind}", data={"kind": kind})
    return replace(NewSchedule(name=name, event=event, cron=("30 2 * * *",)), **fields)


async def until_ticks(
    system: System, name: str, wanted: Callable[[Sequence[ScheduledTick]], bool], *, since: datetime | None = None
) -> list[ScheduledTick]:
    async with asyncio.timeout(PATIENCE):
        while not wanted(found := await list_ticks(system.client, system.registry, name, since=since)):
            await asyncio.sleep(0.2)
    return found


async def test_a_trigger_publishes_an_event_that_is_delivered_and_recorded(system: System) -> None:
    new = named("triggered", paused=True)
    await system.hook("/schedules-triggered", new.event.type)
    created = await create_schedule(system.client, system.registry, new)
    assert (created.paused, created.facts.catch_up) == (True, 86_400)
    await trigger_schedule(system.client, system.registry, new.name)
    (tick,) = await until_ticks(system, new.name, lambda found: len(found) == 1)
    assert (tick.state, tick.extra) == (ScheduledState.PUBLISHED, True)
    status = await system.client.wait((new.event.source, tick.event_id), timeout=PATIENCE)
    assert status.counts.delivered == 1
    (stored,) = await system.registry.events.with_id(tick.event_id)
    assert (stored.event.data, stored.event.time) == ({"kind": "triggered"}, tick.scheduled_at)
    await delete_schedule(system.client, system.registry, new.name)


async def test_an_hour_that_comes_twice_ticks_twice_and_publishes_once_with_once_a_day(system: System) -> None:
    """The clocks of New York go back from 02:00 to 01:00 on 1 November 2026."""
    zone = {"time_zone": "America/New_York", "cron": ("30 1 * * *",), "paused": True}
    plain, daily = named("twice", **zone), named("once", **zone, once_a_day=True)
    since, until = datetime(2026, 10, 31, 12, tzinfo=UTC), datetime(2026, 11, 2, 12, tzinfo=UTC)
    for new in (plain, daily):
        await create_schedule(system.client, system.registry, new)
        await backfill_schedule(system.client, system.registry, new.name, since=since, until=until)
    found = await until_ticks(system, plain.name, lambda found: len(found) >= 3, since=since)
    assert [f"{tick.scheduled_at:%m-%dT%H:%M}" for tick in found] == ["11-02T06:30", "11-01T06:30", "11-01T05:30"]
    assert {tick.state for tick in found} == {ScheduledState.PUBLISHED}
    found = await until_ticks(system, daily.name, lambda found: len(found) >= 3, since=since)
    twice = [tick for tick in found if tick.event_id == f"{daily.name}-2026-11-01"]
    assert sorted(tick.state for tick in twice) == [ScheduledState.DUPLICATE, ScheduledState.PUBLISHED]
    assert len({tick.event_key for tick in twice}) == 1
    for new in (plain, daily):
        await delete_schedule(system.client, system.registry, new.name)


async def test_a_time_that_does_not_exist_is_skipped(system: System) -> None:
    """The clocks of Berlin go forward from 02:00 to 03:00 on 29 March 2026."""
    new = named("skipped", time_zone="Europe/Berlin", paused=True)
    since, until = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
    await create_schedule(system.client, system.registry, new)
    await backfill_schedule(system.client, system.registry, new.name, since=since, until=until)
    found = await until_ticks(system, new.name, lambda found: len(found) >= 2, since=since)
    assert [f"{tick.scheduled_at:%m-%dT%H:%M}" for tick in found] == ["03-30T00:30", "03-28T01:30"]
    await delete_schedule(system.client, system.registry, new.name)


def at_least(number: int, found: Sequence[ScheduledTick]) -> bool:
    return len(found) >= number


async def test_a_backfill_publishes_nothing_twice(system: System) -> None:
    new = named("backfilled", paused=True)
    await system.hook("/schedules-backfilled", new.event.type)
    await create_schedule(system.client, system.registry, new)
    day = datetime(2026, 5, 4, 2, 30, tzinfo=UTC)
    for expected in (3, 5):
        until = day + timedelta(days=expected - 1)
        await backfill_schedule(system.client, system.registry, new.name, since=day, until=until)
        found = await until_ticks(system, new.name, partial(at_least, expected), since=day)
    for tick in found:
        status = await system.client.wait((new.event.source, tick.event_id), timeout=PATIENCE)
        assert status.counts.delivered == 1
    received = [each for each in system.hooks.received if each.path == "/schedules-backfilled"]
    assert len(received) == len(found) == 5
    await delete_schedule(system.client, system.registry, new.name)


@pytest.mark.slow
async def test_schedules_are_managed_by_commands_and_audited(system: System) -> None:
    name = f"commanded-{uuid7()}"
    created = await starter(
        system,
        *("schedules", "create", name, "--type", "schedules.commanded", "--tenant", "acme", "--data", '{"n": 1}'),
        *("--cron", "0 9 * * MON-FRI", "--time-zone", "Europe/Berlin", "--catch-up", "2h"),
    )
    assert (created["cron"], created["catch_up"], created["paused"]) == (["0 9 * * MON-FRI"], 7200, False)
    shown = await starter(system, "schedules", "show", name)
    assert (shown["source"], shown["event"]["data"], len(shown["next"])) == (f"/schedules/{name}", {"n": 1}, 10)
    async with asyncio.timeout(PATIENCE):
        while name not in {each.name for each in await list_schedules(system.client)}:
            await asyncio.sleep(0.2)
    await starter(system, "schedules", "pause", name, "--note", "holidays")
    shown = await starter(system, "schedules", "show", name)
    assert (shown["paused"], shown["note"], shown["next"]) == (True, "holidays", [])
    await starter(system, "schedules", "trigger", name)
    await until_ticks(system, name, lambda found: len(found) == 1)
    (tick,) = await starter(system, "schedules", "ticks", name)
    assert (tick["state"], tick["extra"]) == ("published", True)
    await starter(system, "schedules", "resume", name)
    await starter(system, "schedules", "delete", name, "--yes")
    with pytest.raises(ScheduleNotFound):
        await get_schedule(system.client, name)
    entries = await system.registry.audit_log.list(resource=name)
    assert {entry.tenant for entry in entries} == {"acme"}
    assert [entry.action for entry in entries][::-1] == [
        *("schedule.created", "schedule.paused", "schedule.triggered", "schedule.resumed", "schedule.deleted")
    ]


async def test_what_temporal_cannot_schedule_is_refused_and_leaves_nothing(system: System) -> None:
    for cron, message in (
        ("99 * * * *", "cron: Minute is not in range"),
        ("0 0 30 2 *", "cron: never comes"),
        ("*/10 * * * * * *", "cron: ticks more than once a minute"),
    ):
        new = named("refused", cron=(cron,))
        with pytest.raises(InputInvalid, match=message):
            await create_schedule(system.client, system.registry, new)
        with pytest.raises(ScheduleNotFound):
            await get_schedule(system.client, new.name)
    new = named("taken", paused=True)
    await create_schedule(system.client, system.registry, new)
    with pytest.raises(ScheduleExists):
        await create_schedule(system.client, system.registry, new)
    await delete_schedule(system.client, system.registry, new.name)
    with pytest.raises(ScheduleNotFound):
        await pause_schedule(system.client, system.registry, new.name)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_times_that_passed_unpublished_are_seen_as_paused_or_missed(system: System) -> None:
    audited = named("paused", cron=(), every=timedelta(minutes=1))
    unknown = named("missed", cron=(), every=timedelta(minutes=1))
    for new in (audited, unknown):
        await create_schedule(system.client, system.registry, new)
    with acting(Actor("ann", "laptop")):
        await pause_schedule(system.client, system.registry, audited.name)
    # Nobody knows why this one did not tick.
    await system.client.temporal.get_schedule_handle(unknown.name).pause()
    states: dict[str, set[ScheduledState]] = {}
    async with asyncio.timeout(300):
        while states.get(unknown.name, set()) & {ScheduledState.MISSED} == set():
            for new in (audited, unknown):
                found = await list_ticks(system.client, system.registry, new.name)
                states[new.name] = {tick.state for tick in found}
            await asyncio.sleep(1)
    assert ScheduledState.PAUSED in states[audited.name]
    assert ScheduledState.MISSED not in states[audited.name]
    missed = await list_ticks(system.client, system.registry, unknown.name, state=ScheduledState.MISSED)
    # What was missed can be published later.
    times = [tick.scheduled_at for tick in missed]
    await backfill_schedule(system.client, system.registry, unknown.name, since=min(times), until=max(times))
    await until_ticks(
        system,
        unknown.name,
        lambda found: {tick.state for tick in found if tick.scheduled_at in times} == {ScheduledState.PUBLISHED},
    )
    await resume_schedule(system.client, system.registry, audited.name)
    for new in (audited, unknown):
        await delete_schedule(system.client, system.registry, new.name)


async def test_a_schedule_of_an_event_that_would_be_refused_is_not_created(system: System) -> None:
    new = named("checked", paused=True)
    wanted = {"type": "object", "required": ["total"]}
    await system.registry.event_types.put(NewEventType.model_validate({"type": new.event.type, "schema": wanted}))
    with pytest.raises(InputInvalid, match="total"):
        await create_schedule(system.client, system.registry, new)
    foreign = named("foreign", paused=True)
    foreign = replace(foreign, event=foreign.event.model_copy(update={"tenant": f"nobody-{uuid7().hex}"}))
    with pytest.raises(InputInvalid, match="tenant: nobody"):
        await create_schedule(system.client, system.registry, foreign, refuse_tenants=True)
    with pytest.raises(InputInvalid, match=r"type: .* is not in the catalog"):
        await create_schedule(system.client, system.registry, foreign, refuse_types=True)
    for schedule in (new, foreign):
        with pytest.raises(ScheduleNotFound):
            await get_schedule(system.client, schedule.name)
    await create_schedule(system.client, system.registry, foreign)
    await delete_schedule(system.client, system.registry, foreign.name)
