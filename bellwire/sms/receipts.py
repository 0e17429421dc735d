"""SmsReceipt: a provider's delivery receipt, which it sends after it has accepted an SMS."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from bellwire.deliveries import MAX_CURRENCY, MAX_PROVIDER_ID
from bellwire.formats.storable import from_outside
from bellwire.models import Payload


class SmsReceiptStatus(StrEnum):
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


#: Providers send receipts twice and out of order. Only a status of a higher rank replaces the stored one, so a final status
#: stays.
RANKS = {
    SmsReceiptStatus.QUEUED: 0,
    SmsReceiptStatus.SENDING: 1,
    SmsReceiptStatus.SENT: 2,
    SmsReceiptStatus.DELIVERED: 3,
    SmsReceiptStatus.UNDELIVERED: 3,
    SmsReceiptStatus.FAILED: 3,
}


class SmsReceipt(Payload):
    """The latest delivery receipt of one SMS. It does not change the state of the delivery."""

    event_key: str
    subscription_id: str
    #: The provider's id of the SMS: that of the attempt that sent it.
    provider_id: Annotated[str, from_outside(MAX_PROVIDER_ID)]
    status: SmsReceiptStatus
    #: The provider's error code; None without an error.
    code: str | None = None
    #: What the provider bills; None until it reports that.
    segments: int | None = None
    price: Decimal | None = None
    currency: Annotated[str | None, from_outside(MAX_CURRENCY)] = None
    #: When Bellwire received it.
    received_at: datetime
