"""Recall: takes messages of one event back over one channel, and asks a provider that is busy again for some minutes."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        RECALL,
        RecallInput,
        RecallOutput,
        RecallResult,
        channel_queue,
        recall_messages,
    )
    from workflows.policies import MAX_RECALL_WAIT, RECALL_DELAYS, RECALL_OPTIONS


@workflow.defn(name=RECALL)
class Recall:
    @workflow.run
    async def run(self, request: RecallInput) -> RecallOutput:
        answered = RecallOutput(deliveries=())
        for delay in (*RECALL_DELAYS, None):
            answer: RecallOutput = await workflow.execute_activity(
                recall_messages,
                request,
                task_queue=channel_queue(request.channel),
                summary=f"{request.channel}: recall",
                **RECALL_OPTIONS,
            )
            busy = [each for each in answer.deliveries if each.result is RecallResult.BUSY]
            done = [each for each in answer.deliveries if each.result is not RecallResult.BUSY]
            if not busy or delay is None:
                return RecallOutput(deliveries=(*answered.deliveries, *answer.deliveries))
            answered = RecallOutput(deliveries=(*answered.deliveries, *done))
            request = request.model_copy(update={"subscription_ids": tuple(each.subscription_id for each in busy)})
            wait = max(delay, *(min(each.wait or 0.0, MAX_RECALL_WAIT) for each in busy))
            await workflow.sleep(timedelta(seconds=wait), summary=f"{request.channel} is busy")
        raise AssertionError("unreachable")
