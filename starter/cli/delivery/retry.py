"""`deliveries retry`: attempt one delivery now, or redeliver many that have settled."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bellwire.deliveries import SETTLED, DeliveryState
from bellwire.formats.counts import counted
from bellwire.formats.durations import format_duration
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from starter.cli.delivery.events import SourceOption
from starter.cli.input.times import parse_past
from starter.cli.terminal import AsJson, command, confirm, connected, console, note, opened_registry, print_json
from starter.operations.delivery import deliveries, redelivering
from starter.operations.delivery.deliveries import parse_key
from starter.operations.delivery.events import get_event
from starter.operations.delivery.redelivering import DEFAULT_RATE, Selected, Selection
from starter.operations.problems import InputInvalid

#: Seconds between two lines of progress where there is no terminal to draw a bar on.
_LINE_SECONDS = 10.0


@command
async def retry(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[DELIVERY_ID]", help="Id of one delivery.")] = None,
    event_id: Annotated[str | None, typer.Option("--event", help="Only of the event with this id.")] = None,
    source: SourceOption = None,
    subscription_id: Annotated[str | None, typer.Option("--subscription", help="Only for this subscription.")] = None,
    states: Annotated[
        str | None,
        typer.Option("--state", help="Many: only in these states; rejected,exhausted if omitted."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Many: settled since then: 2h ago, or 2026-11-29T08:00:00Z.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Many: settled before then; before this command if omitted.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Many: only of tenants whose name matches, such as 'acme*'.")
    ] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="GLOB", help="Many: only of event types that match: 'order.*'.")
    ] = None,
    channel: Annotated[Channel | None, typer.Option(help="Many: only of this channel.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="PER_SECOND", help=f"Many: at most so many a second; {DEFAULT_RATE:g} if omitted."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Many: count them, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Many: do not ask.")] = False,
    end_pause: Annotated[bool, typer.Option("--end-pause", help="One: also if it is paused; it is resumed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Attempt one delivery now, or send many that failed again.

    One is named by DELIVERY_ID, or by --event and --subscription: if it waits, it is attempted without using up its schedule; if
    it has settled, it is redelivered. Other options select many, which are counted first, and then redelivered with a new
    schedule and the same ids. Deliveries that wait, and those of subscriptions that are paused or disabled, are left out.
    """
    selecting = (states, since, until, tenant, event_type, channel)
    given = any(value is not None for value in (*selecting, rate)) or dry_run or yes
    if delivery_id is not None or (event_id is not None and subscription_id is not None and not given):
        if delivery_id is not None and (event_id is not None or subscription_id is not None or given):
            raise InputInvalid("cannot be combined with options that select deliveries", field="DELIVERY_ID")
        await _retry_one(delivery_id, event_id, source, subscription_id, end_pause=end_pause, as_json=as_json)
        return
    if end_pause:
        raise InputInvalid("ends the pause of one delivery only", field="--end-pause", remedy="omit it")
    if all(value is None for value in (event_id, subscription_id, *selecting)):
        raise InputInvalid("give a delivery id, or options that select deliveries", field="DELIVERY_ID")
    now = datetime.now(UTC)
    selection = Selection(
        states=_states(states) if states is not None else Selection.states,
        subscription_id=subscription_id,
        tenant=tenant,
        type=event_type,
        channel=channel,
        since=None if since is None else parse_past("--since", since, now=now),
        until=now if until is None else parse_past("--until", until, now=now),
    )
    async with opened_registry(Settings.read()) as registry:
        if event_id is not None:
            selection = replace(selection, event_key=(await get_event(registry, event_id, source)).event.key)
        await _retry_many(
            registry, selection, rate=DEFAULT_RATE if rate is None else rate, dry_run=dry_run, yes=yes, as_json=as_json
        )


async def _retry_one(
    delivery_id: str | None,
    event_id: str | None,
    source: str | None,
    subscription_id: str | None,
    *,
    end_pause: bool,
    as_json: bool,
) -> None:
    key = None if delivery_id is None else parse_key(delivery_id, field="DELIVERY_ID")
    async with opened_registry(Settings.read()) as registry:
        if key is not None:
            found = await deliveries.get_delivery(registry, key)
        else:
            found = await deliveries.find_delivery(
                registry, event_id=event_id or "", source=source, subscription_id=subscription_id or ""
            )
        workflow_id = await deliveries.retry_delivery(await connected(), registry, found, end_pause=end_pause)
    if as_json:
        print_json({"id": found.delivery.id, "workflow_id": workflow_id})
    else:
        console().print(f"{found.delivery.id} is attempted by {workflow_id}")


async def _retry_many(
    registry: Registry, selection: Selection, *, rate: float, dry_run: bool, yes: bool, as_json: bool
) -> None:
    redelivering.check_rate(rate)
    selected = await redelivering.count_selected(registry, selection)
    progress = redelivering.Progress()
    _note_selected(selected, rate)
    if selected.total and not dry_run:
        if not yes:
            confirm("redeliver them?")
        running = redelivering.redeliver(await connected(), registry, selection, rate=rate)
        try:
            async for so_far in _shown(running, selected.total):
                progress = so_far
        finally:
            if progress.done < selected.total:
                bounds = [("--since", selection.since), ("--until", selection.until)]
                again = " ".join(f"{name} {time.isoformat()}" for name, time in bounds if time is not None)
                note(f"{progress.done:,} of {selected.total:,} done; to continue, run the same command with {again}")
    if as_json:
        states = {str(state): number for state, number in selected.states.items()}
        inactive = {str(state): number for state, number in selected.inactive.items()}
        counts = {"selected": selected.total, "states": states, "inactive_subscriptions": inactive}
        print_json({**counts, "redelivered": progress.redelivered, "left_out": progress.left_out})
    elif not dry_run and selected.total:
        left_out = f"; {progress.left_out:,} sent by something else meanwhile" if progress.left_out else ""
        console().print(f"{counted(progress.redelivered, 'delivery')} redelivered{left_out}")


def _states(text: str) -> tuple[DeliveryState, ...]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in set(DeliveryState)]:
        raise InputInvalid(
            f"{unknown[0][:40]!r} is not a state of a delivery",
            field="--state",
            remedy=f"give {', '.join(sorted(SETTLED))}",
        )
    return tuple(map(DeliveryState, names))


def _note_selected(selected: Selected, rate: float) -> None:
    states = ", ".join(f"{number:,} {state}" for state, number in selected.states.items())
    lasting = f"; about {format_duration(max(1, round(selected.total / rate)))} at {rate:g} per second"
    note(f"{counted(selected.total, 'delivery')} to redeliver" + (f": {states}{lasting}" if selected.total else ""))
    for state, number in selected.inactive.items():
        note(f"{number:,} more left out: the subscription is {state}; `subscriptions resume` it first")


async def _shown(done: AsyncIterator[redelivering.Progress], total: int) -> AsyncIterator[redelivering.Progress]:
    """The progress as it comes, drawn as a bar on a terminal, or noted in lines."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("redelivering", total=total)
        started = noted = datetime.now(UTC)
        async for progress in done:
            bar.update(task, completed=progress.done)
            now = datetime.now(UTC)
            if not screen.is_terminal and (now - noted).total_seconds() >= _LINE_SECONDS:
                noted = now
                left = (now - started) / progress.done * max(0, total - progress.done)
                remaining = format_duration(max(1, round(left.total_seconds())))
                note(f"{progress.done:,} of {total:,} done, about {remaining} left")
            yield progress
