"""`events`: list them, and show one with its deliveries and attempts."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from bellwire.client import Status
from bellwire.deliveries import Attempt, Delivery
from bellwire.errors import BellwireError, EventNotFound
from bellwire.registry import Registry, StoredEvent
from bellwire.service.settings import Settings
from bellwire.sms.receipts import SmsReceipt
from starter.cli.input.durations import in_words
from starter.cli.tables import in_counts, print_facts, print_table
from starter.cli.terminal import (
    AsJson,
    InputInvalid,
    command,
    connected,
    console,
    note,
    opened_registry,
    print_json,
    printable,
)

#: Seconds that Temporal has to say how an event stands, before the registry's word is all there is.
LIVE_TIMEOUT = 3.0

app = typer.Typer(help="List events, or show one.", no_args_is_help=True)

SourceOption = Annotated[str | None, typer.Option(help="Source of the event, if several sources use the id.")]


async def get_event(registry: Registry, event_id: str, source: str | None) -> StoredEvent:
    """The event of this id. Raises EventNotFound, or InputInvalid if several sources use the id and none was named."""
    found = await registry.events.with_id(event_id, source=source)
    if not found:
        of = f" of {source}" if source else ""
        raise EventNotFound(
            f"no event {event_id}{of} is known; check the id and the source, and that a worker has taken it up"
        )
    if len(found) > 1:
        sources = ", ".join(sorted(stored.event.source for stored in found))
        raise InputInvalid(f"--source: {len(found)} events have the id {event_id}; name one of {sources}")
    return found[0]


@app.command("list")
@command
async def list_events(
    event_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only events for this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    after: Annotated[str, typer.Option(help="Only those after this one: the next page.")] = "",
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


@app.command("show")
@command
async def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the event.")],
    source: SourceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of its deliveries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show an event: its content, how it stands, and each delivery with its attempts."""
    async with opened_registry(Settings.read()) as registry:
        stored = await get_event(registry, event_id, source)
        deliveries = await registry.deliveries.list(event_key=stored.event.key, limit=limit)
        receipts = await registry.sms_receipts.of_deliveries(deliveries)
        attempts = {
            delivery.id: await registry.attempts.list(delivery.event_key, delivery.subscription_id)
            for delivery in deliveries
        }
    live = await _live(stored)
    if as_json:
        shown = [describe(delivery, attempts[delivery.id], receipts.get(delivery.id)) for delivery in deliveries]
        print_json({**_summary(stored), "deliveries": shown, "live": live.model_dump(mode="json") if live else None})
        return
    _print_event(stored, live)
    rows = [
        (delivery.subscription_id, delivery.channel, delivery.state, delivery.attempts, delivery.reason)
        for delivery in deliveries
    ]
    print_table(("subscription", "channel", "state", "attempts", "last answer"), rows, title="deliveries")
    print_attempts([attempt for delivery in deliveries for attempt in attempts[delivery.id]])
    if len(deliveries) == limit:
        note(f"there may be more: python -m starter deliveries list --event {event_id}")


def describe(delivery: Delivery, attempts: Sequence[Attempt], receipt: SmsReceipt | None) -> dict[str, Any]:
    """A delivery, its attempts and its SMS receipt as JSON."""
    made = [attempt.model_dump(mode="json", exclude={"event_key", "subscription_id"}) for attempt in attempts]
    receipts = {"receipt": receipt_as_json(receipt)}
    return {"id": delivery.id, **delivery.model_dump(mode="json"), **receipts, "made": made}


def receipt_as_json(receipt: SmsReceipt | None) -> dict[str, Any] | None:
    """The receipt as JSON, without the ids that the delivery around it already shows."""
    if receipt is None:
        return None
    return receipt.model_dump(mode="json", exclude={"event_key", "subscription_id", "provider_id"})


def print_attempts(attempts: Sequence[Attempt]) -> None:
    """Print attempts as a table, if there are any."""
    rows = [
        (
            attempt.subscription_id,
            attempt.number,
            attempt.started_at,
            f"{attempt.duration * 1000:.0f} ms",
            attempt.outcome.kind,
            attempt.outcome.reason,
            attempt.state,
            None if attempt.delay is None else in_words(attempt.delay),
        )
        for attempt in attempts
    ]
    if rows:
        columns = ("subscription", "attempt", "started", "took", "outcome", "reason", "state", "next in")
        print_table(columns, rows, title="attempts")
    taken = [
        (
            attempt.subscription_id,
            attempt.number,
            facts.provider,
            f"{facts.segments} ({facts.encoding})",
            in_money(facts.estimate, facts.currency),
            facts.reported_segments,
            in_money(facts.reported_price, facts.reported_currency),
        )
        for attempt in attempts
        if (facts := attempt.outcome.sms)
    ]
    if taken:
        heads = ("subscription", "attempt", "provider", "segments", "estimate", "billed segments", "billed price")
        print_table(heads, taken, title="as SMS")


def in_money(amount: Decimal | None, currency: str | None) -> str | None:
    """An amount as people write it: 0.145 EUR."""
    return None if amount is None else f"{amount} {currency or ''}".strip()


async def _live(stored: StoredEvent) -> Status | None:
    """What the event's run says; None if it cannot be asked now."""
    try:
        async with asyncio.timeout(LIVE_TIMEOUT):
            client = await connected()
            return await client.status((stored.event.source, stored.event.id))
    except (BellwireError, TimeoutError) as error:
        note(f"Temporal was not asked, the registry's word is shown: {printable(str(error) or 'no answer in time')}")
        return None


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
    counts = live.counts if live else stored.counts
    settled = live.settled if live else not counts.unsettled
    print_facts(
        [
            ("event", event.id),
            ("source", event.source),
            ("type", event.type),
            ("subject", event.subject),
            ("tenant", event.tenant or "all"),
            ("happened", event.time),
            ("accepted", stored.accepted_at),
            ("extensions", ", ".join(f"{name}={value}" for name, value in event.extensions.items())),
            ("run", stored.workflow_id),
            ("result", ("settled: " if settled else "not settled: ") + in_counts(counts)),
        ]
    )
    if event.data is not None:
        console().print_json(data=event.data)
    if live and live.unsettled:
        rows = [(item.subscription_id, item.channel, item.attempts, item.reason, item.due) for item in live.unsettled]
        print_table(("subscription", "channel", "attempts", "last answer", "next attempt"), rows, title="unsettled")
