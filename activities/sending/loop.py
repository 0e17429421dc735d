"""The loop that all send activities share: skip what is settled, attempt the rest side by side, record outcomes as they come.

A channel brings one function, `attempt(request) -> Outcome`. Killed half-way, the activity's retry repeats only what was in
flight: what has been recorded is answered from the record.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.sending.in_flight import InFlightAttempts
from activities.sending.throttling import (
    Throttled,
    hold_back,
    paced,
    throttled,
)
from bellwire.contract import Chunk, ChunkResult, Deferred, Group
from bellwire.deliveries import MAX_REASON, MAX_RESPONSE, Attempt, DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import RETRY_AFTER_BOUNDS, throttle_window
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel

log = structlog.get_logger("bellwire")

#: Seconds between two writes of outcomes to the registry, while attempts go on. What a killed worker had sent and not yet
#: written is sent again.
FLUSH_SECONDS = 0.05
#: Seconds between two heartbeats; a worker is missed after 15 s without one.
HEARTBEAT_SECONDS = 2.0
#: What a send activity of a worker that stops fails with, and the pause until another takes over what it has not begun.
STOPPING, HAND_OVER = "WorkerStopping", timedelta(milliseconds=100)


async def send(
    chunk: Chunk,
    *,
    channel: Channel,
    registry: Registry,
    attempt: Callable[[SendRequest], Awaitable[Outcome]],
    concurrency: int,
    in_flight: InFlightAttempts | None = None,
    intent: bool = False,
) -> ChunkResult:
    """Attempt each delivery of the chunk once, `concurrency` at a time. With `intent`, record beforehand that it will.

    What is in `flights`, here or in another process, is waited for and not made again. An `attempt` that raises is a
    fault of ours: the others are made and recorded all the same, or the next try would make them again; then the first
    error is raised. A worker that is told to stop begins no more attempts, ends those in flight, and leaves the rest to
    the next try, which is another worker's.
    """
    book, failures, left = AttemptLedger(registry), list[Exception](), list[SendRequest]()
    runners: set[asyncio.Task[None]] = set()

    async def one(request: SendRequest) -> None:
        if flight := flying.get(request.key):
            # It goes on though this activity is cancelled: another try may take part in it.
            book.enter(await asyncio.shield(flight))
            return
        if in_flight and request.delivery.state is DeliveryState.SENDING:
            now_standing = await in_flight.wait_for_other_worker(request)
            if now_standing is None:
                book.miss(request.delivery.event_key)
                return
            todo = book.open([now_standing])
            if not todo:
                return
            (request,) = todo
        if not book.holds(request):
            book.enter(await make(request, attempt, chunk.schedule))

    async def run(requests: Iterator[SendRequest]) -> None:
        for request in requests:
            if activity.is_worker_shutdown():
                left.append(request)
                continue
            try:
                await one(request)
            except Throttled:
                book.hold(request)
            except Exception as error:
                failures.append(error)

    async def wind_up() -> None:
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)
        try:
            await book.write()
        except Exception as error:
            # What ended the activity is the better thing to report.
            log.error("attempts.unrecorded", channel=str(channel), error=type(error).__name__)  # noqa: TRY400

    async with _heartbeats(lambda: book.made):
        flying = in_flight.among(chunk.groups) if in_flight else {}
        todo = await book.load_due(chunk.groups, await registry.attempts.load(chunk.groups))
        limited = await registry.limits.limited_channels()
        if intent:
            await registry.attempts.record_intent(todo)
        elif todo and activity.info().attempt > 1:
            # While the registry takes no writes, each try would send the same again.
            await registry.attempts.probe(todo[0])
        requests = iter(todo)
        runners |= {asyncio.create_task(run(requests)) for _ in range(min(concurrency, len(todo)))}
        try:
            pending = runners
            while pending:
                _, pending = await asyncio.wait(pending, timeout=FLUSH_SECONDS)
                await book.write()
            if failures:
                raise failures[0]
            if any(runner.cancelled() for runner in runners):
                raise RuntimeError("an attempt was broken off from elsewhere")
            if left:
                raise ApplicationError(
                    f"this worker stops; {len(left)} of {len(todo)} attempts are left to another",
                    type=STOPPING,
                    next_retry_delay=HAND_OVER,
                    category=ApplicationErrorCategory.BENIGN,
                )
        finally:
            # Cancelled or shutting down: what was sent is recorded, or the next try would send it again.
            await _despite_cancels(wind_up())
    return book.result.model_copy(update={"limited_channels": limited})


class AttemptLedger:
    """What became of the deliveries of a chunk, and what of it the registry does not have yet."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._unwritten: list[Attempt] = []
        self._settled: dict[str, dict[DeliveryState, int]] = defaultdict(lambda: defaultdict(int))
        self._deferred: list[Deferred] = []
        #: By subscription, until when an attempt of this chunk has had it throttled.
        self._throttled: dict[str, datetime] = {}
        #: Attempts entered so far.
        self.made = 0

    async def load_due(self, groups: Sequence[Group], loaded: Sequence[SendRequest]) -> list[SendRequest]:
        """What of it is to be attempted now: neither on record already, nor held back by the limit of its subscription.

        What of the groups was not loaded is gone from the registry.
        """
        if len(loaded) < sum(len(group.subscription_ids) for group in groups):
            there = Counter(request.delivery.event_key for request in loaded)
            asked = Counter(group.event_key for group in groups for _ in group.subscription_ids)
            for event_key, number in (asked - there).items():
                self.miss(event_key, number)
        todo, held = await hold_back(self._registry, self.open(loaded), now=datetime.now(UTC))
        self._deferred += held
        return todo

    def open(self, loaded: Sequence[SendRequest]) -> list[SendRequest]:
        """Enter what is on record already; the rest is to be attempted."""
        todo = []
        for request in loaded:
            if request.delivery.state.settled:
                self._settled[request.delivery.event_key][request.delivery.state] += 1
            elif request.delivery.attempts >= request.number:
                self._deferred.append(_recorded(request))
            else:
                todo.append(request)
        return todo

    def miss(self, event_key: str, number: int = 1) -> None:
        """Deliveries were deleted while a run still held them. Unless they are counted, whoever waits for the event waits on."""
        self._settled[event_key][DeliveryState.CANCELLED] += number

    def enter(self, made: Attempt) -> None:
        self.made += 1
        self._unwritten.append(made)
        if made.outcome.throttle:
            # At least; the registry knows how often it has been throttled before.
            self._throttled[made.subscription_id] = made.ended_at + throttle_window(
                1, retry_after=made.outcome.retry_after
            )

    def holds(self, request: SendRequest) -> bool:
        """Whether it is not to be attempted after all: since it was admitted, its receiver was found to be throttled."""
        until, now = self._throttled.get(request.subscription.id), datetime.now(UTC)
        if until is None or until <= now:
            return False
        self._deferred.append(throttled(request, until, now=now))
        return True

    def hold(self, request: SendRequest) -> None:
        """It is not attempted now, and comes back at once to be paced."""
        self._deferred.append(paced(request))

    async def write(self) -> None:
        """Record what was entered. What an error or a cancel keeps from being recorded stays for the next call."""
        if not (batch := self._unwritten[:]):
            return
        await self._registry.attempts.record(batch)
        del self._unwritten[: len(batch)]
        for made in batch:
            if made.state.settled:
                self._settled[made.event_key][made.state] += 1
            else:
                self._deferred.append(_deferred(made))

    @property
    def result(self) -> ChunkResult:
        return ChunkResult(
            settled={key: dict(states) for key, states in self._settled.items()}, deferred=tuple(self._deferred)
        )


