"""A platform of fakes for workflow tests: activities under the real names, with a memory and a script."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.client import Client as Temporal
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from bellwire import contract
from bellwire.contract import (
    Chunk,
    ChunkResult,
    Deferred,
    EventSummary,
    Group,
    InlineSend,
    InlineSendResult,
    LookupInput,
    LookupResult,
    OpenPageInput,
    Page,
    PendingGroups,
    RedeliverInput,
    Remainder,
    ResolveInput,
    ResolveResult,
    SettleInput,
    SettleResult,
    TestSendInput,
    TestSendResult,
)
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.subscriptions import Channel
from workflows import WORKFLOWS

#: What an attempt comes to: a settled state, or (delay in seconds, reason), or (delay, reason, stated).
Answer = DeliveryState | tuple[float, str] | tuple[float, str, bool]
DELIVERED = DeliveryState.DELIVERED


class Platform:
    """Stands in for registry and channels. `answer` decides each attempt; `now` tells the server's time."""

    def __init__(self, env: WorkflowEnvironment) -> None:
        self.env = env
        #: Subscribers of every event, by channel.
        self.subscribers: dict[Channel, list[str]] = {}
        #: Pages are cut at this size if an event has more subscribers than there is room.
        self.page_size = contract.PAGE_SIZE
        self.pages_per_resolve = 200
        #: Channels whose first round no workflow worker can make.
        self.not_at_once: set[Channel] = set()
        self.limited_channels: tuple[Channel, ...] = ()
        self.answer: Callable[[str, int], Answer] = lambda subscription_id, attempt: DELIVERED
        #: Attempts for these subscriptions do not end before their gate opens.
        self.gates: dict[str, asyncio.Event] = {}
        #: (subscription id, attempt, server time) of each attempt begun.
        self.attempts: list[tuple[str, int, datetime]] = []
        self.states: dict[tuple[str, str], DeliveryState] = {}
        self.chunks: list[Chunk] = []
        self.workflow_ids: dict[str, str] = {}
        self.resolved = Counter[str]()

    @property
    def audience(self) -> int:
        """How many subscribe."""
        return sum(map(len, self.subscribers.values()))

    def times(self, subscription_id: str) -> list[datetime]:
        return [at for name, _, at in self.attempts if name == subscription_id]

    def states_of(self, event_key: str) -> Counter[DeliveryState]:
        return Counter(state for (key, _), state in self.states.items() if key == event_key)

    def _groups(self, event_key: str, names: list[str]) -> tuple[Group, ...]:
        for name in names:
            self.states.setdefault((event_key, name), DeliveryState.PENDING)
        by_channel = {
            channel: tuple(name for name in names if name in set(subscribers))
            for channel, subscribers in self.subscribers.items()
        }
        return tuple(
            Group(event_key=event_key, channel=channel, subscription_ids=chosen)
            for channel, chosen in by_channel.items()
            if chosen
        )

    @activity.defn
    async def resolve(self, request: ResolveInput) -> ResolveResult:
        summaries = {}
        remainders = list(request.remainders)
        for event in request.events:
            self.resolved[event.key] += 1
            self.workflow_ids[event.key] = request.workflow_id
            summaries[event.key] = EventSummary(source=event.source, id=event.id, workflow_id=request.workflow_id)
            remainders.append(Remainder(event_key=event.key))
        groups: list[Group] = []
        pages: list[Page] = []
        left: list[Remainder] = []
        room = request.max_deliveries
        for remainder in remainders:
            everyone = sorted(name for names in self.subscribers.values() for name in names)
            names = [name for name in everyone if name > remainder.after]
            if len(names) <= room and not remainder.after:
                groups += self._groups(remainder.event_key, names)
                room -= len(names)
                continue
            starts = range(0, len(names), self.page_size)
            for start in starts[: self.pages_per_resolve]:
                page = names[start : start + self.page_size]
                after = names[start - 1] if start else remainder.after
                pages.append(Page(event_key=remainder.event_key, after=after, until=page[-1], size=len(page)))
            if len(starts) > self.pages_per_resolve:
                left.append(Remainder(event_key=remainder.event_key, after=pages[-1].until))
        return ResolveResult(
            events=summaries,
            groups=tuple(groups),
            pages=tuple(pages),
            remainders=tuple(left),
            limited_channels=self.limited_channels,
        )

    @activity.defn
    async def open_page(self, request: OpenPageInput) -> PendingGroups:
        everyone = sorted(name for names in self.subscribers.values() for name in names)
        names = [name for name in everyone if request.page.after < name <= request.page.until]
        return PendingGroups(groups=self._groups(request.page.event_key, names), limited_channels=self.limited_channels)

    @activity.defn
    async def redeliver(self, request: RedeliverInput) -> PendingGroups:
        for group in request.groups:
            for name in group.subscription_ids:
                self.states[group.event_key, name] = DeliveryState.PENDING
        return PendingGroups(groups=request.groups, limited_channels=self.limited_channels)

    @activity.defn
    async def settle(self, request: SettleInput) -> SettleResult:
        found: dict[str, dict[DeliveryState, int]] = defaultdict(lambda: defaultdict(int))
        for group in request.groups:
            for name in group.subscription_ids:
                if not self.states[group.event_key, name].settled:
                    self.states[group.event_key, name] = DeliveryState.CANCELLED
                found[group.event_key][self.states[group.event_key, name]] += 1
        return SettleResult(settled=found)

    @activity.defn
    async def lookup(self, request: LookupInput) -> LookupResult:
        raise ApplicationError("no such event", type=contract.EVENT_NOT_FOUND, non_retryable=True)

    async def _send(self, chunk: Chunk) -> ChunkResult:
        self.chunks.append(chunk)
        now = await self.env.get_current_time()
        settled: dict[str, dict[DeliveryState, int]] = defaultdict(lambda: defaultdict(int))
        deferred = []
        for group in chunk.groups:
            for name in group.subscription_ids:
                self.attempts.append((name, group.attempt, now))
                if gate := self.gates.get(name):
                    await gate.wait()
                match self.answer(name, group.attempt):
                    case DeliveryState() as state:
                        self.states[group.event_key, name] = state
                        settled[group.event_key][state] += 1
                    case (float() | int() as delay, str(reason), *from_retry_after):
                        if not from_retry_after and delay < 0:  # by the schedule that the chunk brought
                            if group.attempt > len(chunk.schedule):
                                self.states[group.event_key, name] = DeliveryState.EXHAUSTED
                                settled[group.event_key][DeliveryState.EXHAUSTED] += 1
                                continue
                            delay = chunk.schedule[group.attempt - 1]
                        self.states[group.event_key, name] = DeliveryState.WAITING
                        deferred.append(
                            Deferred(
                                event_key=group.event_key,
                                subscription_id=name,
                                attempts=group.attempt,
                                delay=delay,
                                from_retry_after=bool(from_retry_after),
                                reason=reason,
                            )
                        )
        return ChunkResult(settled=settled, deferred=tuple(deferred), limited_channels=self.limited_channels)

    @activity.defn
    async def send_inline(self, inline: InlineSend) -> InlineSendResult:
        settled: dict[str, dict[DeliveryState, int]] = defaultdict(lambda: defaultdict(int))
        deferred: list[Deferred] = []
        remaining = []
        for group in inline.groups:
            if group.channel in self.not_at_once:
                remaining.append(group)
                continue
            result = await self._send(Chunk(groups=(group,), schedule=inline.schedules[group.channel]))
            for key, states in result.settled.items():
                for state, number in states.items():
                    settled[key][state] += number
            deferred += result.deferred
        return InlineSendResult(settled=settled, deferred=tuple(deferred), remaining=tuple(remaining))

    @activity.defn
    async def send_email(self, chunk: Chunk) -> ChunkResult:
        return await self._send(chunk)

    @activity.defn
    async def send_sms(self, chunk: Chunk) -> ChunkResult:
        return await self._send(chunk)

    @activity.defn
    async def send_webhook(self, chunk: Chunk) -> ChunkResult:
        return await self._send(chunk)

    @activity.defn
    async def send_test(self, test_send: TestSendInput) -> TestSendResult:
        return TestSendResult(kind=OutcomeKind.DEFERRED, reason="HTTP 503", duration=0.25)

    @asynccontextmanager
    async def skipping(self) -> AsyncIterator[None]:
        """Let the server's clock jump over waits. The test environment does so by itself only for handles of its own making."""
        service = self.env.client.test_service
        await service.unlock_time_skipping(UnlockTimeSkippingRequest())
        try:
            async with asyncio.timeout(30):
                yield
        finally:
            await service.lock_time_skipping(LockTimeSkippingRequest())

    @asynccontextmanager
    async def working(self, client: Temporal | None = None, **options: Any) -> AsyncIterator[None]:
        """Workers for every queue, with these activities."""
        client = client or self.env.client
        local: list[Callable[..., Any]] = [
            *(self.resolve, self.open_page, self.redeliver, self.settle, self.lookup, self.send_inline),
        ]
        sends = {Channel.EMAIL: self.send_email, Channel.SMS: self.send_sms, Channel.WEBHOOK: self.send_webhook}
        main = Worker(client, task_queue=contract.QUEUE, workflows=WORKFLOWS, activities=local, **options)
        email, sms, webhook = (
            Worker(client, task_queue=contract.channel_queue(channel), activities=[send, self.send_test])
            for channel, send in sends.items()
        )
        async with main, email, sms, webhook:
            yield


#: "As the schedule says", for `Platform.answer`.
def by_schedule(reason: str = "HTTP 503") -> tuple[float, str]:
    return (-1.0, reason)
