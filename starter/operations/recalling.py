"""Taking back what was delivered of an event, page by page, by workers: only they have the accounts with providers."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, TimeoutType
from temporalio.exceptions import TimeoutError as Timeout

from bellwire.contract import (
    RECALL,
    RECALL_SIZE,
    RecallInput,
    RecallOutput,
    RecallResult,
    channel_queue,
    new_recall_id,
)
from bellwire.deliveries import Delivery, DeliveryState
from bellwire.registry import Registry, StoredEvent
from bellwire.targets import SPECS, Channel
from bellwire.temporal.workers import is_polled, run_short
from starter.operations.problems import OperationError

#: Deliveries that are read at a time.
PAGE = 200
#: For one Recall, with all pauses while its provider is busy.
TIMEOUT = timedelta(minutes=15)


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """What became of taking one message back."""

    delivery: Delivery
    result: RecallResult
    detail: str = ""


async def recall_event(
    temporal: Temporal, registry: Registry, stored: StoredEvent, *, subscription_id: str | None = None
) -> AsyncIterator[Sequence[Recalled]]:
    """Take back what was delivered of an event, and yield the results of each page. It may be repeated.

    Raises OperationError if no worker sends over a channel of the event, and TemporalUnavailable.
    """
    key, after = stored.event.key, ""
    await registry.audit_log.record("event.recalled", key, tenant=stored.event.tenant)
    while True:
        page = await registry.deliveries.list(event_key=key, subscription_id=subscription_id, after=after, limit=PAGE)
        if page:
            yield await _recall_page(temporal, key, page)
        if len(page) < PAGE:
            return
        after = page[-1].id


async def _recall_page(temporal: Temporal, key: str, page: Sequence[Delivery]) -> Sequence[Recalled]:
    """The results of these deliveries, in their order."""
    results: dict[str, Recalled] = {}
    by_channel: dict[Channel, list[str]] = defaultdict(list)
    for each in page:
        if SPECS[each.channel].recalls:
            by_channel[each.channel].append(each.subscription_id)
        else:
            delivered = each.state is DeliveryState.DELIVERED
            result = RecallResult.UNSUPPORTED if delivered else RecallResult.NOT_DELIVERED
            results[each.subscription_id] = Recalled(delivery=each, result=result)
    deliveries = {each.subscription_id: each for each in page}
    for channel, names in by_channel.items():
        for start in range(0, len(names), RECALL_SIZE):
            some = tuple(names[start : start + RECALL_SIZE])
            output = await _recall(temporal, RecallInput(event_key=key, channel=channel, subscription_ids=some))
            for answer in output.deliveries:
                results[answer.subscription_id] = Recalled(
                    delivery=deliveries[answer.subscription_id], result=answer.result, detail=answer.detail
                )
    return [results[each.subscription_id] for each in page]


async def _recall(temporal: Temporal, request: RecallInput) -> RecallOutput:
    if not await is_polled(temporal, channel_queue(request.channel), for_workflows=False):
        raise _no_worker_for(request.channel)
    try:
        return await run_short(
            temporal,
            RECALL,
            request,
            id=new_recall_id(request.event_key, request.channel),
            result_type=RecallOutput,
            timeout=TIMEOUT.total_seconds(),
            execution_timeout=TIMEOUT,
            static_summary=f"recall over {request.channel}",
        )
    except WorkflowFailureError as failure:
        cause = failure.cause.cause if isinstance(failure.cause, ActivityError) else failure.cause
        if isinstance(cause, Timeout) and cause.type is TimeoutType.SCHEDULE_TO_START:
            raise _no_worker_for(request.channel) from failure
        raise OperationError(
            f"the recall over {request.channel} did not end: {cause}", remedy="run the command again"
        ) from failure


def _no_worker_for(channel: Channel) -> OperationError:
    return OperationError(
        f"no worker polls the queue of {channel}", remedy=f"start `python worker.py --channels {channel}`"
    )