@asynccontextmanager
async def _heartbeats(progress: Callable[[], int]) -> AsyncIterator[None]:
    """Heartbeat every HEARTBEAT_SECONDS, whatever the body waits for; details: attempts made."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            activity.heartbeat(progress())

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait([beating])


async def _despite_cancels(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, however often the activity is cancelled meanwhile: by its workflow, then by a stopping worker."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)


async def make(
    request: SendRequest, attempt: Callable[[SendRequest], Awaitable[Outcome]], default: Sequence[float]
) -> Attempt:
    """One attempt, judged and told. `default` is the channel's schedule."""
    started, begun = datetime.now(UTC), time.perf_counter()
    if request.subscription.state is SubscriptionState.DISABLED:
        outcome = Outcome(kind=OutcomeKind.REJECTED, reason="subscription disabled", fault=Fault.OPERATOR)
    else:
        outcome = await attempt(request)
    if len(outcome.reason) > MAX_REASON or len(outcome.response or "") > MAX_RESPONSE:
        cut = {"reason": outcome.reason[:MAX_REASON], "response": outcome.response and outcome.response[:MAX_RESPONSE]}
        outcome = outcome.model_copy(update=cut)
    state, delay, from_retry_after = judge(outcome, request, default)
    made = Attempt(
        event_key=request.delivery.event_key,
        subscription_id=request.subscription.id,
        number=request.number,
        started_at=started,
        duration=time.perf_counter() - begun,
        outcome=outcome,
        state=state,
        delay=delay,
        from_retry_after=from_retry_after,
        degraded=request.health.degraded,
    )
    _tell(request, made)
    return made


