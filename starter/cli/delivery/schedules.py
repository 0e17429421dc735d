"""`schedules`: publish events by the clock; list, show, pause, resume, trigger, backfill and delete them, and their ticks."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from bellwire.events import Event
from bellwire.formats.durations import format_duration
from bellwire.service.settings import Settings
from starter.cli.input.documents import read_value
from starter.cli.input.durations import parse_duration
from starter.cli.input.times import parse_past
from starter.cli.tables import print_facts, print_table
from starter.cli.terminal import AsJson, command, confirm, connected, console, group, opened_registry, print_json
from starter.operations.scheduling import schedules as operations
from starter.operations.scheduling.schedules import FoundSchedule, get_schedule, list_schedules
from starter.operations.scheduling.specs import NewSchedule
from starter.operations.scheduling.ticks import ScheduledState, list_ticks

app = group(
    "Publish events by the clock: create, list, show, pause, resume, trigger or delete a schedule; list its ticks."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
Note = Annotated[str, typer.Option(help="Why: `schedules show` prints it.")]


@app.command("create")
@command
async def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, such as daily-report; part of each event's id.")
    ],
    event_type: Annotated[str, typer.Option("--type", help="Event type: report.due.")],
    source: Annotated[str | None, typer.Option(help="Source of the events; /schedules/NAME if omitted.")] = None,
    data: Annotated[str | None, typer.Option(help="Data of each event as JSON, or @FILE.")] = None,
    subject: Annotated[str | None, typer.Option(help="Subject of each event.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant that the events are for, * for all; `default` if omitted.")
    ] = None,
    cron: Annotated[
        list[str] | None, typer.Option(help="When, as a cron expression: '0 9 * * MON-FRI'. Repeatable.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Or how often, at least 1m: 15m, 6h. Counted from 1970 in UTC.")
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Time zone of --cron: Europe/Berlin.")] = "UTC",
    catch_up: Annotated[
        str | None, typer.Option(help="How late a tick may be after an outage of Temporal; one period if omitted.")
    ] = None,
    once_a_day: Annotated[
        bool,
        typer.Option(
            "--once-a-day", help="Publish one event per date, also when the clocks go back and an hour repeats."
        ),
    ] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a schedule that publishes an event at each of its times."""
    given = {
        "id": name,
        "type": event_type,
        "source": f"/schedules/{name}" if source is None else source,
        "data": None if data is None else read_value("--data", data),
        "subject": subject,
        "tenant": tenant,
    }
    new = NewSchedule(
        name=name,
        event=Event.parse({key: value for key, value in given.items() if value is not None}),
        cron=tuple(cron or ()),
        every=None if every is None else timedelta(seconds=parse_duration("--every", every)),
        time_zone=time_zone,
        catch_up=None if catch_up is None else timedelta(seconds=parse_duration("--catch-up", catch_up)),
        once_a_day=once_a_day,
        paused=paused,
    )
    settings = Settings.read()
    async with opened_registry(settings) as registry:
        created = await operations.create_schedule(
            await connected(),
            registry,
            new,
            refuse_tenants=settings.unknown_tenants == "refuse",
            refuse_types=settings.unknown_types == "refuse",
        )
    _print(created, as_json=as_json)


@app.command("list")
@command
async def list_(as_json: AsJson = False) -> None:
    """List schedules. One that was created or changed a second ago may not be up to date."""
    found = await list_schedules(await connected())
    if as_json:
        print_json([_as_json(schedule) for schedule in found])
        return
    rows = [
        (
            each.name,
            each.facts.type,
            each.facts.tenant,
            each.facts.times,
            "paused" if each.paused else "active",
            next(iter(each.next_times), None),
        )
        for each in found
    ]
    print_table(("schedule", "type", "tenant", "times", "state", "next"), rows)


@app.command("show")
@command
async def show(name: Name, as_json: AsJson = False) -> None:
    """Show a schedule, its event and its next times."""
    found = await get_schedule(await connected(), name)
    event = found.tick.event.structured()
    template = {key: value for key, value in event.items() if key not in {"id", "time"}}
    if as_json:
        print_json({**_as_json(found), "created_at": found.created_at.isoformat(), "event": template})
        return
    _print(found, as_json=False)
    if found.tick.event.data is not None:
        console().print_json(data=found.tick.event.data)


