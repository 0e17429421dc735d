"""Controls: what an operator can tell a running workflow to do with its unsettled deliveries."""

from enum import StrEnum

from bellwire.models import Payload


class Action(StrEnum):
    """What to do with a delivery that is not settled."""

    #: Attempt waiting deliveries now. Paused deliveries stay paused, and attempts that fail do not advance the schedule.
    RETRY_NOW = "retry_now"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class ControlRequest(Payload):
    """An action on the deliveries of one subscription, of one event, or on all deliveries of the workflow."""

    action: Action
    #: None: all subscriptions.
    subscription_id: str | None = None
    #: None: all events.
    event_key: str | None = None
    #: With `retry_now`: also resume paused deliveries. Requests of earlier versions lack it, when `retry_now` always did.
    end_pause: bool = False


class ControlResult(Payload):
    """What a ControlRequest changed."""

    #: Deliveries of this workflow that it changed.
    deliveries: int
    #: Child workflows that it was forwarded to.
    forwarded: int = 0
    #: Deliveries of this workflow that `retry_now` left alone because they are paused. Earlier versions do not count them.
    paused: int = 0
