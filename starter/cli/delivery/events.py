"""`events`: list them, and those scheduled for later; show one with its deliveries and attempts; pause, resume or cancel its
deliveries."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from bellwire.contract import Action
from bellwire.errors import EventNotFound
from bellwire.formats.counts import counted
from bellwire.receipts import Status
from bellwire.registry import Registry, StoredEvent
from bellwire.service.settings import Settings
from bellwire.tenants import ALL_TENANTS
from starter.cli.delivery.attempts import details_as_json, print_attempts
from starter.cli.tables import in_counts, in_status, print_facts, print_table
from starter.cli.terminal import (
    AsJson,
    command,
    connected,
    console,
    group,
    note,
    opened_registry,
    print_json,
    printable,
)
from starter.operations.delivery.controlling import control, find_event
from starter.operations.delivery.events import get_event, live_status, show_event
from starter.operations.delivery.scheduled import ScheduledEvent, cancel_scheduled, find_scheduled, list_scheduled

app = group("List events; show, pause, resume or cancel one.")

_PAST = {Action.PAUSE: "paused", Action.RESUME: "resumed"}

EventArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the event.")]
SourceOption = Annotated[str | None, typer.Option(help="Source of the event, if several sources use the id.")]


@app.command("list")
@command
async def list_events(
    event_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only events for this tenant; * for those for all tenants.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 50,
    after: Annotated[str, typer.Option(help="Only after this one: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    """List events, the newest first."""
    async with opened_registry(Settings.read()) as registry:
        found = await registry.events.list(type=event_type, tenant=tenant, after=after, limit=limit)
    if as_json:
        print_json([_summary(stored) for stored in found])
        return
    rows = [
        (
            stored.event.id,
            stored.event.type,
            stored.event.source,
            stored.event.tenant,
            stored.accepted_at,
            in_counts(stored.counts),
        )
        for stored in found
    ]
    print_table(("event", "type", "source", "tenant", "accepted", "deliveries"), rows)
    if len(found) == limit:
        note(f"there may be more: --after {found[-1].event.key}")


@app.command("scheduled")
@command
async def scheduled(
    event_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only events for this tenant; * for those for all tenants.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List events that were published for later and have not started, the next one first."""
    found = await list_scheduled(await connected(), type=event_type, tenant=tenant, limit=limit)
    if as_json:
        print_json([_scheduled_as_json(event) for event in found])
        return
    rows = [(each.id, each.type, each.source, each.tenant, each.deliver_at, each.workflow_id) for each in found]
    print_table(("event", "type", "source", "tenant", "deliver at", "workflow id"), rows)


