"""A fake platform for workflow tests: every activity under its real name, with memory and scripted responses."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.client import Client as Temporal
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from bellwire import contract
from bellwire.contract import (
    Chunk,
    ChunkResult,
    Deferred,
    Group,
    InlineSend,
    InlineSendResult,
    TestSendInput,
    TestSendResult,
)
from bellwire.deliveries import FAILED, DeliveryState, Failed, OutcomeKind
from bellwire.targets import SPECS, Channel
from tests.workflows.fake_registry import FakeDelivery, FakeRegistry
from workflows import WORKFLOWS

DELIVERED, REJECTED = DeliveryState.DELIVERED, DeliveryState.REJECTED


@dataclass(frozen=True)
class Deferral:
    """The receiver refuses an attempt for now."""

    #: Seconds until the next attempt; None: by the schedule of the chunk.
    delay: float | None = None
    reason: str = "HTTP 503"
    #: Whether the receiver asked for the delay, so that it gets no jitter.
    from_retry_after: bool = False


#: What an attempt results in.
Response = DeliveryState | Deferral


def deferred(delay: float | None = None, reason: str = "HTTP 503") -> Deferral:
    return Deferral(delay, reason)


def retry_after(seconds: float, reason: str = "HTTP 503") -> Deferral:
    return Deferral(seconds, reason, from_retry_after=True)


class FakePlatform(FakeRegistry):
    """A fake registry and fake channels. `respond` decides the result of each attempt."""

    def __init__(self, env: WorkflowEnvironment | None = None) -> None:
        super().__init__()
        self._env = env
        self.respond: Callable[[str, int], Response] = lambda subscription_id, attempt: DELIVERED
        #: Channels whose deliveries `send_inline` returns as remaining.
        self.not_inline: set[Channel] = set()
        #: Attempts for these subscriptions do not end before their gate opens.
        self.gates: dict[str, asyncio.Event] = {}
        #: (subscription id, attempt number, server time) of each attempt started.
        self.attempts: list[tuple[str, int, datetime]] = []
        self.chunks: list[Chunk] = []

    @property
    def env(self) -> WorkflowEnvironment:
        assert self._env
        return self._env

    def times(self, subscription_id: str) -> list[datetime]:
        """When attempts for a subscription were started."""
        return [at for each, _, at in self.attempts if each == subscription_id]

    async def send(self, channel: Channel, chunk: Chunk) -> ChunkResult:
        """The send activity of a channel."""
        self.chunks.append(chunk)
        now = await self.env.get_current_time() if self._env else datetime.now(UTC)
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        deferred: list[Deferred] = []
        failed: list[Failed] = []
        for group in chunk.groups:
            for subscription_id in group.subscription_ids:
                delivery = self.deliveries.get((group.event_key, subscription_id))
                if delivery is None:
                    settled[group.event_key][DeliveryState.CANCELLED] += 1
                    continue
                if not delivery.state.settled and delivery.attempts < group.attempt:
                    await self._attempt(delivery, group, chunk.schedule, now)
                if delivery.state.settled:
                    settled[group.event_key][delivery.state] += 1
                    failed += [_failed(delivery)] if delivery.state in FAILED else []
                else:
                    deferred.append(_deferred(delivery))
        return ChunkResult(
            settled={key: dict(states) for key, states in settled.items()},
            deferred=tuple(deferred),
            limited_channels=self.limited_channels,
            failed=tuple(failed[: contract.MAX_FAILED]),
        )

    async def _attempt(self, delivery: FakeDelivery, group: Group, schedule: tuple[float, ...], now: datetime) -> None:
        self.attempts.append((delivery.subscription_id, group.attempt, now))
        if gate := self.gates.get(delivery.subscription_id):
            await gate.wait()
        response = self.respond(delivery.subscription_id, group.attempt)
        delivery.attempts = group.attempt
        if isinstance(response, DeliveryState):
            delivery.state, delivery.reason = response, "HTTP 200"
            return
        delivery.reason = response.reason
        uncounted = group.extra and group.attempt > delivery.schedule_from + 1
        delivery.schedule_from += uncounted
        step = group.attempt - delivery.schedule_from - 1
        if response.delay is None and step >= len(schedule):
            delivery.state = DeliveryState.EXHAUSTED
            return
        delivery.state = DeliveryState.WAITING
        delivery.delay = schedule[step] if response.delay is None else response.delay
        delivery.from_retry_after = response.from_retry_after

    @activity.defn
    async def send_inline(self, inline: InlineSend) -> InlineSendResult:
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        deferred: list[Deferred] = []
        failed: list[Failed] = []
        remaining = []
        for group in inline.groups:
            if group.channel in self.not_inline:
                remaining.append(group)
                continue
            result = await self.send(group.channel, Chunk(groups=(group,), schedule=inline.schedules[group.channel]))
            for key, states in result.settled.items():
                settled[key].update(states)
            deferred += result.deferred
            failed += result.failed
        return InlineSendResult(
            settled={key: dict(states) for key, states in settled.items()},
            deferred=tuple(deferred),
            remaining=tuple(remaining),
            failed=tuple(failed[: contract.MAX_FAILED]),
        )

    @activity.defn
    async def send_test(self, test_send: TestSendInput) -> TestSendResult:
        return TestSendResult(kind=OutcomeKind.DEFERRED, reason="HTTP 503", duration=0.25)

    @asynccontextmanager
    async def skipping(self) -> AsyncIterator[None]:
        """Let the server's clock skip timers. The test environment does so only for handles that it made itself."""
        service = self.env.client.test_service
        await service.unlock_time_skipping(UnlockTimeSkippingRequest())
        try:
            async with asyncio.timeout(60):
                yield
        finally:
            await service.lock_time_skipping(LockTimeSkippingRequest())

    @asynccontextmanager
    async def running(self, client: Temporal | None = None, **options: Any) -> AsyncIterator[None]:
        """Run workers for every task queue, with these activities."""
        client = client or self.env.client
        local: list[Callable[..., Any]]
        local = [self.resolve, self.open_page, self.redeliver, self.settle, self.lookup, self.send_inline]
        local += [self.select_replay, self.open_past]
        async with AsyncExitStack() as workers:
            main = Worker(client, task_queue=contract.QUEUE, workflows=WORKFLOWS, activities=local, **options)
            if main._workflow_worker:
                # The SDK takes an activation of 2 s for a deadlock; on a busy machine, the sandbox alone may take that.
                main._workflow_worker._deadlock_timeout_seconds = 30
            await workers.enter_async_context(main)
            for channel in Channel:
                activities = [self._send_activity(channel), self.send_test]
                worker = Worker(client, task_queue=contract.channel_queue(channel), activities=activities)
                await workers.enter_async_context(worker)
            yield

    def _send_activity(self, channel: Channel) -> Callable[..., Any]:
        @activity.defn(name=SPECS[channel].activity)
        async def send(chunk: Chunk) -> ChunkResult:
            return await self.send(channel, chunk)

        return send


def _failed(delivery: FakeDelivery) -> Failed:
    return Failed(
        event_key=delivery.event_key,
        subscription_id=delivery.subscription_id,
        channel=delivery.channel,
        state=delivery.state,
        attempts=delivery.attempts,
        reason=delivery.reason,
    )


def _deferred(delivery: FakeDelivery) -> Deferred:
    return Deferred(
        event_key=delivery.event_key,
        subscription_id=delivery.subscription_id,
        attempts=delivery.attempts,
        delay=delivery.delay,
        from_retry_after=delivery.from_retry_after,
        reason=delivery.reason,
    )
