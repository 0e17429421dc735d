"""What workflows, activities and clients agree on: names, identities, payloads, and a typed stub per activity.

A stub has the signature and the registered name of an activity and no body, so that workflow code can name the activity with
its types and without importing what it needs to run. `worker.py` registers exactly one implementation per stub.

Payloads evolve by addition: one model in, one out; a new field has a default and a comment about runs that predate it.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from pydantic import Field
from temporalio import activity
from temporalio.common import SearchAttributeKey

from bellwire.deliveries import Counts, DeliveryState, Unsettled
from bellwire.events import Checked, Event, Received, event_key
from bellwire.models import Payload
from bellwire.subscriptions import Channel

# Task queues. Each channel has its own, so that each fleet scales, is rate-limited and fails alone.
QUEUE = "bellwire"


def channel_queue(channel: Channel) -> str:
    """The task queue of a channel's send activity."""
    return f"{QUEUE}-{channel}"


# Workflow types, as strings, so that clients start them without importing them.
NOTIFY = "Notify"
DISPATCH = "Dispatch"
LOOKUP = "Lookup"

# Search attributes, registered by `python -m starter setup`.
TENANT = SearchAttributeKey.for_keyword("BellwireTenant")
EVENT_TYPE = SearchAttributeKey.for_keyword_list("BellwireEventType")
EVENT_ID = SearchAttributeKey.for_keyword_list("BellwireEventId")
UNSETTLED = SearchAttributeKey.for_int("BellwireUnsettled")
WAITING = SearchAttributeKey.for_keyword_list("BellwireWaiting")
SEARCH_ATTRIBUTES: tuple[SearchAttributeKey[Any], ...] = (TENANT, EVENT_TYPE, EVENT_ID, UNSETTLED, WAITING)

#: The memo field that holds the digest of what a Notify was started with.
DIGEST_MEMO = "bellwire_digest"

#: Deliveries in one send activity.
CHUNK_SIZE = 200
#: Deliveries that one run looks after.
PAGE_SIZE = 1_000
#: Dispatch children that one Notify starts; what is beyond goes to a Notify below it.
MAX_PAGES = 1_000
#: Events in one publication, and their bytes of JSON.
MAX_EVENTS = 100
MAX_PUBLICATION_BYTES = 1_000_000

#: The reason of a delivery that waits for its subscription's rate limit.
RATE_LIMIT = "rate limit"
#: The reason of one whose receiver had too much to do not long ago.
THROTTLED = "throttled"

# `type` strings of ApplicationErrors. Temporal matches them as strings.
EVENT_NOT_FOUND = "EventNotFound"
DELIVERY_NOT_FOUND = "DeliveryNotFound"
NOT_UNSETTLED = "NotUnsettled"


def workflow_id(source: str, event_id: str) -> str:
    """The id of the Notify of an event that was published by itself: event/<source>/<id>.

    Must collapse: the same (source, id), published any number of times. Must not collapse: ("a", "b/c") and ("a/b", "c"), so
    a slash in the id is escaped. Pairs too long to read are hashed; Temporal's limit is 1,000 characters.
    """
    escaped = quote(event_id, safe=":@!$&'()*+,;=")
    readable = f"event/{source}/{escaped}"
    return readable if len(readable) <= 400 else f"event/{event_key(source, event_id)}"


_BATCH = "events/"


def batch_workflow_id(events: Sequence[Event]) -> str:
    """The id of the Notify of a publication of several events: the same events in the same order start once."""
    keys = "\n".join(event.key for event in events)
    return f"{_BATCH}{hashlib.sha256(keys.encode()).hexdigest()[:32]}"


def is_batch(run: str) -> bool:
    """Whether a run's id is that of a publication of several events."""
    return run.startswith(_BATCH)


def digest_of(events: Sequence[Event]) -> str:
    """A fingerprint of the content of a publication."""
    return hashlib.sha256("\n".join(event.digest for event in events).encode()).hexdigest()


class Action(StrEnum):
    """What an operator can tell a running publication."""

    RETRY_NOW = "retry_now"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class ControlRequest(Payload):
    """A verb for the deliveries of one subscription, of one event, or for all that the run holds."""

    action: Action
    subscription_id: str | None = None
    event_key: str | None = None


