"""`deliveries`: list them, show one with its attempts, attempt one again."""

from typing import Annotated

import typer

from bellwire.deliveries import DeliveryState
from bellwire.formats.durations import format_duration
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from starter.cli.delivery.attempts import (
    details_as_json,
    print_attempts,
    receipt_as_json,
    receipt_facts,
    status_and_code,
)
from starter.cli.delivery.events import SourceOption
from starter.cli.delivery.exchanges import print_last_exchanges
from starter.cli.tables import print_facts, print_table
from starter.cli.terminal import AsJson, command, connected, console, note, opened_registry, print_json
from starter.operations.delivery import deliveries
from starter.operations.delivery.deliveries import DeliveryPage, parse_key
from starter.operations.problems import InputInvalid

app = typer.Typer(help="List deliveries; show one, or attempt it again.", no_args_is_help=True)

DeliveryArgument = Annotated[str, typer.Argument(metavar="DELIVERY_ID", help="Id of the delivery: dlv_…")]


@app.command("list")
@command
async def list_deliveries(
    event_id: Annotated[str | None, typer.Option("--event", help="Only of the event with this id.")] = None,
    source: SourceOption = None,
    subscription_id: Annotated[str | None, typer.Option("--subscription", help="Only for this subscription.")] = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only in this state.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Only of this channel.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 100,
    after: Annotated[str, typer.Option(help="Only after this delivery id: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    """List deliveries, by event and subscription."""
    async with opened_registry(Settings.read()) as registry:
        page = await deliveries.list_deliveries(
            registry,
            event_id=event_id,
            source=source,
            subscription_id=subscription_id,
            tenant=tenant,
            state=state,
            channel=channel,
            after=after,
            limit=limit,
        )
    if as_json:
        print_json(
            [
                {
                    "id": delivery.id,
                    **delivery.model_dump(mode="json"),
                    "receipt": receipt_as_json(page.receipts.get(delivery.id)),
                }
                for delivery in page.deliveries
            ]
        )
        return
    _print_page(page)
    if len(page.deliveries) == limit:
        note(f"there may be more: --after {page.deliveries[-1].id}")


def _print_page(page: DeliveryPage) -> None:
    with_receipts = bool(page.receipts)
    columns = ["delivery", "channel", "state", "attempts", "last response", "updated"]
    rows: list[list[object]] = [
        [each.id, each.channel, each.state, each.attempts, each.reason, each.updated_at] for each in page.deliveries
    ]
    if with_receipts:
        columns.insert(-1, "receipt")
        for row, each in zip(rows, page.deliveries, strict=True):
            row.insert(-1, status_and_code(page.receipts[each.id]) if each.id in page.receipts else None)
    print_table(columns, rows)


@app.command("show")
@command
async def show(
    delivery_id: DeliveryArgument,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Show request and response of this attempt; of the last one if omitted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a delivery and its attempts, with request and response of one of them."""
    key = parse_key(delivery_id)
    async with opened_registry(Settings.read()) as registry:
        event, details = await deliveries.show_delivery(registry, key)
    if as_json:
        print_json({**details_as_json(details), "event": {"source": event.source, "id": event.id, "type": event.type}})
        return
    delivery = details.delivery
    print_facts(
        [
            ("delivery", delivery.id),
            ("event", event.id),
            ("source", event.source),
            ("type", event.type),
            ("subscription", delivery.subscription_id),
            ("channel", delivery.channel),
            ("state", delivery.state),
            ("attempts", delivery.attempts),
            ("last response", delivery.reason),
            ("not before", delivery.not_before),
            ("next attempt after", None if delivery.delay is None else format_duration(delivery.delay)),
            ("remaining recipients", ", ".join(delivery.remaining_recipients or ())),
            ("provider's id", delivery.provider_id),
            *receipt_facts(details.receipt),
            ("workflow id", delivery.workflow_id),
            ("updated", delivery.updated_at),
        ]
    )
    print_attempts(details.attempts)
    print_last_exchanges(details.attempts, number=attempt)


@app.command("retry")
@command
async def retry(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[DELIVERY_ID]", help="Id of the delivery.")] = None,
    event_id: Annotated[str | None, typer.Option("--event", help="Instead of a delivery id: the event's id.")] = None,
    source: SourceOption = None,
    subscription_id: Annotated[
        str | None, typer.Option("--subscription", help="Instead of a delivery id: the subscription's id.")
    ] = None,
    end_pause: Annotated[bool, typer.Option("--end-pause", help="Also a paused delivery, which is resumed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Attempt a delivery now: one that waits, without using up its schedule, or a settled one with a new schedule."""
    if (delivery_id is not None) == (event_id is not None and subscription_id is not None):
        raise InputInvalid("give a delivery id, or both --event and --subscription", field="DELIVERY_ID")
    key = None if delivery_id is None else parse_key(delivery_id, field="DELIVERY_ID")
    async with opened_registry(Settings.read()) as registry:
        if key is not None:
            found = await deliveries.get_delivery(registry, key)
        else:
            found = await deliveries.find_delivery(
                registry, event_id=event_id or "", source=source, subscription_id=subscription_id or ""
            )
    workflow_id = await deliveries.retry_delivery(await connected(), found, end_pause=end_pause)
    if as_json:
        print_json({"id": found.delivery.id, "workflow_id": workflow_id})
    else:
        console().print(f"{found.delivery.id} is attempted by {workflow_id}")