@app.command("show")
@command
async def show(
    event_id: EventArgument,
    source: SourceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of deliveries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show an event: its content, its status, and each delivery with its attempts."""
    async with opened_registry(Settings.read()) as registry:
        try:
            stored = await get_event(registry, event_id, source)
        except EventNotFound:
            _print_scheduled(await find_scheduled(connected, event_id, source), as_json=as_json)
            return
        live = await live_status(connected, stored)
        # Read afterwards, so that it is never older than what the run says.
        details = await show_event(registry, event_id, source=source, limit=limit)
    if live.status is None:
        note(f"Temporal cannot report the status, so the registry's state is shown: {printable(live.reason)}")
    if as_json:
        print_json(
            {
                **_summary(details.stored),
                "deliveries": [details_as_json(each) for each in details.deliveries],
                "live": live.status.model_dump(mode="json") if live.status else None,
            }
        )
        return
    _print_event(details.stored, live.status)
    rows = [
        (each.subscription_id, each.channel, each.state, each.attempts, each.reason)
        for each in (detail.delivery for detail in details.deliveries)
    ]
    print_table(("subscription", "channel", "state", "attempts", "last response"), rows, title="deliveries")
    print_attempts([attempt for detail in details.deliveries for attempt in detail.attempts])
    if len(details.deliveries) == limit:
        note(f"there may be more: python -m starter deliveries list --event {event_id}")


def _scheduled_as_json(event: ScheduledEvent) -> dict[str, Any]:
    return {**asdict(event), "deliver_at": event.deliver_at.isoformat()}


def _print_scheduled(event: ScheduledEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(_scheduled_as_json(event))
        return
    print_facts(
        [
            ("event", event.id),
            ("source", event.source),
            ("type", event.type),
            ("tenant", event.tenant),
            ("deliver at", event.deliver_at),
            ("workflow id", event.workflow_id),
            ("result", "scheduled: subscriptions are matched when it starts"),
        ]
    )


def _summary(stored: StoredEvent) -> dict[str, Any]:
    return {
        "event": stored.event.structured(),
        "key": stored.event.key,
        "workflow_id": stored.workflow_id,
        "accepted_at": stored.accepted_at.isoformat(),
        "counts": stored.counts.model_dump(mode="json"),
    }


def _print_event(stored: StoredEvent, live: Status | None) -> None:
    event = stored.event
    if live and live.settled:
        live = None  # what was redelivered since has runs of its own: the registry has the result of all
    result = in_status(live) if live else in_counts(stored.counts)
    settled = not live and not stored.counts.unsettled
    print_facts(
        [
            ("event", event.id),
            ("source", event.source),
            ("type", event.type),
            ("subject", event.subject),
            ("tenant", "* (all tenants)" if event.tenant == ALL_TENANTS else event.tenant),
            ("time", event.time),
            ("accepted", stored.accepted_at),
            ("extensions", ", ".join(f"{name}={value}" for name, value in event.extensions.items())),
            ("workflow id", stored.workflow_id),
            ("result", ("settled: " if settled else "not settled: ") + result),
        ]
    )
    if event.data is not None:
        console().print_json(data=event.data)
    if live and live.unsettled:
        rows = [(item.subscription_id, item.channel, item.attempts, item.reason, item.due) for item in live.unsettled]
        print_table(("subscription", "channel", "attempts", "last response", "next attempt"), rows, title="unsettled")


SubscriptionOption = Annotated[
    str | None, typer.Option("--subscription", help="Only its delivery for this subscription; all if omitted.")
]


@app.command("pause")
@command
async def pause(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: SubscriptionOption = None,
    as_json: AsJson = False,
) -> None:
    """Make no more attempts for an event until `events resume`. What is being attempted ends first."""
    await _control(Action.PAUSE, event_id, source, subscription_id, as_json=as_json)


@app.command("resume")
@command
async def resume(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: SubscriptionOption = None,
    as_json: AsJson = False,
) -> None:
    """Continue an event's paused deliveries."""
    await _control(Action.RESUME, event_id, source, subscription_id, as_json=as_json)


@app.command("cancel")
@command
async def cancel(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: SubscriptionOption = None,
    as_json: AsJson = False,
) -> None:
    """Stop delivering an event: its unsettled deliveries settle as cancelled. What was sent stays sent.

    An event that is scheduled for later is never delivered.
    """
    await _control(Action.CANCEL, event_id, source, subscription_id, as_json=as_json)


async def _control(
    action: Action, event_id: str, source: str | None, subscription_id: str | None, *, as_json: bool
) -> None:
    async with opened_registry(Settings.read()) as registry:
        try:
            stored, subscriptions = await find_event(registry, event_id, source=source, subscription_id=subscription_id)
        except EventNotFound:
            if action is not Action.CANCEL or subscription_id is not None:
                raise
            await _cancel_scheduled(registry, event_id, source, as_json=as_json)
            return
        done = await control(await connected(), registry, action, stored, subscriptions)
    if as_json:
        print_json(
            {
                "id": event_id,
                "source": stored.event.source,
                "action": str(action),
                "deliveries": done.deliveries,
                "pages": done.pages,
            }
        )
        return
    if done.deliveries is None:
        console().print(f"{event_id}: unsettled deliveries are being cancelled; see `events show {event_id}`")
        return
    pages = f", and those of {counted(done.pages, 'page')}" if done.pages else ""
    console().print(f"{event_id}: {counted(done.deliveries, 'delivery')} {_PAST[action]}{pages}")


async def _cancel_scheduled(registry: Registry, event_id: str, source: str | None, *, as_json: bool) -> None:
    event = await find_scheduled(connected, event_id, source)
    await cancel_scheduled(await connected(), registry, event)
    if as_json:
        print_json({"id": event_id, "source": event.source, "action": "cancel", "deliveries": None, "pages": 0})
    else:
        console().print(f"{event_id}: is not delivered")
