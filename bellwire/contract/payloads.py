"""Payloads: what workflows and activities take and return.

Payloads evolve by addition: one model in, one out; a new field has a default and a comment about runs that predate it. They are
written to histories thousands of times, so deliveries are ids, without addresses or content.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from bellwire.contract.names import PAGE_SIZE
from bellwire.deliveries import Counts, DeliveryState, Failed, Unsettled
from bellwire.events import Checked, Received
from bellwire.models import Payload
from bellwire.targets import Channel


class Group(Payload):
    """Deliveries of one event over one channel that have the same attempt number."""

    event_key: str
    channel: Channel
    subscription_ids: tuple[str, ...]
    #: The number of the next attempt, from 1.
    attempt: int = 1
    #: Whether `retry_now` requested the attempt before it was due: if it is deferred, the schedule does not advance. Groups of
    #: earlier versions lack it.
    extra: bool = False


class Page(Payload):
    """A range of subscription ids that holds about PAGE_SIZE deliveries of one event."""

    event_key: str
    #: Exclusive lower bound; empty for the first page.
    after: str = ""
    #: Inclusive upper bound.
    until: str
    size: int


class Remainder(Payload):
    """The subscriptions of an event that have not been matched yet: all whose id is greater than `after`."""

    event_key: str
    after: str = ""


class PublishResult(StrEnum):
    """Which workflow delivers a published event."""

    #: This workflow delivers it.
    OWNED = "owned"
    #: It was published before: another workflow delivers it, or has delivered it.
    DUPLICATE = "duplicate"
    #: An event with its source and id, but other content, was published before. This event is not delivered.
    CONFLICT = "conflict"
    #: No subscription was ever stored for its tenant, and BELLWIRE_UNKNOWN_TENANTS refuses such events. It is not stored.
    REFUSED = "refused"


class EventSummary(Payload):
    """One event of a publication."""

    source: str
    id: str
    result: PublishResult = PublishResult.OWNED
    #: The workflow that delivers it.
    workflow_id: str
    #: No subscription was ever stored for its tenant. Results of earlier versions do not say.
    unknown_tenant: bool = False


class Summary(Payload):
    """Result of a Notify or Dispatch, and of its query `status`. Keys are event keys."""

    events: dict[str, EventSummary] = Field(default_factory=dict)
    counts: dict[str, Counts] = Field(default_factory=dict)
    #: Up to 100 unsettled deliveries of this workflow, without those of its children.
    unsettled: tuple[Unsettled, ...] = ()
    #: Workflow ids of the children that are open.
    open_children: tuple[str, ...] = ()
    #: Whether all subscriptions have been matched.
    resolved: bool = True
    #: The first MAX_FAILED deliveries that were rejected or exhausted, those of ended children included. Results of earlier
    #: versions lack it, and `outcomes`.
    failed: tuple[Failed, ...] = ()
    #: What the deliveries and events came to, as in the search attribute BellwireOutcome.
    outcomes: tuple[str, ...] = ()


# Workflows.


class CarriedState(Payload):
    """What a run hands to its successor when it continues as new."""

    unsettled: tuple[Unsettled, ...]
    #: Counts by event key.
    counts: dict[str, Counts]
    limited_channels: tuple[Channel, ...] = ()
    #: The first MAX_FAILED deliveries that were rejected or exhausted. Runs of earlier versions hand over none.
    failed: tuple[Failed, ...] = ()
    #: When the events were published. Runs of earlier versions do not say.
    published_at: datetime | None = None


class NotifyInput(Payload):
    """A publication, or what an earlier run or a parent left of one."""

    events: tuple[Received, ...] = ()
    remainders: tuple[Remainder, ...] = ()
    carried: CarriedState | None = None
    #: The events that an earlier run of this publication has resolved, by event key.
    resolved_events: dict[str, EventSummary] = Field(default_factory=dict)
    #: When the events were published, in a child that takes over the rest. None: when the workflow started.
    published_at: datetime | None = None


class DispatchInput(Payload):
    """The deliveries to run: those of a page, those to redeliver, or those carried over from the run before."""

    page: Page | None = None
    redeliver: tuple[Group, ...] = ()
    #: Whether `redeliver` names unsettled deliveries whose workflow was terminated or deleted.
    abandoned: bool = False
    #: Whether to leave out those of `redeliver` that were attempted since they were selected. Runs of earlier versions do not.
    unchanged_only: bool = False
    #: Deliveries of past events, to begin as far as they do not exist. They are attempted in this order, one after the other, as
    #: long as the receiver takes them. Runs of earlier versions have none.
    past: tuple[Group, ...] = ()
    carried: CarriedState | None = None
    #: When the event of the page was published. None in a redelivery, and in pages of earlier versions.
    published_at: datetime | None = None
    #: Whether `carried` was of `past`.
    in_order: bool = False


# Activities on the registry.


class ResolveInput(Payload):
    workflow_id: str
    #: Separates the run from a later one with the same workflow id, started after Temporal deleted the first. A reset keeps it.
    run_id: str = ""
    #: Published events to store; empty when only remainders are left.
    events: tuple[Checked, ...] = ()
    remainders: tuple[Remainder, ...] = ()
    #: Maximum deliveries to return as groups; an event that has more comes back as pages.
    max_deliveries: int = PAGE_SIZE


class ResolveResult(Payload):
    events: dict[str, EventSummary] = Field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    pages: tuple[Page, ...] = ()
    #: What this call did not match; the next call continues with it.
    remainders: tuple[Remainder, ...] = ()
    #: Channels that have a rate limit now: one delivery per activity, since the limit counts activities.
    limited_channels: tuple[Channel, ...] = ()


class OpenPageInput(Payload):
    workflow_id: str
    page: Page


class RedeliverInput(Payload):
    workflow_id: str
    groups: tuple[Group, ...]
    #: Also take over deliveries that are not settled: their workflow was terminated or deleted.
    abandoned: bool = False
    #: Only those whose next attempt is still the one that its group names. Requests of earlier versions take all.
    unchanged_only: bool = False


class PendingGroups(Payload):
    """Deliveries that are recorded as pending."""

    groups: tuple[Group, ...]
    limited_channels: tuple[Channel, ...] = ()


class SettleInput(Payload):
    """Deliveries to settle as cancelled, unless they have settled otherwise."""

    groups: tuple[Group, ...]
    reason: str


class SettleResult(Payload):
    """How many of the deliveries are in which settled state, by event key."""

    settled: dict[str, dict[DeliveryState, int]]


class LookupInput(Payload):
    source: str
    id: str
    subscription_id: str | None = None


class LookupResult(Payload):
    """The registry's record of an event and, if requested, of one of its deliveries; or that there is none."""

    #: EVENT_NOT_FOUND or DELIVERY_NOT_FOUND; None if it was found. Workers of earlier versions fail the workflow instead.
    not_found: str | None = None
    event_key: str
    workflow_id: str = ""
    digest: str = ""
    accepted_at: datetime | None = None
    counts: Counts = Counts()
    delivery: Group | None = None
    delivery_state: DeliveryState | None = None
    #: The workflow that runs the delivery, or ran it last.
    delivery_workflow_id: str | None = None


