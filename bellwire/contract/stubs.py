"""Activity stubs: the signature and registered name of each activity, without a body.

Workflow code names an activity by its stub, with its types and without importing what it needs to run. `worker.py` registers
exactly one implementation per stub.
"""

from collections.abc import Awaitable, Callable

from temporalio import activity

from bellwire.contract.handlers import (
    CallRecords,
    HandlerRegistration,
    HandlerRegistrationResult,
    OpenedCalls,
)
from bellwire.contract.payloads import (
    Chunk,
    ChunkResult,
    InlineSend,
    InlineSendResult,
    LookupInput,
    LookupResult,
    OpenPageInput,
    PendingGroups,
    RedeliverInput,
    ResolveInput,
    ResolveResult,
    SettleInput,
    SettleResult,
)
from bellwire.contract.recalls import OpenedRecall, RecallChunk, RecallChunkResult, RecallInput, RecallPage
from bellwire.contract.replays import OpenPastInput, ReplayBatch, SelectReplayInput
from bellwire.contract.test_sends import TestSendInput, TestSendResult
from bellwire.contract.ticks import PlanTickInput, TickRecord
from bellwire.events import Event
from bellwire.targets import SPECS, WORKER_CHANNELS, ChannelSpec


def _stub(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name} is a stub; worker.py registers the implementation")


@activity.defn
async def resolve(request: ResolveInput) -> ResolveResult:
    """Store the events, match subscriptions, record up to `max_deliveries` as pending, and divide the rest into pages."""
    raise _stub("resolve")


@activity.defn
async def open_page(request: OpenPageInput) -> PendingGroups:
    """Record the deliveries of a page as pending, and return them."""
    raise _stub("open_page")


@activity.defn
async def redeliver(request: RedeliverInput) -> PendingGroups:
    """Make settled deliveries pending again, with a new schedule; those that are not settled are left out."""
    raise _stub("redeliver")


@activity.defn
async def select_replay(request: SelectReplayInput) -> ReplayBatch:
    """Record how far a replay is, and select its next deliveries."""
    raise _stub("select_replay")


@activity.defn
async def open_past(request: OpenPastInput) -> PendingGroups:
    """Record deliveries of past events as pending, and return those that no other workflow has."""
    raise _stub("open_past")


@activity.defn
async def settle(request: SettleInput) -> SettleResult:
    """Settle deliveries as cancelled."""
    raise _stub("settle")


@activity.defn
async def lookup(request: LookupInput) -> LookupResult:
    """Look an event up in the registry. What is not there is `not_found`, and no failure."""
    raise _stub("lookup")


@activity.defn
async def send_inline(inline: InlineSend) -> InlineSendResult:
    """Attempt deliveries within a workflow task; those that take longer are returned as `remaining`, for an activity."""
    raise _stub("send_inline")


@activity.defn
async def plan_tick(request: PlanTickInput) -> Event:
    """The event of a tick."""
    raise _stub("plan_tick")


@activity.defn
async def record_tick(record: TickRecord) -> None:
    """Record a tick in the registry, unless it is recorded."""
    raise _stub("record_tick")


@activity.defn
async def send_test(test_send: TestSendInput) -> TestSendResult:
    """Attempt one delivery, whatever the state of the subscription, and record nothing. Fails with SUBSCRIPTION_NOT_FOUND."""
    raise _stub("send_test")


@activity.defn
async def open_recall(request: RecallInput) -> OpenedRecall:
    """Cancel what is not sent of an event, and wait a while for attempts in flight."""
    raise _stub("open_recall")


@activity.defn
async def select_recall(request: RecallInput) -> RecallPage:
    """Return the next deliveries of an event."""
    raise _stub("select_recall")


@activity.defn
async def recall_messages(chunk: RecallChunk) -> RecallChunkResult:
    """Take back the message of each delivery, and record it. A provider that is busy is `busy`, and no failure."""
    raise _stub("recall_messages")


@activity.defn
async def open_calls(chunk: Chunk) -> OpenedCalls:
    """Return the calls of handlers that are due, by service. What needs no call is recorded."""
    raise _stub("open_calls")


@activity.defn
async def record_calls(records: CallRecords) -> ChunkResult:
    """Record what calls of handlers came to."""
    raise _stub("record_calls")


@activity.defn
async def register_handlers(registration: HandlerRegistration) -> HandlerRegistrationResult:
    """Store the subscriptions of a service's handlers. What is refused is `refused`, and no failure."""
    raise _stub("register_handlers")


def _send_stub(spec: ChannelSpec) -> Callable[[Chunk], Awaitable[ChunkResult]]:
    @activity.defn(name=spec.activity)
    async def send(chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled."""
        raise _stub(spec.activity)

    return send


#: The stub of each channel's send activity: send_email, send_sms, …
SEND = {channel: _send_stub(SPECS[channel]) for channel in WORKER_CHANNELS}
