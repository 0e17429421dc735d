"""Recall: messages that were delivered are taken back from their recipients."""

from enum import StrEnum

from bellwire.models import Payload
from bellwire.targets import Channel

#: Maximum deliveries of one Recall.
RECALL_SIZE = 50
#: The reason of a delivery whose message was taken back. Its state stays: it was delivered.
RECALLED = "recalled"


class RecallResult(StrEnum):
    #: Nobody sees the message any more.
    TAKEN_BACK = "taken back"
    #: The provider takes messages back for a time only, which is over.
    TOO_LATE = "too late"
    #: Messages of the channel, or of this target, cannot be taken back.
    UNSUPPORTED = "cannot be taken back"
    #: There is no message: the delivery was not made, or is made again now.
    NOT_DELIVERED = "not delivered"
    #: The provider has no time, or could not be reached.
    BUSY = "busy"
    #: The provider refuses, or the operator's account is missing or not valid.
    REFUSED = "refused"


class RecallInput(Payload):
    """Deliveries of one event over one channel, at most RECALL_SIZE."""

    event_key: str
    channel: Channel
    subscription_ids: tuple[str, ...]


class RecalledDelivery(Payload):
    """What became of taking one message back."""

    subscription_id: str
    result: RecallResult
    #: The provider's answer in one bounded line, without an address.
    detail: str = ""
    #: Seconds that the provider asks to wait; None if it does not ask.
    wait: float | None = None


class RecallOutput(Payload):
    deliveries: tuple[RecalledDelivery, ...]
