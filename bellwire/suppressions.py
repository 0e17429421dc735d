"""Suppression: an address that is not sent to, and the reason."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from bellwire.formats.phone_numbers import is_number, number_key
from bellwire.formats.storable import from_outside, storable
from bellwire.models import Payload
from bellwire.targets import Channel

#: The scope of a suppression that applies to all subscriptions, in place of a subscription id.
EVERYWHERE = ""
#: What the scopes of SMS senders begin with.
SENDER_PREFIX = "sender:"

#: Longest address and longest name of an SMS sender, in characters; longer ones are cut. The tokens of push are the longest.
MAX_ADDRESS, MAX_SENDER = 4160, 64


def by_sender(sender: str) -> str:
    """Return the scope of a suppression that applies to one SMS sender, whose messages were answered with STOP."""
    number = number_key(sender)
    return f"{SENDER_PREFIX}{number if is_number(number) else storable(sender, limit=MAX_SENDER)}"


class SuppressionReason(StrEnum):
    #: The recipient's mail system or carrier reported permanently that the address does not exist.
    BOUNCED = "bounced"
    #: The recipient reported a mail as spam.
    COMPLAINED = "complained"
    #: The recipient unsubscribed: by one click, or by STOP.
    UNSUBSCRIBED = "unsubscribed"
    #: An operator added it.
    OPERATOR = "operator"


class Suppression(Payload):
    channel: Channel
    address: Annotated[str, from_outside(MAX_ADDRESS)]
    reason: SuppressionReason
    #: The scope: a subscription id, an SMS sender (`by_sender`), or EVERYWHERE.
    subscription_id: str = EVERYWHERE
    #: What was reported, without addresses: an enhanced status code (5.1.1), a feedback type (abuse), a provider's code
    #: (Twilio 30005). None if nobody reported anything, and for suppressions of versions that did not store it.
    cause: str | None = None
    #: When it was stored; None before.
    created_at: datetime | None = None


class Reported(Payload):
    """Selects suppressions by what caused them. What is None selects all."""

    channel: Channel | None = None
    #: As in `Suppression.cause`.
    cause: str | None = None
    reason: SuppressionReason | None = None
    #: Only those that were stored at or after this time.
    since: datetime | None = None
