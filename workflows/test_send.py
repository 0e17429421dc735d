"""Trial: sends an event to one subscription now, for whoever wants to see what its receiver answers."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import channel_queue
    from bellwire.contract.test_sends import (
        TEST_SEND,
        TestSendInput,
        TestSendResult,
        send_test,
    )
    from workflows.policies import TEST_SENDING


@workflow.defn(name=TEST_SEND)
class TestSend:
    @workflow.run
    async def run(self, given: TestSendInput) -> TestSendResult:
        return await workflow.execute_activity(
            send_test,
            given,
            task_queue=channel_queue(given.channel),
            summary=f"{given.channel}: trial",
            **TEST_SENDING,
        )
