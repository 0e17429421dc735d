"""Notify: one run per publication. It stores the events, finds who wants them, and delivers or has delivered."""

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
        ResolveInput,
        Summary,
        resolve,
    )
    from workflows.policies import OPEN_PAGES, REGISTRY
    from workflows.rounds import visibility
    from workflows.rounds.run import Rounds


@workflow.defn(name=NOTIFY)
class Notify(Rounds):
    """Deliveries of small publications are its own; each page of a large one is a Dispatch child's; more than MAX_PAGES nest."""

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[str, EventSummary] = {}
        #: Children in their first round.
        self._pages_in_first_round: set[str] = set()
        self._pages = 0

    @workflow.run
    async def run(self, given: NotifyInput) -> Summary:
        self._events.update(given.known)
        try:
            if given.carried:
                self.restore(given.carried)
            outcomes = await asyncio.gather(self._fan_out(given), self.run_until_settled(), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            if outcomes[1]:
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(NotifyInput(known=self._events, carried=self.carried_state()))
        except (asyncio.CancelledError, FailureError):
            if workflow.cancellation_reason() is None:
                raise
        await self.settle_the_rest()
        await self.finish()
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        return self.summary()

    def summary(self) -> Summary:
        return super().summary().model_copy(update={"events": dict(self._events)})

    @workflow.signal(
        description="From a page: its first round is over and something is unsettled, so the next page may start."
    )
    def first_round_done(self, child: str) -> None:
        self._pages_in_first_round.discard(child)

    async def _fan_out(self, given: NotifyInput) -> None:
        """Resolve until nothing remains, starting a child per page as pages come."""
        following: list[asyncio.Task[None]] = []
        events, remainders, room = given.events, given.remainders, PAGE_SIZE
        try:
            while (events or remainders) and workflow.cancellation_reason() is None:
                if self._pages >= MAX_PAGES:
                    rest = NotifyInput(remainders=remainders)
                    following.append(await self._start(NOTIFY, rest, "rest", f"events beyond {MAX_PAGES:,} pages"))
                    break
                request = ResolveInput(
                    workflow_id=workflow.info().workflow_id,
                    run_id=workflow.info().original_execution_run_id,
                    events=events,
                    remainders=remainders,
                    room=room,
                )
                found = await workflow.execute_local_activity(
                    resolve, request, summary="match subscriptions", **REGISTRY
                )
                self._events.update(found.events)
                self.add_due(found.groups, found.limited)
                room -= sum(len(group.subscription_ids) for group in found.groups)
                following += await self._start_pages(found.pages)
                events, remainders = (), found.remainders
        finally:
            self.filling = False
            self._wake_requested = True
        await asyncio.gather(*following)

    async def _start_pages(self, pages: Sequence[Page]) -> list[asyncio.Task[None]]:
        following = []
        for page in pages:
            await workflow.wait_condition(lambda: len(self._pages_in_first_round) < OPEN_PAGES)
            self._pages += 1
            name = f"page-{self._pages}"
            following.append(
                await self._start(DISPATCH, DispatchInput(page=page), name, visibility.count(page.size, "delivery"))
            )
        return following

    async def _start(
        self, kind: str, given: DispatchInput | NotifyInput, name: str, summary: str
    ) -> asyncio.Task[None]:
        own = workflow.info().typed_search_attributes
        child_id = f"{workflow.info().workflow_id}/{name}"
        self._pages_in_first_round.add(child_id)
        child: workflow.ChildWorkflowHandle[Any, Summary] = await workflow.start_child_workflow(
            kind,
            given,
            id=child_id,
            result_type=Summary,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            search_attributes=TypedSearchAttributes(
                [pair for pair in own if pair.key in {TENANT, EVENT_TYPE, EVENT_ID}]
            ),
            static_summary=summary,
        )
        self.children[child_id] = child
        return asyncio.create_task(self._follow(child_id, child))

    async def _follow(self, child_id: str, child: workflow.ChildWorkflowHandle[Any, Summary]) -> None:
        try:
            below = await child
        finally:
            self._pages_in_first_round.discard(child_id)
            self.children.pop(child_id, None)
        for event_key, counts in below.counts.items():
            self._count(event_key, counts.model_dump())
