"""WaitForEvent: backs the Nexus operation `wait`. It completes once every delivery of an event is settled."""

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import WAIT_FOR_EVENT
    from bellwire.nexus.following import FollowInput, WaitForEventInput, follow_event
    from bellwire.nexus.service import MAX_WAIT
    from bellwire.receipts import Status
    from workflows.policies import FOLLOW_OPTIONS, FOLLOW_PAUSES, FOLLOW_SECONDS


@workflow.defn(name=WAIT_FOR_EVENT)
class WaitForEvent:
    """Asks for the status when the next attempt is due, not all the time: an event may be unsettled for days."""

    @workflow.run
    async def run(self, request: WaitForEventInput) -> Status:
        until = request.until
        if until is None and request.event.timeout is not None:
            until = workflow.now() + timedelta(seconds=min(MAX_WAIT, max(0.0, request.event.timeout)))
        pause = FOLLOW_PAUSES[0]
        while True:
            left = FOLLOW_SECONDS if until is None else (until - workflow.now()).total_seconds()
            follow = FollowInput(event=request.event, timeout=min(max(left, 0.0), FOLLOW_SECONDS))
            status: Status = await workflow.execute_activity(follow_event, follow, **FOLLOW_OPTIONS)
            if status.settled or (until is not None and workflow.now() >= until):
                return status
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(WaitForEventInput(event=request.event, until=until))
            await workflow.sleep(_pause(status, pause, until), summary="until the next attempt")
            pause = min(pause * 2, FOLLOW_PAUSES[1])


def _pause(status: Status, pause: float, until: datetime | None) -> float:
    """Seconds until it is worth asking again: the next attempt is due, or, where none is known, `pause` has passed."""
    due = [item.due for item in status.unsettled if item.due is not None]
    now = workflow.now()
    seconds = (min(due) - now).total_seconds() if due else pause
    if until is not None:
        seconds = min(seconds, (until - now).total_seconds())
    return min(max(seconds, 0.1), FOLLOW_PAUSES[1])
