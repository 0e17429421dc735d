"""ScriptedPlatform: every activity under its real name, with a registry in memory and channels that follow a script."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from temporalio import activity
from temporalio.client import Client as Temporal
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from bellwire import contract
from bellwire.client import Client
from bellwire.contract import (
    RECALLED,
    Chunk,
    ChunkResult,
    Deferred,
    Group,
    InlineSend,
    InlineSendResult,
    OpenedRecall,
    RecallChunk,
    RecallChunkResult,
    RecalledDelivery,
    RecallInput,
    RecallResult,
    TestSendInput,
    TestSendResult,
)
from bellwire.deliveries import FAILED, DeliveryState, Failed, OutcomeKind
from bellwire.nexus.following import Follower
from bellwire.targets import SPECS, WORKER_CHANNELS, Channel
from bellwire.temporal.recalling import stop_event
from bellwire.testing.bundled import workflows
from bellwire.testing.handlers import MemoryHandlers
from bellwire.testing.registry import MemoryDelivery, MemoryRegistry
from bellwire.testing.responses import Response, delivered

#: Seconds that a recall waits for attempts in flight at a time.
STOP_SECONDS = 10.0


class StartedAttempt(NamedTuple):
    """An attempt that began."""

    subscription_id: str
    number: int
    #: The time of the server.
    at: datetime


class ScriptedPlatform(MemoryHandlers, MemoryRegistry):
    """A registry in memory, and channels that send nothing. `respond` decides the result of each attempt."""

    def __init__(self, env: WorkflowEnvironment | None = None) -> None:
        super().__init__()
        self._env = env
        #: What the receiver does, by the subscription's id and the number of the attempt.
        self.respond: Callable[[str, int], Response] = lambda *_: delivered()
        #: Channels whose deliveries `send_inline` returns as remaining.
        self.not_inline: set[Channel] = set()
        #: Attempts for these subscriptions do not end before their gate opens.
        self.gates: dict[str, asyncio.Event] = {}
        #: How often a provider is busy that is asked to take messages back.
        self.busy_recalls = 0
        self.attempts: list[StartedAttempt] = []
        self.chunks: list[Chunk] = []

    @property
    def env(self) -> WorkflowEnvironment:
        assert self._env
        return self._env

    def times(self, subscription_id: str) -> list[datetime]:
        """When attempts for a subscription were started."""
        return [at for each, _, at in self.attempts if each == subscription_id]

    async def now(self) -> datetime:
        return await self.env.get_current_time() if self._env else await super().now()

    async def send(self, _channel: Channel, chunk: Chunk) -> ChunkResult:
        """The send activity of a channel."""
        self.chunks.append(chunk)
        now = await self.now()
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

    async def _attempt(
        self, delivery: MemoryDelivery, group: Group, schedule: tuple[float, ...], now: datetime
    ) -> None:
        self.attempts.append(StartedAttempt(delivery.subscription_id, group.attempt, now))
        if gate := self.gates.get(delivery.subscription_id):
            await gate.wait()
        response = self.respond(delivery.subscription_id, group.attempt)
        delivery.attempts, delivery.state, delivery.reason = group.attempt, response.state, response.reason
        subscription = self.stored.get(delivery.subscription_id)
        if subscription:
            schedule = schedule if subscription.retry_schedule is None else subscription.retry_schedule
        outcome = OutcomeKind.DEFERRED if response.state is DeliveryState.WAITING else OutcomeKind(response.state)
        self.capture(delivery, outcome, now)
        if response.state is not DeliveryState.WAITING:
            return
        uncounted = group.extra and group.attempt > delivery.schedule_from + 1
        delivery.schedule_from += uncounted
        step = group.attempt - delivery.schedule_from - 1
        following = response.next_attempt(schedule[step] if step < len(schedule) else None)
        if following is None:
            delivery.state = DeliveryState.EXHAUSTED
        else:
            delivery.delay, delivery.from_retry_after = following

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
    async def send_test(self, _request: TestSendInput) -> TestSendResult:
        return TestSendResult(kind=OutcomeKind.DEFERRED, reason="HTTP 503", duration=0.25)

    @activity.defn
    async def recall_messages(self, chunk: RecallChunk) -> RecallChunkResult:
        self.busy_recalls -= 1
        answered = []
        for name in chunk.subscription_ids:
            delivery, result = self.deliveries[chunk.event_key, name], RecallResult.NOT_DELIVERED
            if delivery.state is DeliveryState.DELIVERED:
                result = RecallResult.TAKEN_BACK if self.busy_recalls < 0 else RecallResult.BUSY
            if result is RecallResult.TAKEN_BACK:
                delivery.reason = RECALLED
            answered.append(RecalledDelivery(subscription_id=name, channel=chunk.channel, result=result))
        return RecallChunkResult(deliveries=tuple(answered))

    @asynccontextmanager
    async def running(self, client: Temporal | None = None, **options: Any) -> AsyncIterator[None]:
        """Run workers for every task queue, with these activities."""
        client = client or self.env.client
        local: list[Callable[..., Any]]
        local = [
            Follower(Client(client)).follow_event,
            self._open_activity(client),
            self.select_recall,
            self.resolve,
            self.open_page,
            self.redeliver,
            self.select_replay,
            self.open_past,
            self.settle,
            self.lookup,
            self.send_inline,
            self.open_calls,
            self.record_calls,
            self.register_handlers,
            self.plan_tick,
            self.record_tick,
        ]
        async with AsyncExitStack() as workers:
            main = Worker(client, task_queue=contract.QUEUE, workflows=workflows(), activities=local, **options)
            if main._workflow_worker:
                # The SDK takes an activation of 2 s for a deadlock; on a busy machine, the sandbox alone may take that.
                main._workflow_worker._deadlock_timeout_seconds = 30
            await workers.enter_async_context(main)
            for channel in WORKER_CHANNELS:
                activities: list[Callable[..., Any]]
                activities = [self._send_activity(channel), self.send_test, self.recall_messages]
                worker = Worker(client, task_queue=contract.channel_queue(channel), activities=activities)
                await workers.enter_async_context(worker)
            yield

    def _open_activity(self, client: Temporal) -> Callable[..., Any]:
        @activity.defn
        async def open_recall(request: RecallInput) -> OpenedRecall:
            channels = {each.channel for each in self.of_event(request)}
            if channels and not any(SPECS[channel].recalls for channel in channels):
                return OpenedRecall(unable=tuple(sorted(channels)))
            return OpenedRecall(is_sending=not await stop_event(client, request, timeout=STOP_SECONDS))

        return open_recall

    def _send_activity(self, channel: Channel) -> Callable[..., Any]:
        @activity.defn(name=SPECS[channel].activity)
        async def send(chunk: Chunk) -> ChunkResult:
            return await self.send(channel, chunk)

        return send


def _failed(delivery: MemoryDelivery) -> Failed:
    return Failed(
        event_key=delivery.event_key,
        subscription_id=delivery.subscription_id,
        channel=delivery.channel,
        state=delivery.state,
        attempts=delivery.attempts,
        reason=delivery.reason,
    )


def _deferred(delivery: MemoryDelivery) -> Deferred:
    return Deferred(
        event_key=delivery.event_key,
        subscription_id=delivery.subscription_id,
        attempts=delivery.attempts,
        delay=delivery.delay,
        from_retry_after=delivery.from_retry_after,
        reason=delivery.reason,
    )
