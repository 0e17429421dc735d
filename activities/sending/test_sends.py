"""Test sends: one attempt through the same channel and the same checks as a delivery, and not recorded.

What it sent and received is kept in the registry until the command that started it takes it.
"""

import time
from collections.abc import Mapping

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.sending.attempt import ChannelAttempt
from activities.sending.throttling import Throttled
from bellwire.contract import (
    SAMPLE_SOURCE,
    SAMPLE_TYPE,
    SUBSCRIPTION_NOT_FOUND,
    HoldReason,
    TestSendInput,
    TestSendResult,
)
from bellwire.deliveries import MAX_REASON, Outcome, OutcomeKind
from bellwire.errors import SubscriptionNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel

log = structlog.get_logger("bellwire")


class TestSends:
    """The activity `send_test`, over the channels of this process."""

    def __init__(self, registry: Registry, attempts: Mapping[Channel, ChannelAttempt]) -> None:
        self._registry, self._attempts = registry, attempts

    @activity.defn
    async def send_test(self, test_send: TestSendInput) -> TestSendResult:
        """Attempt one delivery, whatever the state of the subscription. Fails with SUBSCRIPTION_NOT_FOUND."""
        request = await self._load(test_send)
        subscription, start = request.subscription, time.perf_counter()
        try:
            outcome = await self._attempts[subscription.channel](request)
        except Throttled:
            outcome = Outcome(kind=OutcomeKind.DEFERRED, reason=HoldReason.RATE_LIMIT)
        await self._registry.test_sends.keep(subscription.id, request.delivery.workflow_id, outcome.exchanges)
        duration, reason = time.perf_counter() - start, outcome.reason[:MAX_REASON]
        log.info(
            "subscription.test_sent",
            subscription=subscription.id,
            tenant=subscription.tenant,
            channel=str(subscription.channel),
            outcome=str(outcome.kind),
            reason=reason,
            duration_ms=round(duration * 1000),
        )
        return TestSendResult(kind=outcome.kind, reason=reason, duration=duration, cause=outcome.cause)

    async def _load(self, test_send: TestSendInput) -> SendRequest:
        try:
            subscription, secrets, health = await self._registry.subscriptions.context(test_send.subscription_id)
        except SubscriptionNotFound as error:
            raise ApplicationError(str(error), type=SUBSCRIPTION_NOT_FOUND, non_retryable=True) from error
        suppressed = await self._registry.suppressions.among(
            subscription.channel, subscription.target.recipients, subscription_id=subscription.id
        )
        return SendRequest.unrecorded(
            subscription,
            test_send.event or sample_event(subscription),
            workflow_id=activity.info().workflow_id or "",
            secrets=secrets,
            suppressed=suppressed,
            health=health,
        )


def sample_event(subscription: Subscription) -> Event:
    """An event that says that it is a test."""
    return Event(
        source=SAMPLE_SOURCE,
        type=SAMPLE_TYPE,
        subject=subscription.id,
        tenant=subscription.tenant,
        data={
            "subscription": subscription.id,
            "channel": str(subscription.channel),
            "text": "This is a test of your subscription.",
        },
    )
