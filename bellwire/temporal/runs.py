"""Runs: the workflows of publications as a client sees them. Callers that ask the same at the same time share one call."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from temporalio.client import Client as Temporal
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import Summary
from bellwire.deliveries import Counts, Failed, Unsettled
from bellwire.temporal.connection import translated
from bellwire.temporal.workers import answered, is_polled

#: Workflows that are queried concurrently.
CONCURRENCY = 20
#: Seconds for a query. It takes milliseconds; after a worker was killed, the server waits 10 s for it first.
QUERY_TIMEOUT = 20.0
#: Seconds before a long poll is repeated that ended without a result.
REPEAT_SECONDS = 0.5
#: Timeout of a call that the server answers by itself.
RPC_TIMEOUT = timedelta(seconds=10)


class NotStarted(Summary):
    """Of a workflow that has matched nothing: it is to start later, or was cancelled before."""

    #: When it starts, or would have; None if it was not to start later.
    deliver_at: datetime | None
    cancelled: bool


class OfEvent(NamedTuple):
    """What workflows have of one event."""

    counts: Counts
    unsettled: list[Unsettled]
    failed: list[Failed]


@dataclass
class _Call:
    """A call that several callers wait for."""

    task: "asyncio.Task[Any]"
    callers: int = 0


@dataclass
class Runs:
    """Reads workflows by id. All methods raise TemporalUnavailable, and WorkerUnavailable where only a worker can answer."""

    temporal: Temporal
    _calls: dict[tuple[str, str], _Call] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENCY))

    async def summary(self, workflow_id: str, *, shared: bool = False) -> Summary | None:
        """The summary of a workflow as it is now; None if Temporal does not know it.

        `shared` joins a call that runs already, whose answer may be older by some milliseconds.
        """
        if not shared:
            return await self._summary(workflow_id)
        found: Summary | None = await self._shared("summary", workflow_id, lambda: self._summary(workflow_id))
        return found

    async def ended(self, workflow_id: str) -> Summary | None:
        """Wait until a workflow has ended, with or without success, and return its summary; None if Temporal does not know it.

        It needs no worker if the workflow has completed.
        """
        found: Summary | None = await self._shared("end", workflow_id, lambda: self._ended(workflow_id))
        return found

    async def is_polled(self) -> bool:
        """Whether a worker polls for workflows, as far as the server knows."""
        return bool(await self._shared("polled", "", lambda: is_polled(self.temporal)))

    async def of_event(self, summary: Summary, key: str, *, shared: bool = False) -> OfEvent:
        """What a workflow and, level by level, its open children have of an event."""
        counts = summary.counts.get(key, Counts())
        unsettled = [item for item in summary.unsettled if item.event_key == key]
        failed = [item for item in summary.failed if item.event_key == key]

        async def of_child(workflow_id: str) -> OfEvent:
            child = await self.summary(workflow_id, shared=shared)
            return await self.of_event(child, key, shared=shared) if child else OfEvent(Counts(), [], [])

        for child in await asyncio.gather(*map(of_child, summary.open_children)):
            counts = counts.plus(child.counts)
            unsettled += child.unsettled
            failed += child.failed
        return OfEvent(counts, unsettled, failed)

    async def _summary(self, workflow_id: str) -> Summary | None:
        async with self._slots:
            handle: WorkflowHandle[Any, Summary] = self.temporal.get_workflow_handle(workflow_id, result_type=Summary)
            try:
                with translated(self.temporal):
                    description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
                    if description.status is WorkflowExecutionStatus.COMPLETED:
                        # Its result says the same, and needs no worker.
                        return await handle.result(rpc_timeout=RPC_TIMEOUT)
                if waiting := _not_started(description):
                    return waiting
                query = handle.query("status", result_type=Summary, rpc_timeout=timedelta(seconds=QUERY_TIMEOUT))
                found: Summary = await answered(self.temporal, query, timeout=QUERY_TIMEOUT)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
        if description.status is WorkflowExecutionStatus.CANCELED and not found.events:
            return NotStarted(deliver_at=_deliver_at(description), cancelled=True)
        return found

    async def _ended(self, workflow_id: str) -> Summary | None:
        handle: WorkflowHandle[Any, Summary] = self.temporal.get_workflow_handle(workflow_id, result_type=Summary)
        try:
            with translated(self.temporal):
                while True:
                    try:
                        return await handle.result()
                    except RuntimeError:
                        # A busy server has ended the long poll without an event.
                        await asyncio.sleep(REPEAT_SECONDS)
        except WorkflowFailureError:
            return await self.summary(workflow_id)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _shared(self, kind: str, workflow_id: str, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of one call for all that ask while it runs. It is cancelled once nobody waits for it."""
        key = (kind, workflow_id)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(asyncio.create_task(start()))
        call.callers += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.callers -= 1
            if call.task.done() or not call.callers:
                call.task.cancel()
                if self._calls.get(key) is call:
                    del self._calls[key]


def _deliver_at(description: WorkflowExecutionDescription) -> datetime | None:
    """When a workflow starts that is to start later; None for any other."""
    time = description.execution_time
    return time if time is not None and time > description.start_time else None


def _not_started(description: WorkflowExecutionDescription) -> NotStarted | None:
    """What is known of a workflow whose start is in the future. No worker has seen it, so none could be asked.

    A cancellation makes it start at once, to end as cancelled; until a worker does that, its history has two events more.
    """
    deliver_at = _deliver_at(description)
    if description.status is not WorkflowExecutionStatus.RUNNING or deliver_at is None:
        return None
    if description.history_length == 1:
        return NotStarted(deliver_at=deliver_at, cancelled=False)
    cancelled = description.raw_description.workflow_extended_info.cancel_requested
    return NotStarted(deliver_at=deliver_at, cancelled=True) if cancelled and description.history_length <= 3 else None