def judge(outcome: Outcome, request: SendRequest, default: Sequence[float]) -> tuple[DeliveryState, float | None, bool]:
    """Where an outcome leaves a delivery: its state, the seconds until the next attempt, and whether the receiver named them.

    A stated time replaces the schedule's wait, shorter or longer; the attempt counts all the same, so that the schedule's
    number of attempts holds.
    """
    if outcome.kind is OutcomeKind.DELIVERED:
        return DeliveryState.DELIVERED, None, False
    if outcome.kind is OutcomeKind.REJECTED:
        return DeliveryState.REJECTED, None, False
    schedule = request.subscription.retry_schedule if request.subscription.retry_schedule is not None else default
    step = request.number - request.delivery.schedule_from - 1
    if step >= len(schedule):
        return DeliveryState.EXHAUSTED, None, False
    if outcome.retry_after is None:
        return DeliveryState.WAITING, schedule[step], False
    shortest, longest = RETRY_AFTER_BOUNDS
    return DeliveryState.WAITING, min(max(outcome.retry_after, shortest), longest), True


def _deferred(made: Attempt) -> Deferred:
    assert made.delay is not None
    return Deferred(
        event_key=made.event_key,
        subscription_id=made.subscription_id,
        attempts=made.number,
        delay=made.delay,
        from_retry_after=made.from_retry_after,
        reason=made.outcome.reason,
    )


def _recorded(request: SendRequest) -> Deferred:
    """What an earlier try of this activity recorded for the attempt that it is asked for again."""
    return Deferred(
        event_key=request.delivery.event_key,
        subscription_id=request.subscription.id,
        attempts=request.delivery.attempts,
        delay=request.delivery.delay or 0.0,
        from_retry_after=request.delivery.from_retry_after,
        reason=request.delivery.reason,
    )


def _tell(request: SendRequest, made: Attempt) -> None:
    """One wide line and the counters per attempt."""
    channel = request.delivery.channel
    log.info(
        "delivery.attempted",
        delivery=request.id,
        event_source=request.event.source,
        event_id=request.event.id,
        event_type=request.event.type,
        tenant=request.subscription.tenant,
        subscription=request.subscription.id,
        channel=str(channel),
        attempt=made.number,
        outcome=str(made.outcome.kind),
        reason=made.outcome.reason,
        state=str(made.state),
        duration_ms=round(made.duration * 1000),
        next_attempt_in=made.delay,
        provider_id=made.outcome.provider_id,
        workflow=request.delivery.workflow_id,
    )
    meter = activity.metric_meter()
    labels = {"channel": str(channel), "outcome": str(made.outcome.kind)}
    meter.create_counter("bellwire_attempts", "Attempts at deliveries").add(1, labels)
    meter.create_histogram_float("bellwire_attempt_duration_seconds", "Duration of attempts").record(
        made.duration, labels
    )
