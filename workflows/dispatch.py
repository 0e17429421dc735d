"""Dispatch: one page of the deliveries of a large fan-out, or deliveries that are made again."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        DISPATCH,
        DispatchInput,
        PageInput,
        RedeliverInput,
        Summary,
        open_page,
        reopen,
    )
    from workflows.policies import REGISTRY
    from workflows.rounds.run import Rounds


@workflow.defn(name=DISPATCH)
class Dispatch(Rounds):
    """Tells its Notify once if anything is unsettled after the first round, so that the next page can start."""

    @workflow.run
    async def run(self, given: DispatchInput) -> Summary:
        try:
            await self._open(given)
            self.filling = False
            if await self.run_until_settled():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(DispatchInput(carried=self.carried_state()))
        except (asyncio.CancelledError, FailureError):
            if workflow.cancellation_reason() is None:
                raise
        await self.settle_the_rest()
        await self.finish()
        return self.summary()

    async def _open(self, given: DispatchInput) -> None:
        own_id = workflow.info().workflow_id
        if given.carried:
            self.restore(given.carried)
        if given.page:
            request = PageInput(workflow_id=own_id, page=given.page)
            found = await workflow.execute_local_activity(open_page, request, **REGISTRY)
            self.add_due(found.groups, found.limited)
        if given.redeliver:
            again = RedeliverInput(workflow_id=own_id, groups=given.redeliver, abandoned=given.abandoned)
            found = await workflow.execute_local_activity(reopen, again, **REGISTRY)
            self.add_due(found.groups, found.limited)

    async def after_first_round(self) -> None:
        parent = workflow.info().parent
        if parent and self.agenda:
            # Without a run id: the signal also finds a parent that was reset.
            above = workflow.get_external_workflow_handle(parent.workflow_id)
            await above.signal("first_round_done", workflow.info().workflow_id)
