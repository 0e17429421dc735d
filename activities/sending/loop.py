"""The loop that all send activities share: attempt the deliveries of a chunk concurrently, and record outcomes as they come.

If a worker is killed half-way, the retry of the activity repeats only the attempts that were in flight: what is recorded is
skipped.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.sending.attempt import ChannelAttempt, run_attempt
from activities.sending.in_flight import InFlightAttempts
from activities.sending.ledger import AttemptLedger
from activities.sending.throttling import Throttled
from activities.sending.turns import Turns
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import Attempt, DeliveryState
from bellwire.registry import Registry
from bellwire.sends import AttemptKey, SendRequest
from bellwire.targets import Channel

log = structlog.get_logger("bellwire")

#: Seconds between two writes of outcomes to the registry. What a killed worker had sent and not written is sent again.
FLUSH_SECONDS = 0.05
#: Seconds between two heartbeats. A worker counts as dead after 15 s without one.
HEARTBEAT_SECONDS = 2.0
#: The error type of a send activity whose worker stops, and the delay until another worker takes over the remaining attempts.
STOPPING, HAND_OVER = "WorkerStopping", timedelta(milliseconds=100)


@dataclass(kw_only=True)
class ChunkRun:
    """One run of a send activity: attempts each delivery of the chunk once, up to `concurrency` of each tenant at a time.

    Waits for attempts that are in flight here or in another process instead of repeating them. If `attempt` raises, the other
    attempts still run and are recorded, or the next try would repeat them; then the first error is raised. When the worker
    stops, attempts in flight end, and the remaining ones are left to another worker.
    """

    chunk: Chunk
    channel: Channel
    registry: Registry
    attempt: ChannelAttempt
    concurrency: int
    #: None: attempts of this channel never outlast the activity that started them.
    in_flight: InFlightAttempts | None = None
    turns: Turns = field(default_factory=Turns)
    #: Record beforehand that the attempts will be made.
    intent: bool = False

    def __post_init__(self) -> None:
        self._ledger = AttemptLedger(self.registry)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Attempts of this process that were in flight before the registry was read.
        self._joined: dict[AttemptKey, asyncio.Task[Attempt]] = {}
        self._failures: list[Exception] = []
        #: Whether all tasks send.
        self._concurrent = asyncio.Event()
        if not self.chunk.in_order:
            self._concurrent.set()
        #: Whether no further request is begun: a library may end normally although its task was cancelled, if what it awaits has
        #: just ended (`asyncio.wait_for` of Python 3.11).
        self._ending = False
        #: Number of requests that a stopping worker has not begun.
        self._remaining = 0

    async def run(self) -> ChunkResult:
        registry, ledger = self.registry, self._ledger
        async with _heartbeats(lambda: ledger.added):
            self._joined = self.in_flight.among(self.chunk.groups) if self.in_flight else {}
            requests = await ledger.load_due(self.chunk.groups)
            limited = await registry.limits.limited_channels()
            if self.intent:
                await registry.attempts.record_intent(requests)
            elif requests and activity.info().attempt > 1:
                # If the registry takes no writes, each try would send the same again.
                await registry.attempts.probe(requests[0])
            for own in _by_tenant(requests):
                queue = iter(own)
                number = min(self.concurrency, len(own))
                self._tasks.add(asyncio.create_task(self._work(queue, first=True)))
                self._tasks |= {asyncio.create_task(self._work(queue)) for _ in range(number - 1)}
            try:
                pending = self._tasks
                while pending:
                    _, pending = await asyncio.wait(pending, timeout=FLUSH_SECONDS)
                    await ledger.write()
                self._raise_failures(len(requests))
            finally:
                # Cancelled or shutting down: what was sent is recorded, or the next try would send it again.
                await _despite_cancels(self._wind_up())
        result = ledger.result
        return result.model_copy(update={"limited_channels": tuple(limited)})

    async def _work(self, queue: Iterator[SendRequest], *, first: bool = False) -> None:
        """Take requests from a queue that the tasks share, until it is empty.

        Of a chunk in order, only the first task does, until one is not delivered: a failing receiver must not hold up the rest.
        """
        if not first:
            await self._concurrent.wait()
        for request in queue:
            if self._ending:
                return
            if activity.is_worker_shutdown():
                self._remaining += 1
                continue
            try:
                await self.turns.take()
                await self._send_one(request)
            except Throttled:
                self._ledger.defer(request)
            except Exception as error:
                self._failures.append(error)
        self._concurrent.set()

    async def _send_one(self, request: SendRequest) -> None:
        if joined := self._joined.get(request.key):
            # It continues if this activity is cancelled; another try may join it.
            self._ledger.add(await asyncio.shield(joined))
            return
        if self.in_flight and request.delivery.state is DeliveryState.SENDING:
            current = await self.in_flight.wait_for_other_worker(request)
            if current is None:
                self._ledger.count_missing(request.delivery.event_key)
                return
            remaining = self._ledger.skip_recorded([current])
            if not remaining:
                return
            (request,) = remaining
        if not self._ledger.is_throttled(request):
            self._ledger.add(await self._run(request))

    async def _run(self, request: SendRequest) -> Attempt:
        attempt = await run_attempt(request, self.attempt, self.chunk.schedule, published_at=self.chunk.published_at)
        if attempt.state is not DeliveryState.DELIVERED:
            self._concurrent.set()
        return attempt

    def _raise_failures(self, number: int) -> None:
        """Raise if not every one of the `number` requests was attempted."""
        if self._failures:
            raise self._failures[0]
        if any(task.cancelled() for task in self._tasks):
            raise RuntimeError("an attempt was cancelled from outside the activity")
        if self._remaining:
            raise ApplicationError(
                f"the worker is stopping; {self._remaining} of {number} attempts are left to another",
                type=STOPPING,
                next_retry_delay=HAND_OVER,
                category=ApplicationErrorCategory.BENIGN,
            )

    async def _wind_up(self) -> None:
        """Cancel what still runs and record what has ended."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._ledger.write()
        except Exception as error:
            # The activity reports what ended it, which says more.
            log.error("attempts.record_failed", channel=str(self.channel), error=type(error).__name__)  # noqa: TRY400


def _by_tenant(requests: Iterable[SendRequest]) -> Iterable[list[SendRequest]]:
    """The requests of each tenant, so that slow receivers of one do not hold up those of another."""
    found = defaultdict[str, list[SendRequest]](list)
    for request in requests:
        found[request.subscription.tenant].append(request)
    return found.values()


@asynccontextmanager
async def _heartbeats(progress: Callable[[], int]) -> AsyncIterator[None]:
    """Send a heartbeat every HEARTBEAT_SECONDS, with the number of attempts as details, whatever the body waits for."""

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
    """Run to the end, however often the activity is cancelled: by its workflow, and then by a stopping worker."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
