"""The handler of the Nexus service `bellwire`, which runs in the worker."""

from typing import Any

import nexusrpc
from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from temporalio import nexus
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client as Temporal
from temporalio.exceptions import ApplicationError

from bellwire.client import Client
from bellwire.contract import WAIT_FOR_EVENT, wait_workflow_id
from bellwire.errors import BellwireError, TemporalUnavailable
from bellwire.events import event_key
from bellwire.nexus.following import WaitForEventInput
from bellwire.nexus.service import BellwireService, EventInput, WaitInput
from bellwire.receipts import Receipt, Status


@service_handler(service=BellwireService)
class BellwireServiceHandler:
    """Publishes by a Client. `wait` is backed by a workflow, so that it may take days."""

    def __init__(self, client: Client) -> None:
        """The client must not batch: whether an event is a conflict must be known at once."""
        self._client = client

    @sync_operation
    async def publish(self, context: StartOperationContext, event: EventInput) -> Receipt:
        try:
            return await self._client.publish(event.to_event(f"nexus-{context.request_id}"))
        except TemporalUnavailable as error:
            raise nexusrpc.HandlerError(str(error), type=nexusrpc.HandlerErrorType.UNAVAILABLE) from error
        except BellwireError as error:
            reason = ApplicationError(str(error), type=type(error).__name__, non_retryable=True)
            raise nexusrpc.OperationError(str(error), state=nexusrpc.OperationErrorState.FAILED) from reason

    @nexus.workflow_run_operation
    async def wait(self, context: nexus.WorkflowRunOperationContext, event: WaitInput) -> nexus.WorkflowHandle[Status]:
        return await context.start_workflow(
            WAIT_FOR_EVENT,
            WaitForEventInput(event=event),
            id=wait_workflow_id(event_key(event.source, event.event_id), context.request_id),
            result_type=Status,
            static_summary=f"wait for an event of {event.source}"[:200],
        )


async def nexus_handlers(temporal: Temporal) -> list[Any]:
    """The service handlers for a worker; none if the server has no Nexus, where polling for it would fail."""
    system = await temporal.workflow_service.get_system_info(GetSystemInfoRequest())
    return [BellwireServiceHandler(Client(temporal, batching=False))] if system.capabilities.nexus else []
