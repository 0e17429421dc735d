"""A registry in memory and scripted receivers, for tests of what attempts deliveries and records the outcomes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from temporalio.testing import ActivityEnvironment

from activities.sending.in_flight import InFlightAttempts
from activities.sending.loop import ChunkRun
from bellwire.contract import Chunk, ChunkResult, Group
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import event, send_request, subscription

OK = Outcome(kind=OutcomeKind.DELIVERED, reason="HTTP 204")
BUSY = Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 503")
SCHEDULE = (5.0, 300.0)
EVENT = event(id="42")

Attempting = Callable[[SendRequest], Awaitable[Outcome]]


def of(name: str, *, number: int = 1, subscribed: dict[str, Any] | None = None, **fields: Any) -> SendRequest:
    return send_request(subscription(id=name, **(subscribed or {})), EVENT, number=number, **fields)


def groups_of(*requests: SendRequest) -> tuple[Group, ...]:
    return tuple(one.group for one in requests)


class Ledger:
    """A registry in memory. The next calls of `record` and `lease` raise `failures`; gates hold `load` and `record`.

    `test_ledger_conformance.py` runs the same tests on it and on the real registry.
    """

    def __init__(self, *requests: SendRequest) -> None:
        self.attempts = self.limits = self
        self.requests = requests
        self.calls: list[str] = []
        self.announced: list[str] = []
        self.leased: list[str] = []
        self.recorded: list[Attempt] = []
        self.failures: list[Exception] = []
        self.lease_failures: list[Exception] = []
        self.load_gate, self.record_gate = asyncio.Event(), asyncio.Event()
        self.load_gate.set()
        self.record_gate.set()
        self.recording, self.written = asyncio.Event(), asyncio.Event()

    @property
    def requests(self) -> tuple[SendRequest, ...]:
        """The next attempt at each delivery, with the delivery as it is now."""
        return tuple(self._requests.values())

    @requests.setter
    def requests(self, requests: Sequence[SendRequest]) -> None:
        self._requests = {(each.delivery.event_key, each.subscription.id): each for each in requests}

    async def load(self, groups: Sequence[Group]) -> list[SendRequest]:
        await self.load_gate.wait()
        return [
            replace(self._requests[group.event_key, each], number=group.attempt)
            for group in groups
            for each in group.subscription_ids
            if (group.event_key, each) in self._requests
        ]

    async def limited_channels(self) -> tuple[Channel, ...]:
        return ()

    async def probe(self, one: SendRequest) -> None:
        self.calls.append("probe")
        self._change(one.delivery.event_key, one.subscription.id, updated_at=datetime.now(UTC))

    async def record_intent(self, requests: Sequence[SendRequest]) -> None:
        self.calls.append("intent")
        self.announced += [one.subscription.id for one in requests]
        for one in requests:
            if (stored := self._open(one.delivery.event_key, one.subscription.id, one.number)) is None:
                continue
            kept = {} if stored.intent_at else {"intent_at": datetime.now(UTC), "provider_attempted": None}
            self._change(stored.event_key, stored.subscription_id, state=DeliveryState.SENDING, **kept)

    async def lease(self, requests: Sequence[SendRequest]) -> None:
        if self.lease_failures:
            raise self.lease_failures.pop(0)
        self.leased += [one.subscription.id for one in requests]
        for one in requests:
            if stored := self._open(one.delivery.event_key, one.subscription.id, one.number):
                now = datetime.now(UTC)
                self._change(stored.event_key, stored.subscription_id, state=DeliveryState.SENDING, intent_at=now)

    async def record(self, attempts: Sequence[Attempt]) -> None:
        self.calls.append("record")
        self.recording.set()
        await self.record_gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.recorded += attempts
        for attempt in attempts:
            if (stored := self._open(attempt.event_key, attempt.subscription_id, attempt.number)) is None:
                continue
            outcome = attempt.outcome
            self._change(
                stored.event_key,
                stored.subscription_id,
                state=attempt.state,
                attempts=attempt.number,
                reason=outcome.reason,
                delay=attempt.delay,
                from_retry_after=attempt.from_retry_after,
                remaining_recipients=outcome.remaining_recipients,
                provider_id=outcome.provider_id,
                intent_at=stored.intent_at if outcome.kind is OutcomeKind.UNKNOWN else None,
                not_before=None,
                updated_at=datetime.now(UTC),
            )
        self.written.set()

    def _open(self, event_key: str, subscription_id: str, number: int) -> Delivery | None:
        """The delivery, if it exists and neither has settled nor has this attempt on record."""
        if (request := self._requests.get((event_key, subscription_id))) is None:
            return None
        delivery = request.delivery
        return None if delivery.state.settled or delivery.attempts >= number else delivery

    def _change(self, event_key: str, subscription_id: str, **fields: Any) -> None:
        request = self._requests[event_key, subscription_id]
        changed = replace(request, delivery=request.delivery.model_copy(update=fields))
        self._requests[event_key, subscription_id] = changed

    @property
    def names(self) -> list[str]:
        return sorted(attempt.subscription_id for attempt in self.recorded)


class Sender:
    """The `attempt` of a channel. By subscription id, it returns an outcome, raises an error, or waits until a gate opens."""

    def __init__(self, **answers: Outcome | Exception | asyncio.Event) -> None:
        self.answers = answers
        self.attempted: list[str] = []
        self.in_flight = self.most_in_flight = 0
        #: Attempts that wait for a gate.
        self.at_gates = 0

    async def __call__(self, one: SendRequest) -> Outcome:
        name = one.subscription.id
        self.attempted.append(name)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            answer = self.answers.get(name, OK)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, asyncio.Event):
                self.at_gates += 1
                try:
                    await answer.wait()
                finally:
                    self.at_gates -= 1
                return OK
            return answer
        finally:
            self.in_flight -= 1


async def sent(
    ledger: Ledger,
    attempt: Attempting,
    *,
    env: ActivityEnvironment | None = None,
    concurrency: int = 50,
    intent: bool = False,
    in_flight: InFlightAttempts | None = None,
    running: list[asyncio.Task[Any]] | None = None,
) -> ChunkResult:
    """Run a send activity over all deliveries of the ledger, and append its task to `running`."""
    chunk = Chunk(groups=groups_of(*ledger.requests), schedule=SCHEDULE)

    async def run() -> ChunkResult:
        if running is not None and (task := asyncio.current_task()):
            running.append(task)
        return await ChunkRun(
            chunk=chunk,
            channel=Channel.WEBHOOK,
            registry=cast("Registry", ledger),
            attempt=attempt,
            concurrency=concurrency,
            intent=intent,
            in_flight=in_flight,
        ).run()

    result: ChunkResult = await asyncio.wait_for((env or ActivityEnvironment()).run(run), 30)
    return result


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0)