@app.command("pause")
@command
async def pause(name: Name, note: Note = "", as_json: AsJson = False) -> None:
    """Let a schedule tick no more until `schedules resume`."""
    async with opened_registry(Settings.read()) as registry:
        await operations.pause_schedule(await connected(), registry, name, note=note)
    _done(name, "paused", as_json=as_json)


@app.command("resume")
@command
async def resume(name: Name, note: Note = "", as_json: AsJson = False) -> None:
    """Let a schedule tick again. What came due meanwhile is not published; `schedules backfill` does that."""
    async with opened_registry(Settings.read()) as registry:
        await operations.resume_schedule(await connected(), registry, name, note=note)
    _done(name, "resumed", as_json=as_json)


@app.command("trigger")
@command
async def trigger(name: Name, as_json: AsJson = False) -> None:
    """Publish the event of a schedule now, though it may be paused."""
    async with opened_registry(Settings.read()) as registry:
        await operations.trigger_schedule(await connected(), registry, name)
    _done(name, "triggered", as_json=as_json)


@app.command("backfill")
@command
async def backfill(
    name: Name,
    since: Annotated[str, typer.Option(help="From this time on, or from so long ago: 2026-11-29T08:00:00Z, 2d.")],
    until: Annotated[str | None, typer.Option(help="Up to this time; until now if omitted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish the events of all times in a range, such as those that were missed. None is published twice."""
    now = datetime.now(UTC)
    start = parse_past("--since", since, now=now)
    end = now if until is None else parse_past("--until", until, now=now)
    async with opened_registry(Settings.read()) as registry:
        await operations.backfill_schedule(await connected(), registry, name, since=start, until=end)
    _done(name, "backfilled", as_json=as_json)


@app.command("delete")
@command
async def delete(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Delete a schedule. What it has published stays published."""
    if not yes:
        confirm(f"Delete the schedule {name}?")
    async with opened_registry(Settings.read()) as registry:
        await operations.delete_schedule(await connected(), registry, name)
    _done(name, "deleted", as_json=as_json)


@app.command("ticks")
@command
async def ticks(
    name: Name,
    since: Annotated[
        str | None, typer.Option(help="Since this time, or so long ago: 2d. Omitted: since it was created, at most 7d.")
    ] = None,
    missed: Annotated[bool, typer.Option("--missed", help="Only those that published nothing.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the times of a schedule until now, newest first, with what became of each."""
    start = None if since is None else parse_past("--since", since, now=datetime.now(UTC))
    async with opened_registry(Settings.read()) as registry:
        found = await list_ticks(
            await connected(), registry, name, since=start, limit=limit, state=ScheduledState.MISSED if missed else None
        )
    if as_json:
        print_json(
            [
                {
                    "scheduled_at": each.scheduled_at.isoformat(),
                    "state": str(each.state),
                    "event": each.event_id,
                    "key": each.event_key,
                    "extra": each.extra,
                }
                for each in found
            ]
        )
        return
    rows = [
        (each.scheduled_at, each.state, "triggered" if each.extra else "", each.event_id, each.event_key)
        for each in found
    ]
    print_table(("time", "state", "", "event", "event key"), rows)


def _as_json(schedule: FoundSchedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        **schedule.facts.model_dump(mode="json"),
        "paused": schedule.paused,
        "note": schedule.note,
        "next": [time.isoformat() for time in schedule.next_times],
    }


def _print(schedule: FoundSchedule, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(schedule))
        return
    facts = schedule.facts
    print_facts(
        [
            ("schedule", schedule.name),
            ("type", facts.type),
            ("source", facts.source),
            ("subject", facts.subject),
            ("tenant", facts.tenant),
            ("times", facts.times),
            ("once a day", "yes" if facts.once_a_day else ""),
            ("catch-up", None if facts.catch_up is None else format_duration(facts.catch_up)),
            ("state", "paused" if schedule.paused else "active"),
            ("note", schedule.note),
            ("next", ", ".join(f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" for time in schedule.next_times[:3])),
        ]
    )


def _done(name: str, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "action": what})
    else:
        console().print(f"{name}: {what}")
