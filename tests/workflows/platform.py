"""The shipped `ScriptedPlatform`, with subscriptions that are only ids, and responses that state their delay exactly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.testing import WorkflowEnvironment

from bellwire.deliveries import DeliveryState
from bellwire.events import Event
from bellwire.targets import Channel
from bellwire.testing import responses
from bellwire.testing.platform import ScriptedPlatform
from bellwire.testing.responses import NextAttempt
from bellwire.testing.responses import Response as Response  # tests name it by this module
from bellwire.testing.server import Clock

DELIVERED, REJECTED = responses.delivered(), responses.rejected("HTTP 200")


@dataclass(frozen=True)
class Exact(Response):
    """A deferral that states its delay, instead of the schedule."""

    delay: float = 0.0
    from_retry_after: bool = False

    def next_attempt(self, scheduled: float | None) -> NextAttempt:
        return NextAttempt(self.delay, self.from_retry_after)


def deferred(delay: float | None = None, reason: str = "HTTP 503") -> Response:
    return responses.deferred(reason) if delay is None else Exact(DeliveryState.WAITING, reason, delay=delay)


def retry_after(seconds: float, reason: str = "HTTP 503") -> Response:
    return Exact(DeliveryState.WAITING, reason, seconds, delay=seconds, from_retry_after=True)


class FakePlatform(ScriptedPlatform):
    """Every event matches all subscriptions."""

    def __init__(self, env: WorkflowEnvironment | None = None) -> None:
        super().__init__(env)
        #: Subscription ids by channel.
        self.subscriptions: dict[Channel, list[str]] = {}
        #: Tenants without any subscription.
        self.unknown_tenants: set[str] = set()

    @property
    def subscription_count(self) -> int:
        return sum(map(len, self.subscriptions.values()))

    def matching(self, event: Event) -> dict[str, Channel]:
        return {each: channel for channel, of_channel in self.subscriptions.items() for each in of_channel}

    def is_unknown(self, tenant: str) -> bool:
        return tenant in self.unknown_tenants

    @asynccontextmanager
    async def skipping(self) -> AsyncIterator[None]:
        """Let the server's clock skip timers. The test environment does so only for handles that it made itself."""
        async with Clock(self.env).skipping(), asyncio.timeout(60):
            yield
