"""Trial: sends an event to one subscription now, for whoever wants to see what its receiver answers."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import channel_queue
    from bellwire.contract.test_sends import (
        TRIAL,
        TrialInput,
        TrialResult,
        attempt_trial,
    )
    from workflows.policies import TRYING


@workflow.defn(name=TRIAL)
class Trial:
    @workflow.run
    async def run(self, given: TrialInput) -> TrialResult:
        return await workflow.execute_activity(
            attempt_trial,
            given,
            task_queue=channel_queue(given.channel),
            summary=f"{given.channel}: trial",
            **TRYING,
        )
