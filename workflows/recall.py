"""Recall: cancels what is not sent of one event, and takes back what was delivered, page by page."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        RECALL,
        OpenedRecall,
        RecallChunk,
        RecallChunkResult,
        Recalled,
        RecalledDelivery,
        RecallInput,
        RecallPage,
        RecallResult,
        channel_queue,
        open_recall,
        recall_messages,
        select_recall,
    )
    from workflows.policies import (
        MAX_CONCURRENT_RECALLS,
        MAX_RECALL_WAIT,
        RECALL_DELAYS,
        RECALL_OPTIONS,
        RECALL_REGISTRY_OPTIONS,
    )


@workflow.defn(name=RECALL)
class Recall:
    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_RECALLS)

    @workflow.run
    async def run(self, request: RecallInput) -> Recalled:
        if not request.after:
            opened = await self._open(request)
            if opened.unable:
                return Recalled(unable=opened.unable)
        while True:
            page: RecallPage = await workflow.execute_activity(select_recall, request, **RECALL_REGISTRY_OPTIONS)
            found = await asyncio.gather(*(self._take_back(chunk) for chunk in page.chunks))
            done = request.done.plus((*page.others, *(each for some in found for each in some)))
            if page.after is None:
                return done
            request = request.model_copy(update={"after": page.after, "done": done})
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(request)

    async def _open(self, request: RecallInput) -> OpenedRecall:
        """Have what is not sent cancelled, until all is settled, for as long as a provider would be asked."""
        for delay in (*RECALL_DELAYS, None):
            opened: OpenedRecall = await workflow.execute_activity(open_recall, request, **RECALL_REGISTRY_OPTIONS)
            if not opened.is_sending or delay is None:
                return opened
            await workflow.sleep(timedelta(seconds=delay), summary="a delivery is being attempted")
        raise AssertionError("unreachable")

    async def _take_back(self, chunk: RecallChunk) -> tuple[RecalledDelivery, ...]:
        """Take messages back, and ask a provider that is busy again for some minutes."""
        answered: tuple[RecalledDelivery, ...] = ()
        for delay in (*RECALL_DELAYS, None):
            async with self._slots:
                answer = await self._ask(chunk)
            busy = [each for each in answer if each.result is RecallResult.BUSY]
            if not busy or delay is None:
                return (*answered, *answer)
            answered = (*answered, *(each for each in answer if each.result is not RecallResult.BUSY))
            chunk = chunk.model_copy(update={"subscription_ids": tuple(each.subscription_id for each in busy)})
            wait = max(delay, *(min(each.wait or 0.0, MAX_RECALL_WAIT) for each in busy))
            await workflow.sleep(timedelta(seconds=wait), summary=f"{chunk.channel} is busy")
        raise AssertionError("unreachable")

    async def _ask(self, chunk: RecallChunk) -> tuple[RecalledDelivery, ...]:
        try:
            result: RecallChunkResult = await workflow.execute_activity(
                recall_messages,
                chunk,
                task_queue=channel_queue(chunk.channel),
                summary=f"{chunk.channel}: recall",
                **RECALL_OPTIONS,
            )
        except ActivityError:
            if workflow.cancellation_reason() is not None:
                raise
            detail = f"no worker of {chunk.channel} has answered"
            return tuple(
                RecalledDelivery(subscription_id=name, channel=chunk.channel, result=RecallResult.BUSY, detail=detail)
                for name in chunk.subscription_ids
            )
        return result.deliveries
