"""Payloads of the workflow Replay and of its activities."""

from datetime import datetime

from bellwire.contract.payloads import Group
from bellwire.deliveries import DeliveryState
from bellwire.models import Payload
from bellwire.replays import ReplayState


class ReplayCursor(Payload):
    """How far a replay is: what comes next is greater. Of events by when they were stored, of deliveries by state and key."""

    stored_at: datetime | None = None
    state: DeliveryState | None = None
    event_key: str = ""


class ReplayInput(Payload):
    """Which replay, and how far earlier runs of it have come."""

    replay_id: str
    cursor: ReplayCursor | None = None
    #: Deliveries that were attempted at least once.
    done: int = 0
    #: Batches that were started.
    batches: int = 0


class SelectReplayInput(Payload):
    """The request for the next batch."""

    replay_id: str
    cursor: ReplayCursor | None = None
    done: int = 0
    #: The workflow was cancelled: select nothing, and record that.
    cancelled: bool = False


class ReplayBatch(Payload):
    """The next deliveries of a replay."""

    #: The state of the replay. Only one that is running has deliveries.
    state: ReplayState
    groups: tuple[Group, ...] = ()
    #: Whether the groups are of events that have no delivery yet.
    missing: bool = False
    cursor: ReplayCursor | None = None
    #: Deliveries per second.
    rate: float = 1.0
    #: Seconds before the next selection, since the endpoint is throttled, or the subscription is not active.
    wait: float = 0.0
    tenant: str = ""
    subscription_id: str = ""
    total: int | None = None


class ReplayResult(Payload):
    """What a replay came to."""

    state: ReplayState
    #: Deliveries that were attempted at least once. Those that were deferred go on by their own schedule.
    done: int


class OpenPastInput(Payload):
    """Deliveries of past events to begin, as far as they have none."""

    workflow_id: str
    groups: tuple[Group, ...]
