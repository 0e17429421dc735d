"""Replay: sends past deliveries again, or past events for the first time, in small batches and no faster than a rate."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        DISPATCH,
        REPLAY,
        TENANT,
        DispatchInput,
        ReplayBatch,
        ReplayInput,
        ReplayResult,
        SelectReplayInput,
        Summary,
        replay_batch_workflow_id,
        select_replay,
    )
    from bellwire.formats.counts import counted
    from bellwire.replays import ReplayState
    from workflows.policies import PAUSED_REPLAY_POLL, REGISTRY_OPTIONS, REPLAY_PRIORITY


@workflow.defn(name=REPLAY)
class Replay:
    """Starts a Dispatch for each batch, waits for its first round, and selects the next batch.

    The registry has the state of the replay, which operators change; the signal `changed` only wakes this workflow. It completes
    when everything was attempted once. What was deferred goes on in its Dispatch, which no end of this workflow affects.
    """

    def __init__(self) -> None:
        self._changed = False
        self._done = 0
        #: Workflow ids of the batches in their first round.
        self._in_first_round: set[str] = set()
        #: Tasks that wait for batches to end. They end with this workflow.
        self._ending: set[asyncio.Task[None]] = set()

    @workflow.run
    async def run(self, request: ReplayInput) -> ReplayResult:
        self._done, batches, cursor = request.done, request.batches, request.cursor
        try:
            while True:
                self._changed = False
                batch = await self._select(
                    SelectReplayInput(replay_id=request.replay_id, cursor=cursor, done=self._done)
                )
                self._show(batch)
                if batch.state.ended:
                    return ReplayResult(state=batch.state, done=self._done)
                if batch.state is ReplayState.PAUSED:
                    poll = timedelta(seconds=batch.wait) if batch.wait else PAUSED_REPLAY_POLL
                    await self._wait_for_change(poll, "paused")
                else:
                    began = workflow.time()
                    cursor = batch.cursor
                    if batch.groups:
                        batches += 1
                        await self._send(replay_batch_workflow_id(request.replay_id, batches), batch)
                    await self._keep_rate(batch, began)
                if workflow.info().is_continue_as_new_suggested():
                    workflow.continue_as_new(
                        ReplayInput(replay_id=request.replay_id, cursor=cursor, done=self._done, batches=batches)
                    )
        except (asyncio.CancelledError, FailureError):
            if workflow.cancellation_reason() is None:
                raise
        await self._select(SelectReplayInput(replay_id=request.replay_id, done=self._done, cancelled=True))
        raise asyncio.CancelledError

    @workflow.signal(description="The replay was paused, resumed or cancelled: look at the registry now.")
    def changed(self) -> None:
        self._changed = True

    @workflow.signal(description="From a batch: its first round is done and a delivery is unsettled.")
    def first_round_done(self, batch_id: str) -> None:
        self._in_first_round.discard(batch_id)

    @workflow.query(description="How many deliveries were attempted at least once.")
    def done(self) -> int:
        return self._done

    async def _select(self, request: SelectReplayInput) -> ReplayBatch:
        return await workflow.execute_local_activity(select_replay, request, **REGISTRY_OPTIONS)

    async def _send(self, batch_id: str, batch: ReplayBatch) -> None:
        """Start the Dispatch of a batch, and wait until every delivery of it was attempted once."""
        size = len(batch.groups)
        self._in_first_round.add(batch_id)
        if batch.missing:
            request = DispatchInput(past=batch.groups)
        else:
            request = DispatchInput(redeliver=batch.groups, unchanged_only=True)
        try:
            child: workflow.ChildWorkflowHandle[Any, Summary] = await workflow.start_child_workflow(
                DISPATCH,
                request,
                id=batch_id,
                result_type=Summary,
                parent_close_policy=ParentClosePolicy.ABANDON,
                priority=Priority(priority_key=REPLAY_PRIORITY, fairness_key=batch.tenant),
                search_attributes=TypedSearchAttributes([SearchAttributePair(TENANT, batch.tenant)]),
                static_summary=f"replay of {counted(size, 'delivery')}",
            )
        except WorkflowAlreadyStartedError:
            self._in_first_round.discard(batch_id)  # by this workflow, before an operator reset it
        else:
            ending = asyncio.create_task(self._end_first_round(batch_id, child))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await workflow.wait_condition(lambda: batch_id not in self._in_first_round)
        self._done += size

    async def _end_first_round(self, batch_id: str, child: workflow.ChildWorkflowHandle[Any, Summary]) -> None:
        """Wait for the end of a batch."""
        try:
            await child
        except FailureError:
            # An operator terminated it; its deliveries can be retried.
            workflow.logger.warning("batch %s of the replay did not complete", batch_id)
        finally:
            self._in_first_round.discard(batch_id)

    async def _keep_rate(self, batch: ReplayBatch, began: float) -> None:
        """Wait until the next batch may start."""
        seconds = began + max(len(batch.groups) / batch.rate, batch.wait) - workflow.time()
        if seconds <= 0:
            return
        summary = "the endpoint is throttled" if batch.wait else f"at most {batch.rate:g} deliveries per second"
        await self._wait_for_change(timedelta(seconds=seconds), summary)

    async def _wait_for_change(self, timeout: timedelta, summary: str) -> None:
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._changed, timeout=timeout, timeout_summary=summary)

    def _show(self, batch: ReplayBatch) -> None:
        """Update Current Details."""
        of = "" if batch.total is None else f" of {batch.total:,}"
        workflow.set_current_details(f"{batch.state}: {self._done:,}{of} attempted")
