"""Trials: one attempt as a delivery would make it, by the same channel and through the same guards, and put on no record."""

import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.sending.throttling import Throttled
from bellwire.contract import (
    RATE_LIMIT,
    SAMPLE_SOURCE,
    SAMPLE_TYPE,
    SUBSCRIPTION_NOT_FOUND,
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
    """The activity, over the attempts of the channels that this process sends by."""

    def __init__(
        self, registry: Registry, attempts: Mapping[Channel, Callable[[SendRequest], Awaitable[Outcome]]]
    ) -> None:
        self._registry, self._attempts = registry, attempts

    @activity.defn
    async def send_test(self, test_send: TestSendInput) -> TestSendResult:
        """Attempt it once, whatever the state of the subscription. Fails with SUBSCRIPTION_NOT_FOUND."""
        try:
            wish, secrets, health = await self._registry.subscriptions.context(test_send.subscription_id)
        except SubscriptionNotFound as error:
            raise ApplicationError(str(error), type=SUBSCRIPTION_NOT_FOUND, non_retryable=True) from error
        unwanted = await self._registry.suppressions.among(
            wish.channel, wish.target.recipients, subscription_id=wish.id
        )
        event = test_send.event or sample(wish)
        request = SendRequest.unrecorded(
            wish,
            event,
            workflow_id=activity.info().workflow_id or "",
            secrets=secrets,
            suppressed=unwanted,
            health=health,
        )
        begun = time.perf_counter()
        try:
            outcome = await self._attempts[wish.channel](request)
        except Throttled:
            outcome = Outcome(kind=OutcomeKind.DEFERRED, reason=RATE_LIMIT)
        duration, reason = time.perf_counter() - begun, outcome.reason[:MAX_REASON]
        log.info(
            "subscription.tried",
            subscription=wish.id,
            tenant=wish.tenant,
            channel=str(wish.channel),
            outcome=str(outcome.kind),
            reason=reason,
            duration_ms=round(duration * 1000),
        )
        return TestSendResult(kind=outcome.kind, reason=reason, duration=duration)


def sample(wish: Subscription) -> Event:
    """An event that says that it is a test."""
    return Event(
        source=SAMPLE_SOURCE,
        type=SAMPLE_TYPE,
        subject=wish.id,
        tenant=wish.tenant,
        data={"subscription": wish.id, "channel": str(wish.channel), "text": "This is a test of your subscription."},
    )
