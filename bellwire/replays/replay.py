"""Replay: past deliveries or events that are sent to one subscription, and how far that is."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bellwire.deliveries import DeliveryState
from bellwire.events import uuid7
from bellwire.filters import TypePattern
from bellwire.models import Payload
from bellwire.subscriptions import Subscription

#: Deliveries per second by default: a load that endpoints and workers hardly notice beside their own.
DEFAULT_RATE = 50.0
#: How far the replay of a new subscription's past reaches beyond the time at which it is made, so that the clocks of hosts may
#: differ. Of an event in both, the replay and its own publication, the first to record the delivery makes it.
OVERLAP = timedelta(minutes=5)
#: Bounds of the rate.
MIN_RATE, MAX_RATE = 0.01, 1_000.0


class ReplayKind(StrEnum):
    #: One settled delivery.
    DELIVERY = "delivery"
    #: The failed deliveries of the subscription: rejected, exhausted or cancelled.
    FAILED = "failed"
    #: Events that the subscription matches now and that were never delivered to it.
    EVENTS = "events"


class ReplayState(StrEnum):
    #: It goes on, or begins soon.
    RUNNING = "running"
    #: It starts nothing more until it is resumed.
    PAUSED = "paused"
    #: Everything was attempted at least once.
    COMPLETED = "completed"
    #: What had not been started is not sent.
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {ReplayState.COMPLETED, ReplayState.CANCELLED}


def new_replay_id() -> str:
    """Ids sort by creation."""
    return f"rpl_{uuid7().hex}"


class Replay(Payload):
    """What is sent again to a subscription, or for the first time, and how far that is."""

    id: str = Field(default_factory=new_replay_id)
    tenant: str
    subscription_id: str
    kind: ReplayKind
    #: Only deliveries in these states.
    states: tuple[DeliveryState, ...] = ()
    #: Only of events whose type matches one of these patterns; empty: of all.
    types: tuple[TypePattern, ...] = ()
    #: The event of a single delivery.
    event_key: str | None = None
    #: From then on, and before then: when events were stored, or when deliveries settled.
    since: datetime | None = None
    until: datetime
    #: Deliveries per second at most.
    rate: Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE)] = DEFAULT_RATE
    state: ReplayState = ReplayState.RUNNING
    #: Why Bellwire paused it; None: an operator did, if it is paused.
    state_reason: str | None = None
    #: How many deliveries it selects, as counted before it began; None: not counted yet, or too many to count.
    total: int | None = None
    #: How many it has attempted at least once.
    done: int = 0
    created_at: datetime
    updated_at: datetime
    #: When its workflow began; None: not yet.
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def waits_for_subscription(self) -> bool:
        """Whether Bellwire paused it, until its subscription is active again."""
        return self.state is ReplayState.PAUSED and self.state_reason is not None

    @property
    def seconds_left(self) -> float | None:
        """About how long it still takes, by its pace so far; None if that is not known."""
        if self.total is None or self.state is not ReplayState.RUNNING:
            return None
        left = max(0, self.total - self.done)
        if self.started_at is None or not self.done:
            return left / self.rate
        return left * max((self.updated_at - self.started_at).total_seconds() / self.done, 1 / self.rate)


def replay_since(subscription: Subscription, since: datetime, *, rate: float = DEFAULT_RATE) -> Replay:
    """The replay of what happened since then, for a subscription that is made now and stored with it."""
    now = datetime.now(UTC)
    return Replay(
        tenant=subscription.tenant,
        subscription_id=subscription.id,
        kind=ReplayKind.EVENTS,
        since=since,
        until=now + OVERLAP,
        rate=rate,
        created_at=now,
        updated_at=now,
    )
