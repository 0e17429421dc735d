"""Test send: one event sent to one subscription now, by a worker. It is not recorded as a delivery."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as Timeout

from bellwire.contract import (
    SUBSCRIPTION_NOT_FOUND,
    TEST_SEND,
    TestSendInput,
    TestSendResult,
    channel_queue,
    new_test_send_id,
)
from bellwire.errors import SubscriptionNotFound
from bellwire.exchanges import Exchange
from bellwire.registry import Registry
from bellwire.targets import WORKER_CHANNELS, Channel
from bellwire.temporal.workers import is_polled, run_short
from starter.operations.problems import OperationError

#: For the whole test send: a minute for the attempt, and the time until workers start the run and the attempt.
TIMEOUT = timedelta(seconds=90)


@dataclass(frozen=True, kw_only=True)
class TestSendReport:
    """What became of a test send, and what it sent and received."""

    result: TestSendResult
    exchanges: Sequence[Exchange]


async def send_test(client: Temporal, registry: Registry, request: TestSendInput) -> TestSendReport:
    """Send the event and wait for the outcome. Raises OperationError, SubscriptionNotFound, TemporalUnavailable."""
    if request.channel not in WORKER_CHANNELS:
        raise OperationError(f"a {request.channel} has no test send", remedy="publish an event of its type")
    if not await is_polled(client, channel_queue(request.channel), for_workflows=False):
        raise _no_worker_for(request.channel)
    workflow_id = new_test_send_id(request.subscription_id)
    try:
        result = await run_short(
            client,
            TEST_SEND,
            request,
            id=workflow_id,
            result_type=TestSendResult,
            timeout=TIMEOUT.total_seconds(),
            execution_timeout=TIMEOUT,
            static_summary=f"test send to {request.subscription_id}",
        )
    except WorkflowFailureError as failure:
        raise error_of(failure.cause, request.channel) from failure
    exchanges = await registry.test_sends.take(request.subscription_id, workflow_id)
    return TestSendReport(result=result, exchanges=exchanges)


def error_of(cause: BaseException, channel: Channel) -> Exception:
    """The error that a failed run stands for."""
    if isinstance(cause, Timeout):
        return OperationError(
            f"no worker started it within {TIMEOUT.total_seconds():.0f} s", remedy="start `python worker.py`"
        )
    inner = cause.cause if isinstance(cause, ActivityError) else cause
    if isinstance(inner, ApplicationError) and inner.type == SUBSCRIPTION_NOT_FOUND:
        return SubscriptionNotFound(inner.message)
    if isinstance(inner, Timeout) and inner.type is TimeoutType.SCHEDULE_TO_START:
        return _no_worker_for(channel)
    if isinstance(inner, Timeout):
        return OperationError("the attempt did not end within a minute; what was sent may still arrive")
    return OperationError(f"the worker failed: {inner or cause}", remedy="see its log")


def _no_worker_for(channel: Channel) -> OperationError:
    return OperationError(
        f"no worker polls the queue of {channel}", remedy=f"start `python worker.py --channels {channel}`"
    )
