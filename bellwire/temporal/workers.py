"""Whether workers poll, and what only a worker can answer: a client must not wait for one that does not run."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import QUEUE
from bellwire.errors import WorkerUnavailable
from bellwire.temporal.connection import translated

#: A worker polls again after 60 s at the latest, unless all its slots are busy.
POLL_INTERVAL = timedelta(seconds=65)
#: Timeout of the question who polls. It takes milliseconds.
DESCRIBE_TIMEOUT = timedelta(seconds=5)
#: Seconds that a request may take before the server is asked whether a worker polls at all.
PATIENCE = 1.0
#: Seconds that a worker has to start a short workflow.
START_TIMEOUT = 10.0
#: Events in the history of a workflow that no worker has started: it was started, and its first task was scheduled.
_NOT_STARTED = 2

_KINDS = {True: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, False: TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY}

T = TypeVar("T")


async def is_polled(temporal: Temporal, queue: str = QUEUE, *, for_workflows: bool = True) -> bool:
    """Whether a worker has polled the task queue in the last minute; True if the server does not say.

    The server remembers polls, not workers: one that has just stopped still counts.
    """
    request = DescribeTaskQueueRequest(
        namespace=temporal.namespace, task_queue=TaskQueue(name=queue), task_queue_type=_KINDS[for_workflows]
    )
    try:
        response = await temporal.workflow_service.describe_task_queue(request, timeout=DESCRIBE_TIMEOUT)
    except RPCError:
        return True
    since = datetime.now(UTC) - POLL_INTERVAL
    return any(poller.last_access_time.ToDatetime(UTC) > since for poller in response.pollers)


async def last_poll(temporal: Temporal, queue: str) -> datetime | None:
    """When a worker last polled the task queue for activities; None if none has for five minutes, which the server remembers.

    Also None if the server does not say.
    """
    request = DescribeTaskQueueRequest(
        namespace=temporal.namespace, task_queue=TaskQueue(name=queue), task_queue_type=_KINDS[False]
    )
    try:
        response = await temporal.workflow_service.describe_task_queue(request, timeout=DESCRIBE_TIMEOUT)
    except RPCError:
        return None
    return max((poller.last_access_time.ToDatetime(UTC) for poller in response.pollers), default=None)


async def require_worker(temporal: Temporal) -> None:
    """Raise WorkerUnavailable if no worker polls for workflows."""
    if not await is_polled(temporal):
        raise WorkerUnavailable


async def answered(temporal: Temporal, request: Coroutine[Any, Any, T], *, timeout: float) -> T:
    """Return the answer of a worker to a query or an update.

    Raises WorkerUnavailable: after a second if no worker polls, or after `timeout` seconds if one has polled but does not answer.
    """
    task = asyncio.ensure_future(request)
    try:
        await asyncio.wait({task}, timeout=min(PATIENCE, timeout))
        if not task.done():
            await require_worker(temporal)
            await asyncio.wait({task}, timeout=timeout - PATIENCE)
        if not task.done():
            raise _silent(timeout)
        with translated(temporal):
            try:
                return task.result()
            except RPCError as error:
                # The server responds that the worker did not.
                if error.status is RPCStatusCode.DEADLINE_EXCEEDED:
                    raise _silent(timeout) from error
                raise
    finally:
        await _end(task)


async def run_short(
    temporal: Temporal, workflow: str, request: Any, *, result_type: type[T], timeout: float, **options: Any
) -> T:
    """Run a workflow whose result the caller waits for, and return the result. `options` are those of `start_workflow`.

    It is terminated if no worker starts it within START_TIMEOUT, or if it takes longer than `timeout` seconds. Raises
    WorkerUnavailable, and WorkflowFailureError if it fails.
    """
    await require_worker(temporal)
    with translated(temporal):
        handle: WorkflowHandle[Any, T] = await temporal.start_workflow(
            workflow, request, task_queue=QUEUE, result_type=result_type, **options
        )
    task = asyncio.ensure_future(handle.result())
    try:
        await asyncio.wait({task}, timeout=min(START_TIMEOUT, timeout))
        if not task.done():
            with translated(temporal):
                description = await handle.describe(rpc_timeout=DESCRIBE_TIMEOUT)
            if description.history_length <= _NOT_STARTED:
                raise await _given_up(temporal, handle, START_TIMEOUT)
            await asyncio.wait({task}, timeout=timeout - START_TIMEOUT)
        if not task.done():
            raise await _given_up(temporal, handle, timeout)
        with translated(temporal):
            return task.result()
    finally:
        await _end(task)


async def _end(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _given_up(temporal: Temporal, handle: WorkflowHandle[Any, Any], seconds: float) -> WorkerUnavailable:
    """Terminate a workflow whose caller waits no longer, so that it does nothing later."""
    with translated(temporal):
        await handle.terminate("no worker answered in time", rpc_timeout=DESCRIBE_TIMEOUT)
    return _silent(seconds)


def _silent(seconds: float) -> WorkerUnavailable:
    return WorkerUnavailable(
        f"the worker did not answer within {seconds:g} s; check that `python worker.py` runs, and its log"
    )
