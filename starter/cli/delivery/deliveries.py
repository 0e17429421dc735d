"""`deliveries`: list them, show one with its attempts, attempt one or many again, take them back."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from bellwire.deliveries import Delivery, DeliveryState
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
from starter.cli.delivery.recall import recall
from starter.cli.delivery.retry import retry
from starter.cli.input.times import parse_past
from starter.cli.tables import print_facts, print_table
from starter.cli.terminal import AsJson, command, group, note, opened_registry, print_json
from starter.operations.delivery import deliveries
from starter.operations.delivery.deliveries import DeliveryPage, next_attempt, parse_key

app = group("List deliveries; show one, attempt one or many again, or take back what was delivered.")

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
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only of events since then: 2h, 3d, or a time such as 2026-11-23T08:00Z."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 100,
    after: Annotated[str, typer.Option(help="Only after this delivery id: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    """List deliveries, those of the newest events first. Times are in UTC."""
    start = None if since is None else parse_past("--since", since, now=datetime.now(UTC))
    async with opened_registry(Settings.read()) as registry:
        page = await deliveries.list_deliveries(
            registry,
            event_id=event_id,
            source=source,
            subscription_id=subscription_id,
            tenant=tenant,
            state=state,
            channel=channel,
            since=start,
            after=after,
            limit=limit,
        )
    if as_json:
        print_json(
            [
                {
                    "id": delivery.id,
                    **delivery.model_dump(mode="json"),
                    "event": _event_of(page, delivery),
                    "next_attempt": _as_text(next_attempt(delivery)),
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
    columns = ["event", "subscription", "state", "attempts", "next attempt", "last response", "delivery"]
    rows: list[list[object]] = [
        [
            page.events[each.event_key].id if each.event_key in page.events else None,
            *(each.subscription_id, each.state, each.attempts, next_attempt(each), each.reason, each.id),
        ]
        for each in page.deliveries
    ]
    if with_receipts:
        columns.insert(-1, "receipt")
        for row, each in zip(rows, page.deliveries, strict=True):
            row.insert(-1, status_and_code(page.receipts[each.id]) if each.id in page.receipts else None)
    print_table(columns, rows)


def _event_of(page: DeliveryPage, delivery: Delivery) -> dict[str, str] | None:
    event = page.events.get(delivery.event_key)
    return None if event is None else {"source": event.source, "id": event.id, "type": event.type}


def _as_text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


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
            ("next attempt", next_attempt(delivery)),
            ("remaining recipients", ", ".join(delivery.remaining_recipients or ())),
            ("provider's id", delivery.provider_id),
            *receipt_facts(details.receipt),
            ("workflow id", delivery.workflow_id),
            ("updated", delivery.updated_at),
        ]
    )
    print_attempts(details.attempts)
    print_last_exchanges(details.attempts, number=attempt)


app.command("retry")(retry)
app.command("recall")(recall)
