"""Rounds: the loop that delivers.

A round attempts all deliveries that are due, with one activity per channel and chunk. A delivery that did not settle is due
again by its own schedule, and one timer waits for the earliest. So neither success nor failure costs a workflow of its own.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        MAX_FAILED,
        SEND,
        Action,
        CarriedState,
        Chunk,
        ChunkResult,
        ControlRequest,
        Group,
        InlineSend,
        InlineSendResult,
        SettleInput,
        channel_queue,
        send_inline,
        settle,
    )
    from bellwire.deliveries import Counts, DeliveryState, Failed
    from bellwire.formats.counts import counted
    from bellwire.targets import SPECS, Channel
    from workflows.agenda import Entry, chunks, groups
    from workflows.policies import (
        INLINE_CHANNELS,
        INLINE_LIMIT,
        MAX_CONCURRENT_LIMITED,
        REGISTRY_OPTIONS,
        SCHEDULES,
        SEND_OPTIONS,
    )
    from workflows.rounds import visibility
    from workflows.rounds.calls import Calls
    from workflows.rounds.controls import Controls


class Rounds(Controls):
    """The loop of Notify and Dispatch. They fill the agenda and call `run_until_settled`."""

    def __init__(self) -> None:
        super().__init__()
        self._first_round_started = self._first_round_done = False
        #: Channels with a rate limit: one delivery per activity, since the limit counts activities.
        self._limited_channels: frozenset[Channel] = frozenset()
        #: The send over limited channels. The loop does not wait for it, since a limit may take hours.
        self._limited_send: asyncio.Task[None] | None = None
        #: The calls of handlers. The loop does not wait for them either.
        self._calls = Calls(self._apply_results, self._wake)
        #: Whether the first round ends with the calls that it began: a replay waits for what it has begun.
        self.first_round_has_calls = False
        #: Unix time at which the timer of the loop fires.
        self._wake_at: float | None = None
        self._search_attributes = visibility.SearchAttributes()
        #: Whether deliveries are attempted one after the other, in the order in which they were added.
        self.in_order = False
        #: When the events were published; None if that is not known, or long ago.
        self.published_at: datetime | None = None

    def add_due(self, new: Sequence[Group], limited_channels: Sequence[Channel]) -> None:
        """Put deliveries on the agenda, due now."""
        self._limited_channels = frozenset(limited_channels)
        for group in new:
            self.agenda.add(group, due=workflow.time())
            self.add_counts(group.event_key, {"matched": len(group.subscription_ids)})
        for event_key in self.cancelled_events:
            self.agenda.apply(ControlRequest(action=Action.CANCEL, event_key=event_key), now=workflow.time())
        self.wake_requested = True

    def restore(self, carried: CarriedState) -> None:
        """Continue with the state of the run before this one."""
        self._first_round_done = True
        self._limited_channels = frozenset(carried.limited_channels)
        self.counts.update(carried.counts)
        self.failed += carried.failed
        self.published_at = carried.published_at
        self._search_attributes.restore()
        for item in carried.unsettled:
            self.agenda.restore(item, now=workflow.time())

    def carried_state(self) -> CarriedState:
        """The state for the next run."""
        return CarriedState(
            unsettled=self.agenda.carried(),
            counts=dict(self.counts),
            limited_channels=tuple(sorted(self._limited_channels)),
            failed=tuple(self.failed),
            published_at=self.published_at,
        )

    async def run_until_settled(self) -> bool:
        """Run rounds until every delivery is settled, or until the workflow is cancelled.

        Returns True if the workflow must continue as new first.
        """
        try:
            while workflow.cancellation_reason() is None:
                self.wake_requested = False
                if self._limited_send and self._limited_send.done():
                    self._limited_send.result()
                    self._limited_send = None
                self._calls.raise_failures()
                self._calls.interrupt(everything=self._should_continue_as_new)
                if cancelled := self.agenda.cancel_requested():
                    await self._settle(cancelled, "cancelled by operator")
                    self.agenda.remove(cancelled)
                elif due := self.agenda.take_due(workflow.time(), except_channels=self._blocked_channels):
                    self._first_round_started = True
                    await self._round(due)
                elif self._first_round_ended and not self._first_round_done:
                    self._first_round_done = True
                    await self.after_first_round()
                elif self._should_continue_as_new and self.agenda and not self._is_sending_beside:
                    return True
                elif self.agenda or self.is_resolving:
                    await self._wait()
                else:
                    break
        finally:
            await self._calls.close()
            if self._limited_send:
                self._limited_send.cancel()
                await asyncio.gather(self._limited_send, return_exceptions=True)
        return False

    @property
    def _first_round_ended(self) -> bool:
        calling = self.first_round_has_calls and self._calls.in_flight
        return self._first_round_started and not self._limited_send and not calling

    @property
    def _is_sending_beside(self) -> bool:
        """Whether sends run that the loop does not wait for."""
        return self._limited_send is not None or self._calls.in_flight

    def _wake(self) -> None:
        self.wake_requested = True

    @property
    def _should_continue_as_new(self) -> bool:
        """Whether the history is long enough to continue as new, and no child or fan-out forbids it."""
        return workflow.info().is_continue_as_new_suggested() and not self.children and not self.is_resolving

    @property
    def _blocked_channels(self) -> frozenset[Channel]:
        """Channels that start no new send for now."""
        if self._should_continue_as_new:
            return frozenset(Channel)
        return self._limited_channels if self._limited_send else frozenset()

    async def after_first_round(self) -> None:
        """Called once, after every delivery has been attempted once."""

    async def settle_remaining(self) -> None:
        """After a cancel of the workflow: settle every unsettled delivery as cancelled."""
        if remaining := self.agenda.take_all():
            await self._settle(remaining, "event cancelled")

    async def finish(self) -> None:
        """Bring what the Temporal UI shows to its last state, and wait for running handlers."""
        self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _round(self, due: list[Entry]) -> None:
        """Attempt all that is due: a small first round inline, everything else by activities."""
        inline = not self._first_round_done and not self._limited_send and not self.in_order
        calls = [entry for entry in due if SPECS[entry.channel].in_services]
        due = [entry for entry in due if not SPECS[entry.channel].in_services]
        if limited := [entry for entry in due if entry.channel in self._limited_channels]:
            self.agenda.put_back(limited[MAX_CONCURRENT_LIMITED:])
            self._limited_send = asyncio.create_task(self._send_limited(limited[:MAX_CONCURRENT_LIMITED]))
            due = [entry for entry in due if entry.channel not in self._limited_channels]
        if inline and len(due) <= INLINE_LIMIT:
            due = await self._send_inline(due)
        sends = [self._send(chunk) for chunk in chunks(due)]
        sends += [
            self._calls.start(chunk, self._published_at(chunk), in_order=self.in_order) for chunk in chunks(calls)
        ]
        results = await asyncio.gather(*sends, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_limited(self, entries: list[Entry]) -> None:
        """Send over limited channels, with one activity per delivery, beside the loop."""
        try:
            await asyncio.gather(*(self._send([entry]) for entry in entries))
        finally:
            self.wake_requested = True

    async def _send_inline(self, due: list[Entry]) -> list[Entry]:
        """Attempt deliveries within the workflow task, and return those that need an activity."""
        inline = [entry for entry in due if entry.channel in INLINE_CHANNELS]
        if not inline:
            return due
        schedules = {channel: SCHEDULES[channel] for channel in sorted({entry.channel for entry in inline})}
        result: InlineSendResult = await workflow.execute_local_activity(
            send_inline,
            InlineSend(groups=groups(inline), schedules=schedules, published_at=self.published_at),
            summary=counted(len(inline), "delivery"),
            **REGISTRY_OPTIONS,
        )
        remaining = {(group.event_key, name) for group in result.remaining for name in group.subscription_ids}
        sent = [entry for entry in inline if (entry.event_key, entry.subscription_id) not in remaining]
        self._apply_results(sent, result)
        return [entry for entry in due if entry not in sent]

    async def _send(self, entries: list[Entry]) -> None:
        channel = entries[0].channel
        result: ChunkResult = await workflow.execute_activity(
            SEND[channel],
            Chunk(
                groups=groups(entries, in_order=self.in_order),
                schedule=SCHEDULES[channel],
                published_at=self._published_at(entries),
                in_order=self.in_order,
            ),
            task_queue=channel_queue(channel),
            summary=visibility.send_summary(entries),
            **SEND_OPTIONS,
        )
        self._limited_channels = frozenset(result.limited_channels)
        self._apply_results(entries, result)
        if self._limited_send:
            # The timer of the loop may fire later than these are due again.
            wake_at = self.agenda.wake_at(workflow.time(), except_channels=self._blocked_channels)
            self.wake_requested |= wake_at is not None and wake_at < (self._wake_at or math.inf)
            # Deliveries that were cancelled in flight settle now.
            self.wake_requested |= any(entry.cancel_requested for entry in entries)

    def _published_at(self, entries: list[Entry]) -> datetime | None:
        """When the events were published, if there is a first attempt among the entries."""
        return self.published_at if any(not entry.attempts for entry in entries) else None

    def _apply_results(self, sent: list[Entry], result: ChunkResult) -> None:
        self.agenda.apply_results(sent, result.deferred, now=workflow.time(), random=workflow.random().random)
        self._count_settled(result.settled)
        self.add_failed(result.failed)

    async def _settle(self, entries: list[Entry], reason: str) -> None:
        result = await workflow.execute_local_activity(
            settle,
            SettleInput(groups=groups(entries), reason=reason),
            summary=f"cancel {counted(len(entries), 'delivery')}",
            **REGISTRY_OPTIONS,
        )
        self._count_settled(result.settled)

    async def _wait(self) -> None:
        """Wait until the next delivery is due, or until `wake_requested`."""
        self._show()
        now = workflow.time()
        self._wake_at = wake_at = self.agenda.wake_at(now, except_channels=self._blocked_channels)
        waiting = [entry for entry in self.agenda if entry.is_waiting]
        if wake_at is None:
            await workflow.wait_condition(lambda: self.wake_requested)
            return
        seconds = max(wake_at - now, 0.001)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self.wake_requested,
                timeout=timedelta(seconds=seconds),
                timeout_summary=visibility.timer_summary(waiting, seconds),
            )

    def _show(self) -> None:
        """Update search attributes and Current Details."""
        failed = sum(counts.failed for counts in self.counts.values())
        self._search_attributes.update(self.agenda, failed, self.outcomes())
        unsettled = visibility.unsettled_details(self.agenda.unsettled(visibility.MAX_ROWS), len(self.agenda))
        tables = (unsettled, visibility.failed_details(self.failed, failed))
        workflow.set_current_details("\n\n".join(table for table in tables if table))

    def add_failed(self, more: Sequence[Failed]) -> None:
        """List failed deliveries, up to MAX_FAILED."""
        self.failed += more[: MAX_FAILED - len(self.failed)]

    def add_counts(self, event_key: str, more: Counts | Mapping[str, int]) -> None:
        """Add to the counts of an event."""
        self.counts[event_key] = self.counts[event_key].plus(more)

    def _count_settled(self, settled: Mapping[str, Mapping[DeliveryState, int]]) -> None:
        for event_key, states in settled.items():
            self.add_counts(event_key, {str(state): number for state, number in states.items()})