class ControlResult(Payload):
    """What came of a Control."""

    #: Deliveries of this run that it changed.
    deliveries: int
    #: Runs below this one that it was passed on to.
    forwarded: int = 0


class Group(Payload):
    """Deliveries of one event over one channel that have come equally far. Thousands of these are in histories: ids only."""

    event_key: str
    channel: Channel
    subscription_ids: tuple[str, ...]
    #: The number of the attempt to make next, from 1.
    attempt: int = 1


#: The channels that have a rate limit now: one delivery per activity, or the limit would count chunks.
Limited = tuple[Channel, ...]


class Page(Payload):
    """A range of subscription ids that holds about PAGE_SIZE deliveries of one event."""

    event_key: str
    #: Exclusive lower bound; empty for the first page.
    after: str = ""
    #: Inclusive upper bound.
    until: str
    size: int


class Remainder(Payload):
    """The part of an event's subscriptions that nobody has looked at yet: all whose id is greater than `after`."""

    event_key: str
    after: str = ""


class Carried(Payload):
    """What a run hands to its successor when it continues as new."""

    waiting: tuple[Unsettled, ...]
    #: Counts by event key.
    counts: dict[str, Counts]
    limited: Limited = ()


class NotifyInput(Payload):
    """A publication, or the part of one that an earlier run or a parent left over."""

    events: tuple[Received, ...] = ()
    remainders: tuple[Remainder, ...] = ()
    carried: Carried | None = None
    #: What an earlier run of this publication found out about its events, by event key.
    known: "dict[str, EventSummary]" = Field(default_factory=dict)


class DispatchInput(Payload):
    """The deliveries of one page; or `redeliver`, deliveries to make again though they are settled; or what was carried over."""

    page: Page | None = None
    redeliver: tuple[Group, ...] = ()
    #: Whether `redeliver` names deliveries whose run is gone.
    abandoned: bool = False
    carried: Carried | None = None


class PublishResult(StrEnum):
    """How a published event stands to what the registry already knows."""

    #: This run delivers it.
    OWNED = "owned"
    #: Another run does, or did: it was published before.
    DUPLICATE = "duplicate"
    #: Another event with its source and id and other content was published before; this one is not delivered.
    CONFLICT = "conflict"


class EventSummary(Payload):
    """One event of a publication."""

    source: str
    id: str
    result: PublishResult = PublishResult.OWNED
    #: The run that delivers it.
    workflow_id: str


class Summary(Payload):
    """Result of a Notify or Dispatch, and answer to the query `status` while it runs. Keys are event keys."""

    events: dict[str, EventSummary] = Field(default_factory=dict)
    counts: dict[str, Counts] = Field(default_factory=dict)
    #: Up to 100 deliveries that this run itself still looks after.
    unsettled: tuple[Unsettled, ...] = ()
    #: Runs below this one that are open.
    open_runs: tuple[str, ...] = ()
    #: Whether all subscriptions have been looked at.
    resolved: bool = True


# Activities.


class ResolveInput(Payload):
    workflow_id: str
    #: Tells the run from a later one of the same id, started when Temporal had forgotten the first; resets keep it.
    run_id: str = ""
    #: Published events, to be stored; none when only remainders are left.
    events: tuple[Checked, ...] = ()
    remainders: tuple[Remainder, ...] = ()
    #: How many deliveries may come back as groups; an event that has more comes back as pages.
    room: int = PAGE_SIZE


class Resolution(Payload):
    events: dict[str, EventSummary] = Field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    pages: tuple[Page, ...] = ()
    #: What this call did not get to; ask again.
    remainders: tuple[Remainder, ...] = ()
    limited: Limited = ()


class PageInput(Payload):
    workflow_id: str
    page: Page


class RedeliverInput(Payload):
    workflow_id: str
    groups: tuple[Group, ...]
    #: Take over deliveries that are not settled, too: the run that held them was terminated or deleted.
    abandoned: bool = False


class Groups(Payload):
    groups: tuple[Group, ...]
    limited: Limited = ()


