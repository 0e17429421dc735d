"""TestSend: sends an event to one subscription now and returns the outcome."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import TEST_SEND, TestSendInput, TestSendResult, channel_queue, send_test
    from workflows.policies import TEST_SEND_OPTIONS


@workflow.defn(name=TEST_SEND)
class TestSend:
    @workflow.run
    async def run(self, request: TestSendInput) -> TestSendResult:
        return await workflow.execute_activity(
            send_test,
            request,
            task_queue=channel_queue(request.channel),
            summary=f"{request.channel}: test send",
            **TEST_SEND_OPTIONS,
        )
