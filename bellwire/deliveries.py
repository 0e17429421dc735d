"""Delivery: one event for one subscription; Attempt: one try at it; Outcome: what the attempt came to."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from bellwire.models import Payload
from bellwire.suppressions import Suppression
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding

#: Longest reason, in characters. Reasons reach logs, histories and the Temporal UI, and hold no address and no body.
MAX_REASON = 120
#: Seconds for which other processes leave an attempt alone that is said to be under way; it is said again while it is.
LEASE = timedelta(seconds=15)
#: How long a reserved moment may be past.
SLOT_LAPSES = timedelta(seconds=30)
#: Longest excerpt of a response that is kept with an attempt, in characters.
MAX_RESPONSE = 1000


def delivery_id(event_key: str, subscription_id: str) -> str:
    """The id that receivers and providers deduplicate on: equal over all attempts, replays and runs.

    Must collapse: every attempt of one event for one subscription, whoever makes it and whenever.
    Must not collapse: two events, or one event for two subscriptions of the same address.
    Holds no dot, since Standard Webhooks signs `id.timestamp.body`.
    """
    return f"dlv_{event_key}_{subscription_id}"


class OutcomeKind(StrEnum):
    DELIVERED = "delivered"
    #: It never will be.
    REJECTED = "rejected"
    #: Try again, perhaps at a stated time.
    DEFERRED = "deferred"
    #: It was sent, the answer was lost.
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
    #: An attempt is made now; what became of it is not recorded yet. SMS says so before each attempt, other channels only
    #: of those that take so long that what began them does not wait.
    SENDING = "sending"
    #: An attempt was deferred or its outcome is unknown; another will follow.
    WAITING = "waiting"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    #: The schedule has ended without success.
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"

    @property
    def settled(self) -> bool:
        return self in SETTLED


SETTLED = frozenset({DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED})


class SmsFacts(Payload):
    """What an SMS took, and what it costs: by the operator's table of prices, and as the provider says."""

    encoding: Encoding
    segments: int
    #: Who was asked to send it; None: nobody.
    provider: str | None = None
    #: Segments times price, if it was sent and the table names a price.
    estimate: Decimal | None = None
    currency: str | None = None
    #: What the provider bills, so far as it has said.
    reported_segments: int | None = None
    reported_price: Decimal | None = None
    reported_currency: str | None = None


class Outcome(Payload):
    """What an attempt came to. A refused delivery is data, so it is this value and not an exception."""

    kind: OutcomeKind
    #: The provider's word in one bounded line: "HTTP 503", "SMTP 550 5.1.1". Never an address, never a body.
    reason: str
    #: Seconds after which the receiver asked to be tried again; None if it did not say.
    retry_after: float | None = None
    #: The target is gone for good, so the subscription is to be disabled.
    disable: bool = False
    #: The receiver has too much to do, so nothing goes to this subscription for a while.
    throttle: bool = False
    #: Who caused it, unless it was delivered.
    fault: Fault = Fault.RECEIVER
    #: The provider's own id of what was sent (a Twilio SID); None if it gave none.
    provider_id: str | None = None
    #: The start of the response or reply, for debugging one delivery. May hold private data.
    response: str | None = None
    #: Addresses that are still owed the mail after a partial refusal; None if all of them are.
    remaining_recipients: tuple[str, ...] | None = None
    #: What an SMS took; None on other channels, and where it was not rendered.
    sms: SmsFacts | None = None
    #: Addresses that are not to be written to any more, by what the provider said.
    suppress: tuple[Suppression, ...] = ()


class Counts(Payload):
    """How many deliveries of an event stand where."""

    matched: int = 0
    delivered: int = 0
    rejected: int = 0
    exhausted: int = 0
    cancelled: int = 0

    @property
    def settled(self) -> int:
        return self.delivered + self.rejected + self.exhausted + self.cancelled

    @property
    def unsettled(self) -> int:
        return self.matched - self.settled

    def plus(self, more: "Mapping[str, int] | Counts") -> "Counts":
        """These counts and `more` (names of fields and numbers) together."""
        added = more.model_dump() if isinstance(more, Counts) else more
        return self.model_copy(update={name: getattr(self, name) + number for name, number in added.items()})


class Unsettled(Payload):
    """A delivery that is not settled, as its workflow sees it."""

    event_key: str
    subscription_id: str
    channel: Channel
    #: Attempts made so far.
    attempts: int
    #: What the last attempt came to; empty if there was none yet.
    reason: str = ""
    #: When the next attempt is due; None while it is being made, or while paused.
    due: datetime | None = None
    paused: bool = False

    @property
    def delivery_id(self) -> str:
        return delivery_id(self.event_key, self.subscription_id)


class Attempt(Payload):
    """One try at a delivery, made and judged, as it is recorded."""

    event_key: str
    subscription_id: str
    #: From 1; goes on counting over replays.
    number: int
    started_at: datetime
    #: Seconds.
    duration: float
    outcome: Outcome
    #: Where the delivery stands after it.
    state: DeliveryState
    #: Seconds until the next attempt, before jitter; None once settled.
    delay: float | None = None
    #: Whether the receiver asked for that delay.
    from_retry_after: bool = False
    #: Whether its subscription was throttled or failing when it began, so that a success has something to clear.
    degraded: bool = False

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.duration)


class Delivery(Payload):
    """One event for one subscription, as the registry has it."""

    event_key: str
    subscription_id: str
    channel: Channel
    state: DeliveryState
    #: Attempts recorded so far.
    attempts: int = 0
    #: Attempts that had been made when its schedule last began: 0, or more once it was made again.
    schedule_from: int = 0
    #: Reason of the last attempt; empty before the first.
    reason: str = ""
    #: The wait that the last attempt came to; None before the first and once settled.
    delay: float | None = None
    from_retry_after: bool = False
    #: The moment that its next attempt has reserved under the subscription's rate limit; None if it has not.
    not_before: datetime | None = None
    #: When the first attempt was announced whose outcome is not known yet; None otherwise.
    intent_at: datetime | None = None
    #: Addresses that are still owed the mail after a partial refusal; None if all of them are.
    remaining_recipients: tuple[str, ...] | None = None
    #: The provider's id of what was sent last.
    provider_id: str | None = None
    #: The provider that was last asked to send the SMS and the number of that attempt: twilio/1. Valid while `intent_at` is set.
    provider_attempted: str | None = None
    #: The run that holds it, or held it last.
    workflow_id: str
    updated_at: datetime

    @property
    def id(self) -> str:
        return delivery_id(self.event_key, self.subscription_id)

    def slot(self, now: datetime) -> datetime | None:
        """The moment that it has reserved, unless that has lapsed: after an outage, a backlog must not go out all at once."""
        return None if self.not_before is None or now - self.not_before > SLOT_LAPSES else self.not_before

    def leased(self, now: datetime) -> bool:
        """Whether some process said not long ago that it is attempting this delivery."""
        return self.state is DeliveryState.SENDING and self.intent_at is not None and now - self.intent_at < LEASE
