"""Recalling: runs the Recall of an event or joins the one that runs, and stops the event for it."""

import asyncio
from collections.abc import Iterable

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from bellwire import contract
from bellwire.contract import Action, ControlRequest, Recalled, RecallInput
from bellwire.errors import DeliveryNotFound, EventNotFound, NotRecallable, TemporalUnavailable, WaitTimeout
from bellwire.events import event_key
from bellwire.formats.durations import format_duration
from bellwire.receipts import Receipt, Status
from bellwire.temporal.connection import translated
from bellwire.temporal.statuses import Statuses
from bellwire.temporal.workers import require_worker


async def recall(temporal: Temporal, status: Status, subscription_id: str | None, *, timeout: float | None) -> Recalled:
    """What became of the messages of the event with this status.

    Raises DeliveryNotFound, NotRecallable, WaitTimeout, TemporalUnavailable, WorkerUnavailable.
    """
    await require_worker(temporal)
    key = event_key(status.source, status.id)
    request = RecallInput(
        source=status.source,
        id=status.id,
        event_key=key,
        workflow_id=status.workflow_id,
        subscription_id=subscription_id,
    )
    with translated(temporal):
        handle: WorkflowHandle[None, Recalled] = await temporal.start_workflow(
            contract.RECALL,
            request,
            id=contract.recall_workflow_id(key, subscription_id),
            task_queue=contract.QUEUE,
            result_type=Recalled,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="recall",
        )
        try:
            async with asyncio.timeout(timeout):
                recalled = await handle.result()
        except TimeoutError:
            waited = format_duration(timeout or 0.0)
            raise WaitTimeout(
                f"the recall has not ended within {waited}; it goes on, and a repeated one joins it"
            ) from None
        except WorkflowFailureError as failure:
            raise TemporalUnavailable(f"the recall did not end: {failure.cause}; recall the event again") from failure
    if recalled.unable:
        raise NotRecallable.of(recalled.unable)
    if subscription_id is not None and not recalled.results:
        raise DeliveryNotFound(
            f"event {status.id} of {status.source} has no delivery for subscription {subscription_id}"
        )
    return recalled


async def stop_event(temporal: Temporal, request: RecallInput, *, timeout: float) -> bool:
    """Stop the workflow that published the event. Returns whether it sends nothing more, after up to `timeout` seconds.

    With a subscription id: whether its deliveries are known, since others may take days.
    """
    await stop_runs(temporal, [request.workflow_id], request)
    event = Receipt(source=request.source, event_id=request.id, workflow_id=request.workflow_id)
    try:
        if request.subscription_id is not None:
            return (await Statuses(temporal).of(event)).resolved
        await Statuses(temporal).settled([event], timeout)
    except EventNotFound:
        return True
    except WaitTimeout:
        return False
    return True


async def stop_runs(temporal: Temporal, workflow_ids: Iterable[str], request: RecallInput) -> None:
    """Have these runs cancel their deliveries of the event, to one subscription or to all. Runs that have ended are left out.

    To cancel the runs themselves would cut off attempts in flight, and nobody would know what these have sent.
    """
    control = ControlRequest(action=Action.CANCEL, event_key=request.event_key, subscription_id=request.subscription_id)
    for workflow_id in workflow_ids:
        try:
            with translated(temporal):
                await temporal.get_workflow_handle(workflow_id).signal("control", control)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
