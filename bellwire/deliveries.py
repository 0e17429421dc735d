"""Delivery: one event for one subscription. Attempt: one try at it. Outcome: the result of an attempt."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from bellwire.exchanges import Exchange
from bellwire.formats.storable import from_outside
from bellwire.models import Payload
from bellwire.suppressions import Suppression
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding

#: Longest reason, in characters. Reasons appear in logs, histories and the Temporal UI, so they hold no address and no content.
MAX_REASON = 120
#: How long a lease on a delivery lasts: while it does, no other process attempts the delivery. The holder renews it.
LEASE = timedelta(seconds=15)
#: A reservation whose time has passed by more than this is void.
RESERVATION_EXPIRES = timedelta(seconds=30)
#: Longest excerpt of a response that is kept with an attempt, in characters.
MAX_RESPONSE = 1000
#: Longest id of a provider, in characters. It is indexed, and PostgreSQL indexes at most 2,700 bytes.
MAX_PROVIDER_ID = 200
#: Longest currency that a provider reports, in characters; ISO 4217 has three.
MAX_CURRENCY = 8

#: An event key, which is base 32, and a subscription id.
_DELIVERY_ID = re.compile(r"dlv_([a-z2-7]{26})_([A-Za-z0-9][A-Za-z0-9_-]{0,62})")


class DeliveryKey(NamedTuple):
    """Identifies a delivery."""

    event_key: str
    subscription_id: str


def delivery_id(event_key: str, subscription_id: str) -> str:
    """Return the id that receivers and providers deduplicate on. It is the same for all attempts and redeliveries.

    Must be equal: all attempts of one event for one subscription.
    Must differ: two events, and one event for two subscriptions with the same address.
    It has no dot, since Standard Webhooks signs `id.timestamp.body`.
    """
    return f"dlv_{event_key}_{subscription_id}"


def parse_delivery_id(text: str) -> DeliveryKey | None:
    """Return the key of a delivery id; None if it is malformed."""
    match = _DELIVERY_ID.fullmatch(text)
    return DeliveryKey(*match.groups()) if match else None


class OutcomeKind(StrEnum):
    DELIVERED = "delivered"
    #: It can never be delivered.
    REJECTED = "rejected"
    #: Try again, perhaps after a delay that the receiver asked for.
    DEFERRED = "deferred"
    #: It was sent, but the response was lost.
    UNKNOWN = "unknown"


class Fault(StrEnum):
    """Who caused an attempt to fail."""

    #: The endpoint or the recipient.
    RECEIVER = "receiver"
    #: This installation: its configuration, credentials, templates, limits and suppressions.
    OPERATOR = "operator"
    #: What delivers for this installation: a mail relay, an SMS provider.
    PROVIDER = "provider"

    @property
    def counts_against_endpoint(self) -> bool:
        """Whether failures of this kind degrade the endpoint's health, and after days disable the subscription."""
        return self is Fault.RECEIVER


class DeliveryState(StrEnum):
    #: No attempt has been recorded yet.
    PENDING = "pending"
    #: An attempt is in progress or its outcome is not recorded yet. SMS sets this before each attempt, other channels only
    #: for attempts that outlast the activity that started them.
    SENDING = "sending"
    #: The last attempt was deferred or its outcome is unknown; another follows.
    WAITING = "waiting"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    #: The retry schedule ended without success.
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"

    @property
    def settled(self) -> bool:
        return self in SETTLED


#: Settled without success, and not because somebody cancelled it.
FAILED = frozenset({DeliveryState.REJECTED, DeliveryState.EXHAUSTED})
SETTLED = frozenset({DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED})


class SmsFacts(Payload):
    """Segments and cost of an SMS: estimated from the operator's price list, and as reported by the provider."""

    encoding: Encoding
    segments: int
    #: The provider that it was submitted to; None: it was not submitted.
    provider: str | None = None
    #: Segments times price, if it was sent and the price list has a price.
    estimate: Decimal | None = None
    currency: str | None = None
    #: What the provider bills; None until it reports it.
    reported_segments: int | None = None
    reported_price: Decimal | None = None
    reported_currency: Annotated[str | None, from_outside(MAX_CURRENCY)] = None


class Outcome(Payload):
    """The result of an attempt. A refused delivery is data, so it is a value and not an exception.

    Its texts come from outside. The constructor makes them storable, whatever a server or a provider wrote.
    """

    kind: OutcomeKind
    #: Why, in one short line: "HTTP 503", "SMTP 550 5.1.1". Never an address or content.
    reason: Annotated[str, from_outside(MAX_REASON)]
    #: What failed, for the operator, where the reason does not say it. Tenants must not see it.
    cause: str | None = None
    #: The delay that the receiver asked for (Retry-After), in seconds; None if it did not.
    retry_after: float | None = None
    #: The target is permanently gone: disable the subscription.
    disable: bool = False
    #: The receiver is overloaded: throttle the subscription.
    throttle: bool = False
    #: Who caused it, unless it was delivered.
    fault: Fault = Fault.RECEIVER
    #: The provider's id of what was sent, such as a Twilio SID; None if it has none.
    provider_id: Annotated[str | None, from_outside(MAX_PROVIDER_ID)] = None
    #: The start of the response or reply, for debugging one delivery. May hold private data.
    response: Annotated[str | None, from_outside(MAX_RESPONSE)] = None
    #: Recipients that still have to get the mail after some were accepted; None: all of them.
    remaining_recipients: tuple[str, ...] | None = None
    #: None on other channels, and if the SMS was not rendered.
    sms: SmsFacts | None = None
    #: Addresses to suppress, according to the response.
    suppress: tuple[Suppression, ...] = ()
    #: Put the event into the feed of its subscription, in the transaction that records the attempt.
    to_feed: bool = Field(default=False, exclude=True, repr=False)
    #: What was sent and what came back, if it is kept. Stored beside the outcome, so it is no part of its JSON.
    exchanges: tuple[Exchange, ...] = Field(default=(), exclude=True, repr=False)


