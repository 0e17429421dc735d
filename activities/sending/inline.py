"""Inline sends: the first round of a small publication, attempted within the workflow task that found its deliveries.

That saves the server an activity and a second workflow task, which together cost more than the rest of a single event. A
workflow task must be short, so an attempt that takes longer than INLINE_WAIT_SECONDS stays in flight, and an activity joins it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from temporalio import activity

from activities.sending.attempt import run_attempt
from activities.sending.channel_sender import ChannelSender
from activities.sending.in_flight import has_outcome
from activities.sending.ledger import AttemptLedger
from activities.sending.loop import FLUSH_SECONDS
from activities.tenant_slots import TenantSlots
from bellwire.contract import InlineSend, InlineSendResult
from bellwire.deliveries import Attempt
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel

#: Seconds that a workflow task waits for receivers.
INLINE_WAIT_SECONDS = 0.5
#: Seconds for which deliveries to a receiver that took longer go to an activity at once.
SLOW_SECONDS = 60.0
#: Slow receivers to remember before expired ones are dropped.
MAX_SLOW = 10_000


class _Running(NamedTuple):
    request: SendRequest
    task: asyncio.Task[Attempt]


class InlineSender:
    """The activity `send_inline`, over the channels of this process.

    At most `limit` attempts of a tenant run at a time, and fewer while many tenants send, including those that have outlasted
    their workflow task. Beyond that, deliveries go to the activities of their channels. `clock`: seconds that never go back.
    """

    def __init__(
        self,
        registry: Registry,
        channels: Mapping[Channel, ChannelSender],
        *,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._channels, self._clock = registry, channels, clock
        self._running = set[asyncio.Task[Attempt]]()
        # A tenant gets a quarter.
        self._slots = TenantSlots(4 * limit, per_tenant=limit)
        #: By subscription, until when its receiver counts as slow.
        self._slow_until: dict[str, float] = {}
        #: Workflow tasks that wait for receivers now.
        self.waiting = 0

    @activity.defn
    async def send_inline(self, inline: InlineSend) -> InlineSendResult:
        """Attempt what this process can; the rest, and what takes longer than INLINE_WAIT_SECONDS, is returned as remaining."""
        groups = [group for group in inline.groups if group.channel in self._channels]
        remaining = [group for group in inline.groups if group.channel not in self._channels]
        in_flight = {key for channel in self._channels.values() for key in channel.in_flight.among(groups)}
        ledger = AttemptLedger(self._registry)
        requests = await ledger.load_due(groups)
        chosen = [request for request in requests if request.key not in in_flight and self._is_quick(request)]
        if not self._reserve(chosen):
            # All or none: the caller waits for those that start anyway.
            chosen = []
        chosen_keys = {request.key for request in chosen}
        remaining += (request.group for request in requests if request.key not in chosen_keys)
        late = await self._run([self._start(request, inline) for request in chosen], ledger)
        self._remember_slow(late)
        remaining += (request.group for request in late)
        result = ledger.result
        return InlineSendResult(**dict(result), remaining=tuple(remaining))

    def _reserve(self, requests: Sequence[SendRequest]) -> bool:
        """Take a slot for each request; none if there are not enough."""
        reserved = list[str]()
        for request in requests:
            if not self._slots.try_acquire(request.subscription.tenant):
                for tenant in reserved:
                    self._slots.release(tenant)
                return False
            reserved.append(request.subscription.tenant)
        return True

    def _is_quick(self, request: SendRequest) -> bool:
        """Whether neither a slow receiver nor another process makes the workflow task wait."""
        is_slow = self._slow_until.get(request.delivery.subscription_id, 0.0) > self._clock()
        return not is_slow and not request.delivery.leased(datetime.now(UTC))

    def _start(self, request: SendRequest, inline: InlineSend) -> _Running:
        channel = request.delivery.channel
        attempt, schedule = self._channels[channel].attempt, inline.schedules[channel]
        task = asyncio.create_task(run_attempt(request, attempt, schedule, published_at=inline.published_at))
        self._running.add(task)
        task.add_done_callback(partial(self._end, request.subscription.tenant))
        return _Running(request, task)

    def _end(self, tenant: str, task: asyncio.Task[Attempt]) -> None:
        self._running.discard(task)
        self._slots.release(tenant)

    async def _run(self, running: Sequence[_Running], ledger: AttemptLedger) -> list[SendRequest]:
        """Wait for the attempts and record them. Those that are late, which are returned, stay in flight under a lease."""
        recorded, leased = set[asyncio.Task[Attempt]](), False
        try:
            await self._record_ended({each.task for each in running}, ledger, recorded)
            # Also those that end meanwhile: until they are recorded, no other process may repeat them.
            unrecorded = [
                each.request
                for each in running
                if each.task not in recorded and (not each.task.done() or has_outcome(each.task))
            ]
            if unrecorded:
                await self._registry.attempts.lease(unrecorded)
            leased = True
        finally:
            for request, task in running:
                if task not in recorded:
                    self._channels[request.delivery.channel].in_flight.keep(request, task, leased=leased)
        return [request for request, task in running if task not in recorded]

    async def _record_ended(
        self, pending: set[asyncio.Task[Attempt]], ledger: AttemptLedger, recorded: set[asyncio.Task[Attempt]]
    ) -> None:
        """Record attempts that end within INLINE_WAIT_SECONDS. Those that raised are left to their activity, which reports it."""
        ends_at = self._clock() + INLINE_WAIT_SECONDS
        while pending and (left := ends_at - self._clock()) > 0:
            self.waiting += 1
            try:
                done, pending = await asyncio.wait(pending, timeout=min(left, FLUSH_SECONDS))
            finally:
                self.waiting -= 1
            with_outcome = {task for task in done if has_outcome(task)}
            for task in with_outcome:
                ledger.add(task.result())
            await ledger.write()
            recorded |= with_outcome

    def _remember_slow(self, late: Sequence[SendRequest]) -> None:
        now = self._clock()
        if len(self._slow_until) > MAX_SLOW:
            self._slow_until = {name: until for name, until in self._slow_until.items() if until > now}
        self._slow_until.update((request.delivery.subscription_id, now + SLOW_SECONDS) for request in late)
