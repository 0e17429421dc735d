"""Trial: an event sent to one subscription now, by a worker and as a delivery would be, to see what its receiver answers.

Nothing of it is recorded as a delivery, and it neither counts for the subscription nor against it.
"""

from temporalio import activity

from bellwire.deliveries import OutcomeKind
from bellwire.events import Received
from bellwire.models import Payload
from bellwire.subscriptions import Channel

#: Workflow type.
TEST_SEND = "TestSend"
#: Type and source of the event that is sent if none is given.
SAMPLE_TYPE, SAMPLE_SOURCE = "bellwire.subscription.test", "bellwire"
#: `type` string of an ApplicationError.
SUBSCRIPTION_NOT_FOUND = "SubscriptionNotFound"


class TestSendInput(Payload):
    """This and the result are in the history: no address, nothing that was rendered, and no answer."""

    subscription_id: str
    #: The channel of the subscription, on whose queue the attempt is made.
    channel: Channel
    #: What to send; None: a sample, made by the worker.
    event: Received | None = None


class TestSendResult(Payload):
    kind: OutcomeKind
    #: The outcome's, in one bounded line.
    reason: str
    #: Seconds.
    duration: float


@activity.defn
async def send_test(trial: TestSendInput) -> TestSendResult:
    """Attempt it once, whatever the state of the subscription. Fails with SUBSCRIPTION_NOT_FOUND."""
    raise NotImplementedError("attempt_trial is a stub: workflows call it by name, worker.py registers what runs")
