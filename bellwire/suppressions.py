"""Suppression: an address that is written to no more, and why."""

from datetime import datetime
from enum import StrEnum

from bellwire.models import Payload
from bellwire.targets import Channel

#: Instead of a subscription's id: of no subscription at all.
EVERYWHERE = ""


def by_sender(sender: str) -> str:
    """Instead of a subscription's id: whatever comes from this sender of SMS, who alone was told STOP."""
    return f"sender:{sender}"


class SuppressionReason(StrEnum):
    #: The mail system of the recipient, or the carrier, said for good that nobody is there.
    BOUNCED = "bounced"
    #: The recipient reported a mail as spam.
    COMPLAINED = "complained"
    #: The recipient took back the subscription: by one click, or by STOP.
    UNSUBSCRIBED = "unsubscribed"
    #: An operator put it on the list.
    OPERATOR = "operator"


class Suppression(Payload):
    channel: Channel
    address: str
    reason: SuppressionReason
    #: The only subscription, or sender (`by_sender`), for which it counts; EVERYWHERE for all.
    subscription_id: str = EVERYWHERE
    #: When it was put on the list; None before.
    created_at: datetime | None = None
