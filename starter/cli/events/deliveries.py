"""`deliveries`: list them, show one with its attempts, attempt one again."""

import re
from typing import Annotated

import typer

from bellwire.deliveries import Delivery, DeliveryState
from bellwire.errors import DeliveryNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.receipts import SmsReceipt
from bellwire.targets import Channel
from starter.cli.events.events import (
    SourceOption,
    describe,
    get_event,
    in_money,
    print_attempts,
    receipt_as_json,
)
from starter.cli.input.durations import in_words
from starter.cli.tables import print_facts, print_table
from starter.cli.terminal import (
    AsJson,
    InputInvalid,
    command,
    connected,
    console,
    note,
    opened_registry,
    print_json,
)

_DELIVERY_ID = re.compile(r"dlv_([a-z2-7]{26})_([A-Za-z0-9][A-Za-z0-9_-]{0,62})")

app = typer.Typer(help="List deliveries; show one, or attempt it again.", no_args_is_help=True)

DeliveryArgument = Annotated[str, typer.Argument(metavar="DELIVERY_ID", help="Id of the delivery: dlv_…")]


def parse_delivery_id(delivery_id: str) -> tuple[str, str]:
    """The event key and the subscription id in a delivery's id. Raises InputInvalid."""
    found = _DELIVERY_ID.fullmatch(delivery_id)
    if not found:
        raise InputInvalid(
            f"DELIVERY_ID: {delivery_id} is not a delivery id, such as dlv_<event key>_<subscription id>"
        )
    return found[1], found[2]


async def one_delivery(registry: Registry, event_key: str, subscription_id: str) -> tuple[Delivery, Event]:
    """A delivery and its event. Raises DeliveryNotFound."""
    found = await registry.deliveries.list(event_key=event_key, subscription_id=subscription_id, limit=1)
    events = await registry.events.by_keys([event_key])
    if not found or event_key not in events:
        raise DeliveryNotFound
    return found[0], events[event_key]


@app.command("list")
@command
async def list_deliveries(
    event_id: Annotated[str | None, typer.Option("--event", help="Only of the event of this id.")] = None,
    source: SourceOption = None,
    subscription_id: Annotated[str | None, typer.Option("--subscription", help="Only for this subscription.")] = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Only this channel's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    after: Annotated[str, typer.Option(help="Only those after this delivery id: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    """List deliveries, by event and subscription."""
    if after:
        parse_delivery_id(after)
    if source is not None and event_id is None:
        raise InputInvalid("--source: needs --event beside it")
    async with opened_registry(Settings.read()) as registry:
        key = None if event_id is None else (await get_event(registry, event_id, source)).event.key
        found = await registry.deliveries.list(
            event_key=key,
            subscription_id=subscription_id,
            tenant=tenant,
            state=state,
            channel=channel,
            after=after,
            limit=limit,
        )
        receipts = await registry.sms_receipts.of_deliveries(found)
    if as_json:
        print_json(
            [
                {
                    "id": delivery.id,
                    **delivery.model_dump(mode="json"),
                    "receipt": receipt_as_json(receipts.get(delivery.id)),
                }
                for delivery in found
            ]
        )
        return
    rows = [
        (
            *(delivery.id, delivery.channel, delivery.state, delivery.attempts, delivery.reason),
            *([in_word(receipts[delivery.id]) if delivery.id in receipts else None] if receipts else []),
            delivery.updated_at,
        )
        for delivery in found
    ]
    columns = (
        "delivery",
        "channel",
        "state",
        "attempts",
        "last answer",
        *(["receipt"] if receipts else []),
        "updated",
    )
    print_table(columns, rows)
    if len(found) == limit:
        note(f"there may be more: --after {found[-1].id}")


@app.command("show")
@command
async def show(delivery_id: DeliveryArgument, as_json: AsJson = False) -> None:
    """Show a delivery and its attempts."""
    event_key, subscription_id = parse_delivery_id(delivery_id)
    async with opened_registry(Settings.read()) as registry:
        delivery, event = await one_delivery(registry, event_key, subscription_id)
        attempts = await registry.attempts.list(event_key, subscription_id)
        receipt = (await registry.sms_receipts.of_deliveries([delivery])).get(delivery.id)
    if as_json:
        print_json(
            {
                **describe(delivery, attempts, receipt),
                "event": {"source": event.source, "id": event.id, "type": event.type},
            }
        )
        return
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
            ("last answer", delivery.reason),
            ("not before", delivery.not_before),
            ("next attempt after", None if delivery.delay is None else in_words(delivery.delay)),
            ("remaining_recipients", ", ".join(delivery.remaining_recipients or ())),
            ("provider's id", delivery.provider_id),
            *_receipt_rows(receipt),
            ("run", delivery.workflow_id),
            ("updated", delivery.updated_at),
        ]
    )
    print_attempts(attempts)


def _receipt_rows(receipt: SmsReceipt | None) -> list[tuple[str, object]]:
    if receipt is None:
        return []
    return [
        ("receipt", in_word(receipt)),
        ("receipt at", receipt.received_at),
        ("billed segments", receipt.segments),
        ("billed price", in_money(receipt.price, receipt.currency)),
    ]


def in_word(receipt: SmsReceipt) -> str:
    """The status of a receipt with its error code: undelivered 30003."""
    return f"{receipt.status} {receipt.code or ''}".strip()


@app.command("retry")
@command
async def retry(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[DELIVERY_ID]", help="Id of the delivery.")] = None,
    event_id: Annotated[str | None, typer.Option("--event", help="Instead of a delivery id: the event's id.")] = None,
    source: SourceOption = None,
    subscription_id: Annotated[
        str | None, typer.Option("--subscription", help="Instead of a delivery id: the subscription's id.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attempt a delivery now: the next attempt of one that waits, or a settled one once more with a fresh schedule."""
    by_names = event_id is not None and subscription_id is not None
    if (delivery_id is not None) == by_names:
        raise InputInvalid("DELIVERY_ID: give a delivery id, or both --event and --subscription")
    async with opened_registry(Settings.read()) as registry:
        if delivery_id is not None:
            key, subscription_id = parse_delivery_id(delivery_id)
        else:
            key = (await get_event(registry, event_id or "", source)).event.key
        assert subscription_id is not None
        delivery, event = await one_delivery(registry, key, subscription_id)
    client = await connected()
    run = await client.retry((event.source, event.id), subscription_id)
    if as_json:
        print_json({"id": delivery.id, "workflow_id": run})
    else:
        console().print(f"{delivery.id} is attempted by {run}")
