"""Email channels to a Mailbox, and requests for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from activities.email.channel import EmailChannel
from activities.email.smtp_pool import SmtpPool
from activities.rendering.renderer import Renderer
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.sends import SendRequest
from starter.local.receivers.mailbox import Mailbox
from tests.factories import event, send_request, subscription

ANN, BOB, CAT = "ann@example.com", "bob@example.com", "cat@example.com"
DELIVERED, REJECTED, DEFERRED, UNKNOWN = OutcomeKind


def request_to(*addresses: str, **fields: Any) -> SendRequest:
    to = subscription({"channel": "email", "to": addresses[0] if len(addresses) == 1 else addresses}, id="sub")
    return send_request(to, fields.pop("published", None) or event(id="1"), **fields)


def again(first: SendRequest, outcome: Outcome, number: int = 2) -> SendRequest:
    """The next attempt, as the registry loads it after `outcome`."""
    fields: dict[str, Any] = {
        "reason": outcome.reason,
        "remaining_recipients": outcome.remaining_recipients,
        "provider_id": outcome.provider_id,
    }
    return send_request(first.subscription, first.event, number=number, **fields)


@asynccontextmanager
async def channel_to(
    box: Mailbox, *, templates: Path | None = None, sender: str = "Bellwire <bell@example.net>", **options: Any
) -> AsyncIterator[EmailChannel]:
    pool = SmtpPool(box.host, box.port, timeout=60, **options)
    try:
        yield EmailChannel(pool, Renderer(templates), sender=sender)
    finally:
        await pool.close()
