"""Dispatch: delivers one page of a large fan-out, redelivers settled deliveries, or delivers past events."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        DISPATCH,
        DispatchInput,
        OpenPageInput,
        OpenPastInput,
        RedeliverInput,
        Summary,
        open_page,
        open_past,
        redeliver,
    )
    from workflows.policies import REGISTRY_OPTIONS
    from workflows.rounds.run import Rounds


@workflow.defn(name=DISPATCH)
class Dispatch(Rounds):
    """Runs its deliveries, and signals its parent after the first round if any is unsettled, so that the next one starts."""

    @workflow.run
    async def run(self, request: DispatchInput) -> Summary:
        try:
            await self._fill_agenda(request)
            self.is_resolving = False
            if await self.run_until_settled():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(DispatchInput(carried=self.carried_state(), in_order=self.in_order))
        except (asyncio.CancelledError, FailureError):
            if workflow.cancellation_reason() is None:
                raise
        await self.settle_remaining()
        await self.finish()
        return self.summary()

    async def _fill_agenda(self, request: DispatchInput) -> None:
        workflow_id = workflow.info().workflow_id
        self.published_at = request.published_at
        self.first_round_has_calls = workflow.info().parent is not None and not request.page
        if request.carried:
            self.restore(request.carried)
            self.in_order = request.in_order
        if request.page:
            page = OpenPageInput(workflow_id=workflow_id, page=request.page)
            opened = await workflow.execute_local_activity(open_page, page, **REGISTRY_OPTIONS)
            self.add_due(opened.groups, opened.limited_channels)
        if request.past:
            self.in_order = True
            past = OpenPastInput(workflow_id=workflow_id, groups=request.past)
            opened = await workflow.execute_local_activity(open_past, past, **REGISTRY_OPTIONS)
            self.add_due(opened.groups, opened.limited_channels)
        if request.redeliver:
            again = RedeliverInput(
                workflow_id=workflow_id,
                groups=request.redeliver,
                abandoned=request.abandoned,
                unchanged_only=request.unchanged_only,
            )
            opened = await workflow.execute_local_activity(redeliver, again, **REGISTRY_OPTIONS)
            self.add_due(opened.groups, opened.limited_channels)

    async def after_first_round(self) -> None:
        parent = workflow.info().parent
        if parent and self.agenda:
            # Without a run id, so that the signal also reaches a parent that was reset.
            starter = workflow.get_external_workflow_handle(parent.workflow_id)
            try:
                await starter.signal("first_round_done", workflow.info().workflow_id)
            except FailureError:
                # A replay that was terminated; its batches go on.
                if workflow.cancellation_reason() is not None:
                    raise
