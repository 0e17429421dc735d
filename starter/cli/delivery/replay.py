"""`replay`: send past events, or past deliveries again, to a subscription; watch and control that."""

import asyncio
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bellwire.formats.counts import counted
from bellwire.formats.durations import format_duration
from bellwire.registry import Registry
from bellwire.replays import DEFAULT_RATE, Replay
from bellwire.service.settings import Settings
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    command,
    confirm,
    connected,
    console,
    group,
    note,
    opened_registry,
    print_json,
)
from starter.operations.delivery import replaying
from starter.operations.delivery.replaying import ReplayRequest

app = group("Send past events or deliveries to a subscription; list, show, pause, resume or cancel such replays.")

#: Seconds between two looks at the progress, and between two lines of it where there is no terminal to draw a bar on.
_LOOK_SECONDS, _LINE_SECONDS = 0.5, 10.0

_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a replay.")]


@command
async def start(
    subscription: Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Id of a subscription.")],
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 2h ago, or 2026-11-29T08:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then; before now if omitted.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only of events of this type: order.paid or order.*. Repeatable.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Its failed deliveries, by when they settled, instead of past events.")
    ] = False,
    delivery: Annotated[str | None, typer.Option(metavar="ID", help="One settled delivery.")] = None,
    rate: Annotated[float, typer.Option(metavar="PER_SECOND", help="At most so many a second.")] = DEFAULT_RATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send past events that a subscription never got; with --failed or --delivery, past deliveries again.

    They are counted first. Workers carry the replay out, also when this command ends. Ids of deliveries stay the same.
    """
    request = ReplayRequest(delivery=delivery, failed=failed, since=since, until=until, types=types or (), rate=rate)
    async with opened_registry(Settings.read()) as registry:
        found = await registry.subscriptions.get(subscription)
        replay = await replaying.plan_replay(registry, found, request)
        total = await registry.replays.count(replay, found)
        replay = replay.model_copy(update={"total": total})
        _note_total(replay)
        if dry_run or total == 0:
            if as_json:
                print_json({"total": total})
            return
        if not yes:
            confirm("replay them?")
        await replaying.start_replay(await connected(), registry, replay)
        note(f"replay {replay.id}")
        if not detach:
            replay = await _followed(registry, replay)
        await _print(registry, replay, as_json=as_json)


@command
async def list_(
    subscription: Annotated[str | None, typer.Option(help="Only of this subscription.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List replays, newest first."""
    async with opened_registry(Settings.read()) as registry:
        found = await registry.replays.list(tenant=tenant, subscription_id=subscription, limit=limit)
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    rows = [
        (
            each.id,
            each.subscription_id,
            each.kind,
            each.state,
            _progress(each),
            each.created_at.isoformat(" ", "seconds"),
        )
        for each in found
    ]
    print_table(("replay", "subscription", "kind", "state", "done", "created"), rows)


@command
async def show(
    replay_id: _Id,
    follow: Annotated[bool, typer.Option("--follow", help="Show its progress until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a replay and its progress."""
    async with opened_registry(Settings.read()) as registry:
        replay = await registry.replays.get(replay_id)
        if follow:
            replay = await _followed(registry, replay)
        await _print(registry, replay, as_json=as_json)


@command
async def pause(replay_id: _Id, as_json: AsJson = False) -> None:
    """Start nothing more until the replay is resumed."""
    async with opened_registry(Settings.read()) as registry:
        await _print(registry, await replaying.pause_replay(await connected(), registry, replay_id), as_json=as_json)


@command
async def resume(replay_id: _Id, as_json: AsJson = False) -> None:
    """Continue a paused replay."""
    async with opened_registry(Settings.read()) as registry:
        await _print(registry, await replaying.resume_replay(await connected(), registry, replay_id), as_json=as_json)


@command
async def cancel(replay_id: _Id, as_json: AsJson = False) -> None:
    """End a replay: what was not started is not sent."""
    async with opened_registry(Settings.read()) as registry:
        await _print(registry, await replaying.cancel_replay(await connected(), registry, replay_id), as_json=as_json)


for name, function in (
    ("start", start),
    ("list", list_),
    ("show", show),
    ("pause", pause),
    ("resume", resume),
    ("cancel", cancel),
):
    app.command(name)(function)


def _note_total(replay: Replay) -> None:
    if replay.total is None:
        note("too many to count")
        return
    lasting = f"; about {format_duration(max(1, round(replay.total / replay.rate)))} at {replay.rate:g} per second"
    note(f"{counted(replay.total, 'delivery')} to replay" + (lasting if replay.total else ""))


def _progress(replay: Replay) -> str:
    return f"{replay.done:,}" if replay.total is None else f"{replay.done:,} of {replay.total:,}"


async def _followed(registry: Registry, replay: Replay) -> Replay:
    """Draw the progress until the end, as a bar on a terminal, or as lines. Ctrl-C leaves the replay as it is."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("replaying", total=replay.total, completed=replay.done)
        noted = asyncio.get_running_loop().time()
        while not replay.state.ended:
            await asyncio.sleep(_LOOK_SECONDS)
            replay = await registry.replays.get(replay.id)
            bar.update(task, total=replay.total, completed=replay.done, description=str(replay.state))
            now = asyncio.get_running_loop().time()
            if not screen.is_terminal and now - noted >= _LINE_SECONDS:
                noted, left = now, replay.seconds_left
                remaining = "" if left is None else f", about {format_duration(max(1, round(left)))} left"
                note(f"{replay.state}: {_progress(replay)} done{remaining}")
    return replay


async def _print(registry: Registry, replay: Replay, *, as_json: bool) -> None:
    outcomes = {str(state): number for state, number in (await registry.replays.outcomes(replay)).items()}
    if as_json:
        value: dict[str, Any] = {**replay.model_dump(mode="json"), "outcomes": outcomes}
        print_json(value)
        return
    left = replay.seconds_left
    rows = [
        ("replay", replay.id),
        ("subscription", replay.subscription_id),
        ("kind", replay.kind),
        ("state", f"{replay.state}: {replay.state_reason}" if replay.state_reason else replay.state),
        ("done", _progress(replay)),
        ("left", "" if left is None else f"about {format_duration(max(1, round(left)))}"),
        ("deliveries", ", ".join(f"{number:,} {state}" for state, number in outcomes.items())),
        ("rate", f"{replay.rate:g} per second"),
    ]
    print_table(("", ""), [(name, value) for name, value in rows if value])
