"""What the environment captures: attempts, and deliveries as they are."""

from dataclasses import dataclass
from datetime import datetime

from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.events import Event
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel


@dataclass(frozen=True)
class CapturedAttempt:
    """One attempt: what would have been sent to whom, and how the receiver responded."""

    event: Event
    subscription: Subscription
    #: Its number, from 1.
    number: int
    #: `delivered`, `rejected` or `deferred`.
    outcome: OutcomeKind
    #: Why, as the response says.
    reason: str
    #: Simulated time.
    at: datetime

    @property
    def channel(self) -> Channel:
        return self.subscription.channel


@dataclass(frozen=True)
class CapturedDelivery:
    """One event for one subscription, as it is now."""

    event: Event
    subscription: Subscription
    state: DeliveryState
    #: Attempts made so far.
    attempts: int
    #: Of the last attempt; empty before the first.
    reason: str

    @property
    def channel(self) -> Channel:
        return self.subscription.channel
