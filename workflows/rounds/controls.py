"""Handlers that every workflow with deliveries has: a query for its status, and updates and a signal to control it."""

from collections import defaultdict
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import NOT_UNSETTLED, Action, ControlRequest, ControlResult, Summary
    from bellwire.deliveries import Counts, DeliveryState, Failed
    from workflows.agenda import Agenda

#: Maximum unsettled deliveries in the result of the query.
MAX_SHOWN = 100


def _request(action: Action, subscription_id: str | None, event_key: str | None) -> ControlRequest:
    return ControlRequest(action=action, subscription_id=subscription_id, event_key=event_key)


class Controls:
    """The deliveries of a workflow and its children, and the handlers on them. Rounds runs the deliveries."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        #: Counts by event key.
        self.counts: dict[str, Counts] = defaultdict(Counts)
        #: The first MAX_FAILED deliveries that were rejected or exhausted, in the order in which they settled.
        self.failed: list[Failed] = []
        #: Whether deliveries may still be added, so that an empty agenda does not end the workflow.
        self.is_resolving = True
        #: Open children by workflow id. A workflow with open children never continues as new.
        self.children: dict[str, workflow.ChildWorkflowHandle[Any, Summary]] = {}
        #: Keys of events that were cancelled before all their deliveries were added.
        self.cancelled_events: set[str] = set()
        #: Whether the loop must look at the agenda before its timer fires.
        self.wake_requested = False

    def summary(self) -> Summary:
        """The result of the workflow, and of its query `status`."""
        return Summary(
            counts=dict(self.counts),
            unsettled=self.agenda.unsettled(MAX_SHOWN),
            open_children=tuple(self.children),
            resolved=not self.is_resolving,
            failed=tuple(self.failed),
            outcomes=self.outcomes(),
        )

    def outcomes(self) -> tuple[str, ...]:
        """What the deliveries have come to so far: settled states, in the order of their enumeration."""
        return tuple(
            str(state)
            for state in DeliveryState
            if state.settled and any(getattr(counts, str(state)) for counts in self.counts.values())
        )

    @workflow.query(description="Counts by event, the first unsettled deliveries, and the open child workflows.")
    def status(self) -> Summary:
        return self.summary()

    @workflow.update(
        description="Attempt waiting deliveries now: those of one subscription, or all. The schedule does not advance; paused "
        "deliveries stay paused unless `end_pause` is true."
    )
    async def retry_now(self, subscription_id: str | None = None, end_pause: bool = False) -> ControlResult:
        request = ControlRequest(action=Action.RETRY_NOW, subscription_id=subscription_id, end_pause=end_pause)
        return await self._apply(request)

    @workflow.update(
        description="Make no more attempts until `resume`: for one subscription and one event, or for all."
    )
    async def pause(self, subscription_id: str | None = None, event_key: str | None = None) -> ControlResult:
        return await self._apply(_request(Action.PAUSE, subscription_id, event_key))

    @workflow.update(description="Continue paused deliveries: those of one subscription and one event, or all.")
    async def resume(self, subscription_id: str | None = None, event_key: str | None = None) -> ControlResult:
        return await self._apply(_request(Action.RESUME, subscription_id, event_key))

    @workflow.update(
        description="Settle unsettled deliveries as cancelled: those of one subscription and one event, or all."
    )
    async def cancel(self, subscription_id: str | None = None, event_key: str | None = None) -> ControlResult:
        return await self._apply(_request(Action.CANCEL, subscription_id, event_key))

    @workflow.signal(
        description="The same actions, forwarded by the parent workflow or sent by a client for one event."
    )
    async def control(self, request: ControlRequest) -> None:
        await self._apply(request)

    @retry_now.validator
    def _can_retry(self, subscription_id: str | None = None, end_pause: bool = False) -> None:  # noqa: ARG002
        """The SDK wants the parameters of the update."""
        self._has_delivery(subscription_id)

    @pause.validator
    @resume.validator
    @cancel.validator
    def _has_delivery(self, subscription_id: str | None = None, event_key: str | None = None) -> None:  # noqa: ARG002
        """Reject an update for a subscription that has no unsettled delivery. With children it is accepted: they may have one."""
        if subscription_id is not None and not self.children and not self.agenda.has_delivery_to(subscription_id):
            raise ApplicationError(f"no unsettled delivery for subscription {subscription_id}", type=NOT_UNSETTLED)

    async def _apply(self, request: ControlRequest) -> ControlResult:
        if request.action is Action.CANCEL and request.event_key and request.subscription_id is None:
            self.cancelled_events.add(request.event_key)
        result = self.agenda.apply(request, now=workflow.time())
        self.wake_requested = True
        forwarded = 0
        for child in list(self.children.values()):
            try:
                await child.signal("control", request)
                forwarded += 1
            except FailureError:
                continue  # the child has closed, so it has no unsettled deliveries
        return result.model_copy(update={"forwarded": forwarded})
