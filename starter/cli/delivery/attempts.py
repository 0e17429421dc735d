"""Attempts and SMS receipts as tables and as JSON, for the commands that show them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from bellwire.deliveries import Attempt, Outcome
from bellwire.formats.durations import format_duration
from bellwire.sms.receipts import SmsReceipt
from starter.cli.delivery.exchanges import exchanges_as_json
from starter.cli.tables import print_table
from starter.operations.delivery.events import DeliveryDetails


def details_as_json(details: DeliveryDetails) -> dict[str, Any]:
    """A delivery, its attempts and its delivery receipt."""
    return {
        "id": details.delivery.id,
        **details.delivery.model_dump(mode="json"),
        "receipt": receipt_as_json(details.receipt),
        "attempt_log": [
            {
                **attempt.model_dump(mode="json", exclude={"event_key", "subscription_id"}),
                "exchanges": exchanges_as_json(attempt.outcome.exchanges),
            }
            for attempt in details.attempts
        ],
    }


def receipt_as_json(receipt: SmsReceipt | None) -> dict[str, Any] | None:
    """A delivery receipt, without the ids of its delivery."""
    if receipt is None:
        return None
    return receipt.model_dump(mode="json", exclude={"event_key", "subscription_id", "provider_id"})


def print_attempts(attempts: Sequence[Attempt]) -> None:
    """Print attempts as a table, and those by SMS as a second one, if there are any."""
    rows = [
        (
            attempt.subscription_id,
            attempt.number,
            attempt.started_at,
            f"{attempt.duration * 1000:.0f} ms",
            attempt.outcome.kind,
            _reason(attempt.outcome),
            attempt.state,
            None if attempt.delay is None else format_duration(attempt.delay),
        )
        for attempt in attempts
    ]
    if rows:
        columns = ("subscription", "attempt", "started", "duration", "outcome", "reason", "state", "next in")
        print_table(columns, rows, title="attempts")
    sms = [
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
    if sms:
        heads = ("subscription", "attempt", "provider", "segments", "estimate", "billed segments", "billed price")
        print_table(heads, sms, title="as SMS")


def _reason(outcome: Outcome) -> str:
    return outcome.reason if outcome.cause is None else f"{outcome.reason} ({outcome.cause})"


def receipt_facts(receipt: SmsReceipt | None) -> list[tuple[str, object]]:
    """The rows of a delivery receipt in a table of names and values."""
    if receipt is None:
        return []
    return [
        ("receipt", status_and_code(receipt)),
        ("receipt at", receipt.received_at),
        ("billed segments", receipt.segments),
        ("billed price", in_money(receipt.price, receipt.currency)),
    ]


def status_and_code(receipt: SmsReceipt) -> str:
    """The status of a receipt with its error code: undelivered 30003."""
    return f"{receipt.status} {receipt.code or ''}".strip()


def in_money(amount: Decimal | None, currency: str | None) -> str | None:
    """An amount with its currency: 0.145 EUR."""
    return None if amount is None else f"{amount} {currency or ''}".strip()