class Counts(Payload):
    """The number of deliveries of an event, by state."""

    matched: int = 0
    delivered: int = 0
    rejected: int = 0
    exhausted: int = 0
    cancelled: int = 0

    @property
    def settled(self) -> int:
        return self.delivered + self.rejected + self.exhausted + self.cancelled

    @property
    def failed(self) -> int:
        """Those that were rejected or exhausted."""
        return self.rejected + self.exhausted

    @property
    def unsettled(self) -> int:
        return self.matched - self.settled

    def plus(self, more: "Mapping[str, int] | Counts") -> "Counts":
        """Return the sum of these counts and `more`, which may be a mapping of field names to numbers."""
        added = more.model_dump() if isinstance(more, Counts) else more
        return self.model_copy(update={name: getattr(self, name) + number for name, number in added.items()})


class Unsettled(Payload):
    """An unsettled delivery, as its workflow knows it."""

    event_key: str
    subscription_id: str
    channel: Channel
    #: Attempts made so far.
    attempts: int
    #: Reason of the last attempt; empty before the first.
    reason: str = ""
    #: When the next attempt is due; None during an attempt, and while paused.
    due: datetime | None = None
    paused: bool = False
    #: Whether `retry_now` requested the next attempt before it was due. Payloads of earlier versions lack it.
    extra: bool = False

    @property
    def delivery_id(self) -> str:
        return delivery_id(self.event_key, self.subscription_id)


class Failed(Payload):
    """A delivery that was rejected or exhausted, as its workflow sees it."""

    event_key: str
    subscription_id: str
    channel: Channel
    #: Rejected or exhausted.
    state: DeliveryState
    #: Attempts made.
    attempts: int
    #: Reason of the last attempt.
    reason: str

    @property
    def delivery_id(self) -> str:
        return delivery_id(self.event_key, self.subscription_id)


class Attempt(Payload):
    """One try at a delivery, with its outcome, as it is recorded."""

    event_key: str
    subscription_id: str
    #: From 1; redeliveries continue the count.
    number: int
    started_at: datetime
    #: Seconds.
    duration: float
    outcome: Outcome
    #: The state of the delivery after it.
    state: DeliveryState
    #: Seconds until the next attempt, before jitter; None once settled.
    delay: float | None = None
    #: Whether the delay is the one that the receiver asked for.
    from_retry_after: bool = False
    #: Whether the endpoint was throttled or failing when it started, so that a success has to be recorded.
    degraded: bool = False
    #: Whether `retry_now` requested it: if it is deferred, the schedule does not advance. Not stored with the attempt.
    extra: bool = False
    #: The version of the subscription that it was made for; None if that is not known. Not stored with the attempt.
    subscription_version: int | None = None
    #: Whether it can be looked up by the provider's id of what was sent.
    receipts: bool = True

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.duration)


class Delivery(Payload):
    """One event for one subscription, as the registry stores it."""

    event_key: str
    subscription_id: str
    channel: Channel
    state: DeliveryState
    #: Attempts recorded so far.
    attempts: int = 0
    #: Attempts that do not count for the schedule: those before it was redelivered, and deferred ones that `retry_now` requested.
    schedule_from: int = 0
    #: Reason of the last attempt; empty before the first.
    reason: str = ""
    #: Seconds from the last attempt to the next; None before the first and once settled.
    delay: float | None = None
    from_retry_after: bool = False
    #: The time reserved for the next attempt by the subscription's rate limit; None if there is none.
    not_before: datetime | None = None
    #: When the first attempt with an unknown outcome was claimed; None if there is none.
    intent_at: datetime | None = None
    #: Recipients that still have to get the mail after some were accepted; None: all of them.
    remaining_recipients: tuple[str, ...] | None = None
    #: The provider's id of what the last attempt sent.
    provider_id: str | None = None
    #: The provider that was last asked to send the SMS and the number of that attempt: twilio/1. Valid while `intent_at` is set.
    provider_attempted: str | None = None
    #: The workflow that owns it, or owned it last.
    workflow_id: str
    updated_at: datetime

    @property
    def id(self) -> str:
        return delivery_id(self.event_key, self.subscription_id)

    @property
    def key(self) -> DeliveryKey:
        return DeliveryKey(self.event_key, self.subscription_id)

    def reservation(self, now: datetime) -> datetime | None:
        """Return the time reserved for the next attempt by the rate limit; None if there is none, or it has expired.

        Reservations expire so that a backlog does not go out all at once after an outage.
        """
        return None if self.not_before is None or now - self.not_before > RESERVATION_EXPIRES else self.not_before

    def leased(self, now: datetime) -> bool:
        """Whether some process holds a lease, and so is attempting this delivery."""
        return self.state is DeliveryState.SENDING and self.intent_at is not None and now - self.intent_at < LEASE
