"""The first round of a small publication, within the workflow task that found its deliveries.

It saves the server an activity and a second workflow task, which together cost more than all the rest of a lone event. A
workflow task must be short, so what takes longer than PATIENCE_SECONDS goes on by itself, and an activity takes part in it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity

from activities.sending.in_flight import InFlightAttempts, has_outcome
from activities.sending.loop import FLUSH_SECONDS, AttemptLedger, make
from bellwire.contract import InlineSend, InlineSendResult
from bellwire.deliveries import Attempt, Outcome
from bellwire.registry import Registry
from bellwire.sends import AttemptKey, SendRequest
from bellwire.targets import Channel

#: Seconds that a workflow task waits for receivers.
INLINE_WAIT_SECONDS = 0.5
#: Seconds for which a receiver that took longer begins with an activity, where it keeps nobody waiting; and how many such
#: receivers are remembered before those are forgotten whose time is over.
SLOW_FOR_SECONDS, SLOW_REMEMBERED = 60.0, 10_000


class Attempting(Protocol):
    """What a channel brings whose attempts may begin in a workflow task."""

    @property
    def in_flight(self) -> InFlightAttempts: ...

    async def attempt(self, request: SendRequest) -> Outcome: ...


class InlineSender:
    """The activity, over the channels that this process sends by, with at most `most` attempts under way at a time.

    Those that go on by themselves count; beyond, deliveries are left to activities.
    """

    def __init__(self, registry: Registry, channels: Mapping[Channel, Attempting], *, most: int) -> None:
        self._registry = registry
        self._channels = channels
        self._most = most
        self._under_way = set[asyncio.Task[Attempt]]()
        #: By subscription, until when its receiver counts as slow.
        self._slow_until: dict[str, float] = {}
        #: Rounds that wait for receivers just now.
        self.waiting = 0

    @activity.defn
    async def send_inline(self, inline: InlineSend) -> InlineSendResult:
        """Attempt what this process can attempt; what has not ended within PATIENCE_SECONDS is returned as remaining."""
        mine = [group for group in inline.groups if group.channel in self._channels]
        remaining = [group for group in inline.groups if group.channel not in self._channels]
        flying = {key for channel in self._channels.values() for key in channel.in_flight.among(mine)}
        book = AttemptLedger(self._registry)
        requests: dict[AttemptKey, SendRequest] = {}
        todo = await book.load_due(mine, await self._registry.attempts.load(mine))
        # All of them or none, or those that are left would wait here for the others.
        full = len(self._under_way) + len(todo) > self._most
        for request in todo:
            slow = self._slow_until.get(request.subscription.id, 0.0) > time.monotonic()
            if full or slow or request.key in flying or request.delivery.leased(datetime.now(UTC)):
                remaining.append(request.group)
            else:
                requests[request.key] = request
        attempts = {
            key: asyncio.create_task(
                make(
                    request,
                    self._channels[request.delivery.channel].attempt,
                    inline.schedules[request.delivery.channel],
                )
            )
            for key, request in requests.items()
        }
        for attempt in attempts.values():
            self._under_way.add(attempt)
            attempt.add_done_callback(self._under_way.discard)
        recorded, leased = set[asyncio.Task[Attempt]](), False
        try:
            await self._await(set(attempts.values()), book, recorded)
            unrecorded = [(requests[key], attempt) for key, attempt in attempts.items() if attempt not in recorded]
            # Also what ends meanwhile: until it is on record, no other process may make it.
            if going_on := [request for request, attempt in unrecorded if not attempt.done() or has_outcome(attempt)]:
                await self._registry.attempts.lease(going_on)
            leased = True
        finally:
            for key, attempt in attempts.items():
                if attempt not in recorded:
                    self._channels[requests[key].delivery.channel].in_flight.keep(requests[key], attempt, leased=leased)
        late = [requests[key] for key, attempt in attempts.items() if attempt not in recorded]
        self._remember_slow(late)
        remaining += (request.group for request in late)
        result = book.result
        return InlineSendResult(settled=result.settled, deferred=result.deferred, remaining=tuple(remaining))

    def _remember_slow(self, late: Sequence[SendRequest]) -> None:
        now = time.monotonic()
        if len(self._slow_until) > SLOW_REMEMBERED:
            self._slow_until = {name: until for name, until in self._slow_until.items() if until > now}
        self._slow_until.update((request.subscription.id, now + SLOW_FOR_SECONDS) for request in late)

    async def _await(
        self, attempts: set[asyncio.Task[Attempt]], book: AttemptLedger, recorded: set[asyncio.Task[Attempt]]
    ) -> None:
        """Enter and record what ends in time. What failed by a fault of ours stays out: its activity will show it."""
        pending, ends_at = attempts, time.monotonic() + INLINE_WAIT_SECONDS
        while pending and (rest := ends_at - time.monotonic()) > 0:
            self.waiting += 1
            try:
                done, pending = await asyncio.wait(pending, timeout=min(rest, FLUSH_SECONDS))
            finally:
                self.waiting -= 1
            made = {attempt for attempt in done if has_outcome(attempt)}
            for attempt in made:
                book.enter(attempt.result())
            await book.write()
            recorded |= made
