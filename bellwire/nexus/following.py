"""What the workflow of the operation `wait` runs: an activity that asks for the status of an event for a while."""

from datetime import datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from bellwire.client import Client
from bellwire.errors import BellwireError, TemporalUnavailable, WaitTimeout
from bellwire.models import Payload
from bellwire.nexus.service import WaitInput
from bellwire.receipts import Receipt, Status


class WaitForEventInput(Payload):
    """The event that the workflow waits for."""

    event: WaitInput
    #: When the operation completes at the latest. None: by the timeout of the event, if it has one.
    until: datetime | None = None


class FollowInput(Payload):
    """An event, and how long to wait for it at most."""

    event: WaitInput
    #: Seconds.
    timeout: float


@activity.defn
async def follow_event(request: FollowInput) -> Status:
    """Wait for an event for some seconds, and return its status, settled or not. Fails if it is not known."""
    raise NotImplementedError("follow_event is a stub; worker.py registers the implementation")


class Follower:
    """The activity `follow_event`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    async def follow_event(self, request: FollowInput) -> Status:
        event = request.event
        reference: Receipt | tuple[str, str] = (event.source, event.event_id)
        if event.workflow_id is not None:
            reference = Receipt(source=event.source, event_id=event.event_id, workflow_id=event.workflow_id)
        try:
            try:
                return await self._client.wait(reference, timeout=request.timeout)
            except WaitTimeout:
                return await self._client.status(reference)
        except TemporalUnavailable:
            raise  # a fault of the platform: the activity is retried
        except BellwireError as error:
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from None
