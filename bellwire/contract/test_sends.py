"""TestSend: an event sent to one subscription now, as a delivery would be, to see how its receiver responds.

It is not recorded as a delivery and does not change the health of the endpoint.
"""

from bellwire.deliveries import OutcomeKind
from bellwire.events import Received
from bellwire.models import Payload
from bellwire.targets import Channel

#: Type and source of the sample event that is sent if none is given.
SAMPLE_TYPE, SAMPLE_SOURCE = "bellwire.subscription.test", "bellwire"


class TestSendInput(Payload):
    """The subscription to send to. Input and result are in the history: no address, no rendered text, no response body."""

    subscription_id: str
    #: The channel of the subscription, on whose task queue the activity runs.
    channel: Channel
    #: None: a sample event, made by the worker.
    event: Received | None = None


class TestSendResult(Payload):
    kind: OutcomeKind
    #: The reason of the outcome, in one bounded line.
    reason: str
    #: Seconds.
    duration: float
    #: What failed, for the operator, where the reason does not say it. Payloads of earlier versions lack it.
    cause: str | None = None
