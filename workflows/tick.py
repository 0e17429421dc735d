"""Tick: started by a Schedule. It publishes the event of its time, and records that it did."""

from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        DIGEST_MEMO,
        NOTIFY,
        SCHEDULED_AT,
        TICK,
        NotifyInput,
        PlanTickInput,
        TickInput,
        TickRecord,
        TickState,
        plan_tick,
        record_tick,
    )
    from bellwire.temporal.publications import Publication
    from workflows.policies import REGISTRY_OPTIONS, TICK_RECORD_OPTIONS


@workflow.defn(name=TICK)
class Tick:
    """The id of its event follows from the schedule and the scheduled time, so that a tick that runs twice publishes once."""

    @workflow.run
    async def run(self, request: TickInput) -> TickRecord:
        info = workflow.info()
        scheduled_at = info.typed_search_attributes.get(SCHEDULED_AT) or info.start_time.replace(microsecond=0)
        event = await workflow.execute_local_activity(
            plan_tick,
            PlanTickInput(tick=request, scheduled_at=scheduled_at),
            summary="event of this time",
            **REGISTRY_OPTIONS,
        )
        publication = Publication(events=(event,))
        state = TickState.PUBLISHED
        try:
            await self._publish(publication)
        except WorkflowAlreadyStartedError:
            state = TickState.DUPLICATE
        record = TickRecord(
            schedule=request.schedule,
            scheduled_at=scheduled_at,
            state=state,
            event_key=event.key,
            workflow_id=publication.workflow_id,
        )
        try:
            await workflow.execute_local_activity(record_tick, record, summary="record", **TICK_RECORD_OPTIONS)
        except FailureError:
            # An open tick would make the next one be skipped. What was published is in the registry once it is back.
            workflow.logger.warning("tick.record_failed")
        return record

    async def _publish(self, publication: Publication) -> None:
        """Start the Notify that a client would start. It goes on when this workflow has ended."""
        options: dict[str, Any] = {
            "id": publication.workflow_id,
            "parent_close_policy": ParentClosePolicy.ABANDON,
            "memo": {DIGEST_MEMO: publication.digest},
            "search_attributes": publication.search_attributes,
            "priority": publication.priority,
            "static_summary": publication.summary,
        }
        await workflow.start_child_workflow(
            NOTIFY,
            NotifyInput(events=publication.events),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            **options,
        )