# Send activities.


class Chunk(Payload):
    """Deliveries over one channel that are due now."""

    groups: tuple[Group, ...]
    #: Delays in seconds, for subscriptions without a schedule.
    schedule: tuple[float, ...]
    #: When the events were published, if these may be first attempts. Chunks of earlier versions do not say.
    published_at: datetime | None = None
    #: Whether to attempt one after the other, as long as each is delivered. Chunks of earlier versions are concurrent.
    in_order: bool = False


class Deferred(Payload):
    """A delivery that needs another attempt."""

    event_key: str
    subscription_id: str
    #: Attempts made so far.
    attempts: int
    #: Seconds until the next attempt, before jitter.
    delay: float
    #: Whether the delay is the receiver's Retry-After; it gets no jitter.
    from_retry_after: bool = False
    reason: str


class ChunkResult(Payload):
    """How many deliveries settled, by event key and state, and each delivery that did not settle."""

    settled: dict[str, dict[DeliveryState, int]]
    deferred: tuple[Deferred, ...] = ()
    limited_channels: tuple[Channel, ...] = ()
    #: The first MAX_FAILED deliveries that were rejected or exhausted. Workers of earlier versions list none.
    failed: tuple[Failed, ...] = ()


class InlineSend(Payload):
    """Deliveries of a small publication, to attempt within the workflow task that found them."""

    groups: tuple[Group, ...]
    #: By channel, delays in seconds for subscriptions without a schedule.
    schedules: dict[Channel, tuple[float, ...]]
    #: When the events were published. Workflows of earlier versions do not say.
    published_at: datetime | None = None


class InlineSendResult(ChunkResult):
    #: Deliveries for the channel's own activity: they take too long for a workflow task, or another worker sends them.
    remaining: tuple[Group, ...] = ()
