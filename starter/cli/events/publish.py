"""`publish`: one event from options, or many from a file. Either all of them are good, or none is published."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bellwire.client import Client, Receipt, Status
from bellwire.errors import BellwireError, EventInvalid
from bellwire.events import Event
from starter.cli.events.waiting import wait_for_all
from starter.cli.input.documents import (
    Item,
    collect,
    object_of,
    read_items,
    read_value,
)
from starter.cli.tables import in_counts, print_table
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    InputInvalid,
    command,
    connected,
    console,
    note,
    print_json,
)

#: Events handed to the client at a time: a multiple of what one run carries, so that progress is worth showing.
SLICE = 1_000
#: Events that are listed one by one in a table; of more, a summary is shown.
MAX_ROWS = 25
#: Seconds that a bare --wait waits.
DEFAULT_WAIT = 60


def read_events(items: Sequence[Item]) -> list[Event]:
    """The events of an input. Raises InputInvalid with a line for each bad one, such as two that share an id."""
    first: dict[str, tuple[str, str]] = {}

    def read(item: Item) -> Event:
        event = Event.parse(object_of(item))
        where, digest = first.setdefault(event.key, (item.where, event.digest))
        if digest != event.digest:
            raise EventInvalid(
                f"id: {where} has the same source and id and other content; give each event an id of its own"
            )
        return event

    return collect(items, read)


@command
async def publish(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="CloudEvents as JSON: an event, an array or JSON Lines; - reads stdin."),
    ] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="What happened: order.paid.")] = None,
    source: Annotated[str | None, typer.Option(help="Who says so, a URI-reference: /shop/orders.")] = None,
    data: Annotated[str | None, typer.Option(help="JSON, or @FILE.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it happened to.")] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", help="Its id; made up if left out. Give one, and publishing again is safe.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="When it happened: 2026-11-23T08:00:00Z; now if left out.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant it is for; all tenants if left out.")] = None,
    extensions: Annotated[
        list[str] | None, typer.Option("--extension", help="Extension attribute, NAME=VALUE. Repeatable.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="[SECONDS]", min=0, help=f"Wait until all is settled, {DEFAULT_WAIT} s if no time is given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish an event, or many.

    From options, or from FILE. Either all events are good or none is published; publishing the same one again is safe.
    """
    attributes: dict[str, Any] = {
        "type": event_type,
        "source": source,
        "data": None if data is None else read_value("--data", data),
        "subject": subject,
        "id": event_id,
        "time": time,
        "tenant": tenant,
        **_extensions(extensions or ()),
    }
    given = {name: value for name, value in attributes.items() if value is not None}
    if file is not None and (given or data is not None):
        raise InputInvalid(f"{file}: the file says it all; leave the options of the event out")
    if file is None and not given:
        raise InputInvalid("publish: give --type and --source, or a FILE of events (- for stdin)")
    events = read_events(read_items(file)) if file is not None else [Event.parse(given)]
    client = await connected()
    receipts = await _publish_all(client, events)
    statuses = None if wait is None else await wait_for_all(client, receipts, wait)
    if as_json:
        answers = [_answer(receipt, status) for receipt, status in _paired(receipts, statuses)]
        print_json(answers if file is not None else answers[0])
    else:
        _show(receipts, statuses)
    unsettled = sum(not status.settled for status in statuses or ())
    if unsettled:
        raise CommandFailed(
            f"{unsettled:,} of {len(events):,} events did not settle within {wait:g} s; their delivery goes on"
        )


def _extensions(given: Sequence[str]) -> dict[str, str]:
    extensions = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InputInvalid(f"--extension: {text!r} is not NAME=VALUE")
        if name == "specversion":
            raise InputInvalid("--extension: specversion is not an extension; it is always 1.0, leave it out")
        if name in Event.model_fields:
            raise InputInvalid(f"--extension: {name} is not an extension; use --{name}")
        extensions[name] = value
    return extensions


async def _publish_all(client: Client, events: Sequence[Event]) -> list[Receipt]:
    """Publish in slices, with a progress bar where somebody watches. The receipts come in the order of the events."""
    distinct = list({event.key: event for event in events}.values())
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    watched = screen.is_terminal and len(distinct) > SLICE
    receipts: dict[str, Receipt] = {}
    with Progress(*columns, console=screen, transient=True, disable=not watched) as progress:
        bar = progress.add_task("publishing", total=len(distinct))
        for start in range(0, len(distinct), SLICE):
            batch = distinct[start : start + SLICE]
            try:
                made = await client.publish_many(batch)
            except BellwireError:
                if len(distinct) > 1:
                    note(f"at least {start:,} of {len(distinct):,} events were published before this")
                raise
            receipts.update(zip((event.key for event in batch), made, strict=True))
            progress.advance(bar, len(batch))
    seen: set[str] = set()
    in_order = []
    for event in events:
        receipt = receipts[event.key]
        in_order.append(receipt.model_copy(update={"duplicate": True}) if event.key in seen else receipt)
        seen.add(event.key)
    return in_order


def _paired(receipts: Sequence[Receipt], statuses: Sequence[Status] | None) -> list[tuple[Receipt, Status | None]]:
    return [(receipt, statuses[position] if statuses else None) for position, receipt in enumerate(receipts)]


def _answer(receipt: Receipt, status: Status | None) -> dict[str, Any]:
    answer = receipt.model_dump(mode="json")
    if status is not None:
        answer |= {"settled": status.settled, "counts": status.counts.model_dump(mode="json")}
    return answer


def _show(receipts: Sequence[Receipt], statuses: Sequence[Status] | None) -> None:
    if len(receipts) <= MAX_ROWS:
        columns = ["event", "source", "result", "run", *(["deliveries"] if statuses else [])]
        rows = [
            (
                receipt.event_id,
                receipt.source,
                "published before" if receipt.duplicate else "published",
                receipt.workflow_id,
                *([in_counts(status.counts)] if status else []),
            )
            for receipt, status in _paired(receipts, statuses)
        ]
        print_table(columns, rows)
        return
    duplicates = sum(receipt.duplicate for receipt in receipts)
    told = f"{len(receipts) - duplicates:,} events published" + (
        f", {duplicates:,} were published before" if duplicates else ""
    )
    if statuses:
        told += f"; {sum(status.settled for status in statuses):,} settled"
    console().print(told)
