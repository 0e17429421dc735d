"""`publish`: one event from options, or many from a file. If one event is not valid, none is published."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bellwire.client import Client
from bellwire.errors import BellwireError, TemporalUnavailable, WaitTimeout
from bellwire.events import Event
from bellwire.formats.counts import counted
from bellwire.receipts import Receipt, Status
from bellwire.registry.db.engine import database_url
from bellwire.service.settings import Settings
from starter.cli.input.documents import read_items, read_value
from starter.cli.input.optional_values import DEFAULT_WAIT
from starter.cli.input.times import parse_time
from starter.cli.tables import in_status, print_table
from starter.cli.terminal import AsJson, command, connected, console, note, opened_registry, print_json, printable
from starter.operations.catalog.checking import PublishedTypes, deprecations_of, problems_of_events
from starter.operations.delivery import publishing
from starter.operations.problems import InputInvalid, OperationError, Problem

#: Events that are listed one by one in a table; of more, a summary is shown.
MAX_ROWS = 25
#: Seconds that the registry has to say which tenants it knows. Publishing does not need it.
REGISTRY_SECONDS = 2.0


@command
async def publish(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="CloudEvents as JSON: an event, an array or JSON Lines; - reads stdin."),
    ] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Event type: order.paid.")] = None,
    source: Annotated[str | None, typer.Option(help="Source of the event, a URI-reference: /shop/orders.")] = None,
    data: Annotated[str | None, typer.Option(help="Data as JSON, or @FILE.")] = None,
    subject: Annotated[str | None, typer.Option(help="Subject of the event, such as an order's id.")] = None,
    event_id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the event; generated if omitted. With an id, publishing again is safe."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time of the event: 2026-11-23T08:00:00Z; the current time if omitted.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant that the event is for, * for all tenants; `default` if omitted.")
    ] = None,
    extensions: Annotated[
        list[str] | None, typer.Option("--extension", help="Extension attribute, NAME=VALUE. Repeatable.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(help="Deliver it so much later, such as 90s, 2h or 3d; at most 365d.")
    ] = None,
    deliver_at: Annotated[
        str | None, typer.Option(help="Deliver it at this time: 2026-12-24T18:00:00+01:00; in UTC without a time zone.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="[SECONDS]",
            min=0,
            help=f"Wait until all deliveries are settled; {DEFAULT_WAIT} s if no time is given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish an event, or many.

    From options, or from FILE. If one event is not valid, none is published. Publishing an event again is safe.
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
        raise InputInvalid("cannot be combined with options of the event", field=file, remedy="leave them out")
    if file is None and not given:
        raise InputInvalid("give --type and --source, or a FILE of events (- for stdin)", field="publish")
    events = publishing.read_events(read_items(file)) if file is not None else [Event.parse(given)]
    time_given = None if deliver_at is None else parse_time("--deliver-at", deliver_at)
    starts_at = publishing.delivery_time(delay, time_given)
    settings = Settings.read()
    unknown, deprecated, problems = await _checked_by_registry(settings, events)
    if problems:
        raise InputInvalid.of(problems)
    if unknown and settings.unknown_tenants == "refuse":
        raise InputInvalid(
            unknown, field="tenant", remedy="BELLWIRE_UNKNOWN_TENANTS refuses it, so nothing was published"
        )
    client = await connected()
    receipts = await _publish_all(client, events, starts_at)
    if unknown:
        note(f"tenant: {unknown}")
    for name, reason in deprecated.items():
        note(f"warning: {printable(name)} is deprecated: {printable(reason)}")
    statuses, error = (None, None) if wait is None else await _wait(client, receipts, wait)
    if as_json:
        results = [
            _as_json(receipt, status, waited=wait is not None) for receipt, status in _paired(receipts, statuses)
        ]
        print_json(results if file is not None else results[0])
    else:
        _print(receipts, statuses)
    if isinstance(error, WaitTimeout | TemporalUnavailable):
        raise _published_but(error, statuses or ()) from error
    if error is not None:
        raise error


class _Checked(NamedTuple):
    """What the registry says of events; nothing if it is not at hand."""

    #: What is to be said of tenants that never had a subscription.
    unknown: str = ""
    #: Why types are deprecated, by type.
    deprecated: Mapping[str, str] = MappingProxyType({})
    #: What the catalog refuses.
    problems: Sequence[Problem] = ()


async def _checked_by_registry(settings: Settings, events: Sequence[Event]) -> _Checked:
    if not _registry_exists(settings):
        return _Checked()
    try:
        async with asyncio.timeout(REGISTRY_SECONDS), opened_registry(settings) as registry:
            names = await publishing.unknown_tenants(registry, events)
            types = PublishedTypes(registry, refuse_unknown=settings.unknown_types == "refuse")
            problems = await problems_of_events(types, events)
            deprecated = await deprecations_of(types, events)
    except (BellwireError, TimeoutError):
        return _Checked()
    text = f"{', '.join(names[:10])}: no subscription was ever stored for it; check the spelling" if names else ""
    return _Checked(text, deprecated, problems)


def _registry_exists(settings: Settings) -> bool:
    """Whether a file of SQLite is there. A publisher needs no registry, and opening one would create it."""
    url = database_url(settings.registry_url)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def _extensions(given: Sequence[str]) -> dict[str, str]:
    extensions = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InputInvalid(f"{text!r} is not NAME=VALUE", field="--extension")
        if name == "specversion":
            raise InputInvalid(
                "specversion is not an extension; it is always 1.0", field="--extension", remedy="leave it out"
            )
        if name in Event.model_fields:
            raise InputInvalid(f"{name} is not an extension", field="--extension", remedy=f"use --{name}")
        extensions[name] = value
    return extensions


async def _publish_all(client: Client, events: Sequence[Event], deliver_at: datetime | None) -> list[Receipt]:
    """Publish in batches, with a progress bar on a terminal. The receipts come in the order of the events."""
    distinct = publishing.distinct(events)
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = screen.is_terminal and len(distinct) > publishing.BATCH
    receipts: list[Receipt] = []
    with Progress(*columns, console=screen, transient=True, disable=not shown) as progress:
        bar = progress.add_task("publishing", total=len(distinct))
        try:
            async for batch in publishing.publish(client, distinct, deliver_at=deliver_at):
                receipts += batch
                progress.advance(bar, len(batch))
        except BellwireError:
            if len(distinct) > 1:
                note(f"at least {len(receipts):,} of {counted(len(distinct), 'event')} published before this")
            raise
    return publishing.receipts_in_order(events, receipts)


async def _wait(
    client: Client, receipts: Sequence[Receipt], seconds: float
) -> tuple[Sequence[Status | None], BellwireError | None]:
    """The statuses, None where one is not known, and why not all are settled."""
    try:
        return await client.wait_many(receipts, seconds), None
    except WaitTimeout as late:
        return late.statuses, late
    except TemporalUnavailable as error:
        return [None] * len(receipts), error
    except BellwireError as error:
        # One event of another content, or for an unknown tenant: what is known of the others is shown.
        listed = await asyncio.gather(*(_known(client, receipt) for receipt in receipts[:MAX_ROWS]))
        return [*listed, *[None] * (len(receipts) - len(listed))], error


async def _known(client: Client, receipt: Receipt) -> Status | None:
    try:
        return await client.status(receipt)
    except BellwireError:
        return None


def _published_but(error: BellwireError, statuses: Sequence[Status | None]) -> OperationError:
    """What has become of events that were published, and then not seen to settle."""
    open_ones = [status for status in statuses if status is None or not status.settled]
    those = (
        "the event is"
        if len(statuses) == 1
        else f"{len(open_ones):,} of {len(statuses):,} events {'is' if len(open_ones) == 1 else 'are'}"
    )
    unmatched = any(status and not status.resolved for status in open_ones)
    return OperationError(
        f"{those} published, but {error}",
        remedy="the worker has not matched subscriptions yet; see its log, and check that it reaches the registry"
        if unmatched
        else "",
    )


def _paired(
    receipts: Sequence[Receipt], statuses: Sequence[Status | None] | None
) -> list[tuple[Receipt, Status | None]]:
    return [(receipt, statuses[position] if statuses else None) for position, receipt in enumerate(receipts)]


def _as_json(receipt: Receipt, status: Status | None, *, waited: bool) -> dict[str, Any]:
    result = receipt.model_dump(mode="json")
    if waited:
        counts = status.counts.model_dump(mode="json") if status and status.resolved else None
        result |= {"settled": status is not None and status.settled, "counts": counts}
    return result


def _print(receipts: Sequence[Receipt], statuses: Sequence[Status | None] | None) -> None:
    if len(receipts) <= MAX_ROWS:
        later = any(receipt.deliver_at for receipt in receipts)
        columns = ["event", "source", "result", "workflow id"]
        columns += [*(["deliver at"] if later else []), *(["deliveries"] if statuses else [])]
        rows = [
            (
                receipt.event_id,
                receipt.source,
                "published before" if receipt.duplicate else "published",
                receipt.workflow_id,
                *([receipt.deliver_at] if later else []),
                *([in_status(status)] if statuses else []),
            )
            for receipt, status in _paired(receipts, statuses)
        ]
        print_table(columns, rows)
        return
    duplicates = sum(bool(receipt.duplicate) for receipt in receipts)
    text = f"{counted(len(receipts) - duplicates, 'event')} published"
    if duplicates:
        text += f", {duplicates:,} published before"
    if statuses:
        text += f"; {sum(status is not None and status.settled for status in statuses):,} settled"
    console().print(text)
