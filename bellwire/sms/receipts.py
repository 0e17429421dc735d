"""Confirmation: what a provider says later of an SMS that it has accepted."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from bellwire.models import Payload


class ConfirmationStatus(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    #: The carrier has it.
    SENT = "sent"
    #: The handset has it.
    DELIVERED = "delivered"
    #: The carrier could not deliver it.
    UNDELIVERED = "undelivered"
    #: The provider could not send it.
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return RANKS[self] == max(RANKS.values())


#: Providers say things twice and out of order: only what ranks higher than what is known is news, so a final word stays.
RANKS = {
    ConfirmationStatus.QUEUED: 0,
    ConfirmationStatus.SENDING: 1,
    ConfirmationStatus.SENT: 2,
    ConfirmationStatus.DELIVERED: 3,
    ConfirmationStatus.UNDELIVERED: 3,
    ConfirmationStatus.FAILED: 3,
}


class Confirmation(Payload):
    """The latest word on one SMS. The delivery's state stays what the provider's acceptance made of it."""

    event_key: str
    subscription_id: str
    #: The provider's id of the SMS: that of the attempt that sent it.
    provider_id: str
    status: ConfirmationStatus
    #: The provider's code of what went wrong; None if nothing did.
    code: str | None = None
    #: What it bills, so far as it has said.
    segments: int | None = None
    price: Decimal | None = None
    currency: str | None = None
    #: When Bellwire heard it.
    confirmed_at: datetime