class Chunk(Payload):
    """Deliveries over one channel that are due now."""

    groups: tuple[Group, ...]
    #: Waits in seconds, for subscriptions that name no schedule of their own.
    schedule: tuple[float, ...]


class Deferred(Payload):
    """A delivery that is to be attempted again."""

    event_key: str
    subscription_id: str
    #: Attempts made so far.
    attempts: int
    #: Seconds until the next attempt, before jitter.
    delay: float
    #: Whether the receiver asked for this delay; then nothing is added that could make it come earlier.
    from_retry_after: bool = False
    reason: str


class ChunkResult(Payload):
    """What became of a chunk: how many settled, by event key and state, and each one that did not."""

    settled: dict[str, dict[DeliveryState, int]]
    deferred: tuple[Deferred, ...] = ()
    limited: Limited = ()


class InlineSend(Payload):
    """Deliveries of a small publication, to be attempted within the workflow task that found them."""

    groups: tuple[Group, ...]
    #: By channel, waits in seconds for subscriptions that name no schedule of their own.
    schedules: dict[Channel, tuple[float, ...]]


class InlineSendResult(ChunkResult):
    #: What goes on by the channel's own activity: it takes longer than a workflow task should, or another worker sends it.
    left: tuple[Group, ...] = ()


class Settlement(Payload):
    """Deliveries to settle as cancelled, unless they have settled otherwise meanwhile."""

    groups: tuple[Group, ...]
    reason: str


class Settled(Payload):
    """How many deliveries stand in which settled state now, by event key."""

    settled: dict[str, dict[DeliveryState, int]]


class LookupInput(Payload):
    source: str
    id: str
    subscription_id: str | None = None


class LookupResult(Payload):
    """What the registry knows of an event and, if asked, of one of its deliveries."""

    event_key: str
    workflow_id: str
    digest: str
    accepted_at: datetime
    counts: Counts
    delivery: Group | None = None
    delivery_state: DeliveryState | None = None
    #: The run that holds, or last held, the delivery.
    delivery_workflow_id: str | None = None


def _stub(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name} is a stub: workflows call it by name, worker.py registers what runs")


@activity.defn
async def resolve(request: ResolveInput) -> Resolution:
    """Store the events, match subscriptions, record up to `room` deliveries as pending and divide the rest into pages."""
    raise _stub("resolve")


@activity.defn
async def open_page(request: PageInput) -> Groups:
    """Record the deliveries of a page as pending, and return them."""
    raise _stub("open_page")


@activity.defn
async def reopen(request: RedeliverInput) -> Groups:
    """Make settled deliveries pending again, with a fresh schedule; those that are not settled are left out."""
    raise _stub("reopen")


@activity.defn
async def settle(request: Settlement) -> Settled:
    """Settle deliveries as cancelled."""
    raise _stub("settle")


@activity.defn
async def lookup(request: LookupInput) -> LookupResult:
    """Look an event up in the registry. Fails with EVENT_NOT_FOUND or DELIVERY_NOT_FOUND."""
    raise _stub("lookup")


@activity.defn
async def send_inline(round: InlineSend) -> InlineSendResult:  # noqa: A002 - the word for it
    """Attempt what this process can attempt within a moment; what takes longer goes on, and an activity takes part in it."""
    raise _stub("send_inline")


@activity.defn
async def send_email(chunk: Chunk) -> ChunkResult:
    """Attempt each delivery of the chunk that is not settled, by SMTP."""
    raise _stub("send_email")


@activity.defn
async def send_sms(chunk: Chunk) -> ChunkResult:
    """Attempt each delivery of the chunk that is not settled, by SMS; one whose last answer was lost is reconciled first."""
    raise _stub("send_sms")


@activity.defn
async def send_webhook(chunk: Chunk) -> ChunkResult:
    """Attempt each delivery of the chunk that is not settled, by HTTP POST."""
    raise _stub("send_webhook")


#: The stub of each channel's send activity.
SEND = {Channel.EMAIL: send_email, Channel.SMS: send_sms, Channel.WEBHOOK: send_webhook}
