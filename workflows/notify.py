"""Notify: one workflow per publication. It stores the events, matches subscriptions, and runs or starts the deliveries."""

import asyncio
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import TypedSearchAttributes
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        DISPATCH,
        EVENT_ID,
        EVENT_TYPE,
        MAX_PAGES,
        NOTIFY,
        PAGE_SIZE,
        TENANT,
        DispatchInput,
        EventSummary,
        NotifyInput,
        Page,
        PublishResult,
        ResolveInput,
        Summary,
        child_workflow_id,
        resolve,
    )
    from bellwire.formats.counts import counted
    from workflows.policies import MAX_PAGES_IN_FIRST_ROUND, REGISTRY_OPTIONS
    from workflows.rounds.run import Rounds


#: The patch by which children have ids that no event can have.
OWN_CHILD_IDS = "own-child-ids"


@workflow.defn(name=NOTIFY)
class Notify(Rounds):
    """Runs up to PAGE_SIZE deliveries itself. More are divided into pages, one Dispatch child each.

    After MAX_PAGES children, one more Notify child takes the remaining subscriptions.
    """

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[str, EventSummary] = {}
        #: Workflow ids of the children in their first round.
        self._pages_in_first_round: set[str] = set()
        self._page_count = 0

    @workflow.run
    async def run(self, request: NotifyInput) -> Summary:
        self._events.update(request.resolved_events)
        self.published_at = request.published_at or workflow.info().start_time
        try:
            if request.carried:
                self.restore(request.carried)
            fan_out, rounds = await asyncio.gather(
                self._fan_out(request), self.run_until_settled(), return_exceptions=True
            )
            for result in (fan_out, rounds):
                if isinstance(result, BaseException):
                    raise result
            if rounds:
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(NotifyInput(resolved_events=self._events, carried=self.carried_state()))
        except (asyncio.CancelledError, FailureError):
            if workflow.cancellation_reason() is None:
                raise
        await self.settle_remaining()
        await self.finish()
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        return self.summary()

    def summary(self) -> Summary:
        return super().summary().model_copy(update={"events": dict(self._events)})

    def outcomes(self) -> tuple[str, ...]:
        """Also `conflict` and `duplicate`, for events that another workflow delivers."""
        results = {event.result for event in self._events.values()} - {PublishResult.OWNED}
        return (*super().outcomes(), *sorted(map(str, results)))

    @workflow.signal(
        description="From a page: its first round is done and a delivery is unsettled; start the next page."
    )
    def first_round_done(self, child_id: str) -> None:
        self._pages_in_first_round.discard(child_id)

    async def _fan_out(self, request: NotifyInput) -> None:
        """Match subscriptions until no remainder is left, and start a child for each page found."""
        children: list[asyncio.Task[None]] = []
        events, remainders, max_deliveries = request.events, request.remainders, PAGE_SIZE
        try:
            while (events or remainders) and workflow.cancellation_reason() is None:
                if self._page_count >= MAX_PAGES:
                    beyond = NotifyInput(remainders=remainders, published_at=self.published_at)
                    summary = f"subscriptions beyond {MAX_PAGES:,} pages"
                    children.append(await self._start_child(NOTIFY, beyond, "remaining", summary))
                    break
                resolve_input = ResolveInput(
                    workflow_id=workflow.info().workflow_id,
                    run_id=workflow.info().original_execution_run_id,
                    events=events,
                    remainders=remainders,
                    max_deliveries=max_deliveries,
                )
                result = await workflow.execute_local_activity(
                    resolve, resolve_input, summary="match subscriptions", **REGISTRY_OPTIONS
                )
                self._events.update(result.events)
                self.add_due(result.groups, result.limited_channels)
                max_deliveries -= sum(len(group.subscription_ids) for group in result.groups)
                children += await self._start_pages(result.pages)
                events, remainders = (), result.remainders
        finally:
            self.is_resolving = False
            self.wake_requested = True
        await asyncio.gather(*children)

    async def _start_pages(self, pages: Sequence[Page]) -> list[asyncio.Task[None]]:
        children = []
        for page in pages:
            await workflow.wait_condition(lambda: len(self._pages_in_first_round) < MAX_PAGES_IN_FIRST_ROUND)
            self._page_count += 1
            summary = counted(page.size, "delivery")
            page_input = DispatchInput(page=page, published_at=self.published_at)
            child = await self._start_child(DISPATCH, page_input, f"page-{self._page_count}", summary)
            children.append(child)
        return children

    async def _start_child(
        self, workflow_type: str, request: DispatchInput | NotifyInput, name: str, summary: str
    ) -> asyncio.Task[None]:
        """Start a child workflow with this workflow's search attributes; the task ends when the child does."""
        own = workflow.info().typed_search_attributes
        parent = workflow.info().workflow_id
        # Runs that predate it have ids that events can have too.
        child_id = child_workflow_id(parent, name) if workflow.patched(OWN_CHILD_IDS) else f"{parent}/{name}"
        self._pages_in_first_round.add(child_id)
        child: workflow.ChildWorkflowHandle[Any, Summary] = await workflow.start_child_workflow(
            workflow_type,
            request,
            id=child_id,
            result_type=Summary,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            search_attributes=TypedSearchAttributes(
                [pair for pair in own if pair.key in {TENANT, EVENT_TYPE, EVENT_ID}]
            ),
            static_summary=summary,
        )
        self.children[child_id] = child
        return asyncio.create_task(self._add_counts_of(child_id, child))

    async def _add_counts_of(self, child_id: str, child: workflow.ChildWorkflowHandle[Any, Summary]) -> None:
        """Wait for a child to end, and add its counts to those of this workflow."""
        try:
            summary = await child
        finally:
            self._pages_in_first_round.discard(child_id)
            self.children.pop(child_id, None)
        for event_key, counts in summary.counts.items():
            self.add_counts(event_key, counts)
        self.add_failed(summary.failed)
