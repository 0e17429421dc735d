"""Rounds: the loop that every run of deliveries shares, and the handlers by which it is asked and told.

All that is due now goes out, as one activity per channel and chunk; what did not settle falls due again by its own schedule;
one timer waits for the earliest. Neither success nor failure costs a run of its own.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        NOT_UNSETTLED,
        SEND,
        UNSETTLED,
        WAITING,
        Action,
        Carried,
        Chunk,
        ChunkResult,
        ControlRequest,
        ControlResult,
        Group,
        InlineSend,
        InlineSendResult,
        Limited,
        Settlement,
        Summary,
        channel_queue,
        send_inline,
        settle,
    )
    from bellwire.deliveries import Counts, DeliveryState
    from bellwire.subscriptions import Channel
    from workflows.agenda import Agenda, Entry, chunks, groups
    from workflows.policies import INLINE_CHANNELS, INLINE_LIMIT, MAX_CONCURRENT_LIMITED, REGISTRY, SCHEDULES, SENDING
    from workflows.rounds import visibility

#: Unsettled deliveries that a query answers with, and subscription ids in the search attribute.
SHOWN, SHOWN_IN_SEARCH = 100, 20


class Rounds:
    """What Notify and Dispatch have in common. Subclasses fill the agenda and call `attend`."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.counts: dict[str, Counts] = defaultdict(Counts)
        #: Whether more may come onto the agenda, so that an empty one does not end the rounds.
        self.filling = True
        #: Children that are open, by workflow id. A run with open children never continues as new.
        self.children: dict[str, workflow.ChildWorkflowHandle[Any, Summary]] = {}
        #: Events that were cancelled while some of their deliveries may still be on their way here.
        self._cancelled_events: set[str] = set()
        #: Whether something happened that the rounds should look at before their next timer.
        self._wake_requested = False
        self._begun = self._first_round_over = False
        #: Channels with a rate limit: one delivery per activity, or the limit would count chunks.
        self._limited: frozenset[Channel] = frozenset()
        #: What goes out over limited channels while the rounds go on, since a limit may take hours.
        self._rate_limited_task: asyncio.Task[None] | None = None
        #: When the rounds look again by themselves.
        self._wakes_at: float | None = None
        self._searchable: list[str] = []

    def add_due(self, found: Sequence[Group], limited: Limited) -> None:
        """Put deliveries on the agenda, due now."""
        self._limited = frozenset(limited)
        for group in found:
            self.agenda.add(group, due=workflow.time())
            self._count(group.event_key, {"matched": len(group.subscription_ids)})
        for event_key in self._cancelled_events:
            self.agenda.control(ControlRequest(action=Action.CANCEL, event_key=event_key), now=workflow.time())
        self._wake_requested = True

    def restore(self, carried: Carried) -> None:
        """Go on where the run before this one continued as new."""
        self._first_round_over = True
        self._limited = frozenset(carried.limited)
        self.counts.update(carried.counts)
        for item in carried.waiting:
            self.agenda.restore(item, now=workflow.time())

    def carried_state(self) -> Carried:
        return Carried(waiting=self.agenda.carried(), counts=dict(self.counts), limited=tuple(sorted(self._limited)))

    async def run_until_settled(self) -> bool:
        """Hold rounds until everything is settled; True if the run is to continue as new first. A cancel ends them early."""
        try:
            while workflow.cancellation_reason() is None:
                self._wake_requested = False
                if self._rate_limited_task and self._rate_limited_task.done():
                    self._rate_limited_task.result()
                    self._rate_limited_task = None
                if cancel_requested := self.agenda.cancel_requested():
                    await self._settle(cancel_requested, "cancelled by an operator")
                    self.agenda.remove(cancel_requested)
                elif due := self.agenda.take_due(workflow.time(), but=self._blocked_channels):
                    self._begun = True
                    await self._round(due)
                elif self._begun and not self._first_round_over and not self._rate_limited_task:
                    self._first_round_over = True
                    await self.after_first_round()
                elif self._should_continue_as_new and self.agenda and not self._rate_limited_task:
                    return True
                elif self.agenda or self.filling:
                    await self._wait()
                else:
                    break
        finally:
            if self._rate_limited_task:
                self._rate_limited_task.cancel()
                await asyncio.gather(self._rate_limited_task, return_exceptions=True)
        return False

    @property
    def _should_continue_as_new(self) -> bool:
        """Whether the history has become so long that the run should continue as new, and it may."""
        return workflow.info().is_continue_as_new_suggested() and not self.children and not self.filling

    @property
    def _blocked_channels(self) -> frozenset[Channel]:
        """Channels over which nothing more is sent for now."""
        if self._should_continue_as_new:
            return frozenset(Channel)
        return self._limited if self._rate_limited_task else frozenset()

    async def after_first_round(self) -> None:
        """Called once, when everything has been attempted once."""

    async def settle_the_rest(self) -> None:
        """After a cancel: what was not sent settles as cancelled."""
        if rest := self.agenda.take_all():
            await self._settle(rest, "event cancelled")

    async def finish(self) -> None:
        """Clear what the search shows, and let handlers that are under way end."""
        self._show_in_search()
        workflow.set_current_details("")
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _round(self, due: list[Entry]) -> None:
        """Attempt all that is due: a small first round within this workflow task, so far as it ends soon, else by activities."""
        at_once = not self._first_round_over and not self._rate_limited_task
        if slow := [entry for entry in due if entry.channel in self._limited]:
            self.agenda.put_back(slow[MAX_CONCURRENT_LIMITED:])
            self._rate_limited_task = asyncio.create_task(self._send_one_by_one(slow[:MAX_CONCURRENT_LIMITED]))
            due = [entry for entry in due if entry.channel not in self._limited]
        if at_once and len(due) <= INLINE_LIMIT:
            due = await self._send_inline(due)
        sent = await asyncio.gather(*(self._send(chunk) for chunk in chunks(due)), return_exceptions=True)
        for outcome in sent:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send_one_by_one(self, entries: list[Entry]) -> None:
        """Over a limited channel, an activity for each, while the rounds go on."""
        try:
            await asyncio.gather(*(self._send([entry]) for entry in entries))
        finally:
            self._wake_requested = True

    async def _send_inline(self, due: list[Entry]) -> list[Entry]:
        """Attempt what may go without an activity of its own; the entries that need one come back."""
        now = [entry for entry in due if entry.channel in INLINE_CHANNELS]
        if not now:
            return due
        schedules = {channel: SCHEDULES[channel] for channel in sorted({entry.channel for entry in now})}
        result: InlineSendResult = await workflow.execute_local_activity(
            send_inline,
            InlineSend(groups=groups(now), schedules=schedules),
            summary=visibility.count(len(now), "delivery"),
            **REGISTRY,
        )
        left = {(group.event_key, name) for group in result.left for name in group.subscription_ids}
        sent = [entry for entry in now if (entry.event_key, entry.subscription_id) not in left]
        self.agenda.apply_results(sent, result.deferred, now=workflow.time(), chance=_chance())
        self._count_settled(result.settled)
        return [entry for entry in due if entry not in sent]

    async def _send(self, entries: list[Entry]) -> None:
        channel = entries[0].channel
        result: ChunkResult = await workflow.execute_activity(
            SEND[channel],
            Chunk(groups=groups(entries), schedule=SCHEDULES[channel]),
            task_queue=channel_queue(channel),
            summary=visibility.sending(entries),
            **SENDING,
        )
        self._limited = frozenset(result.limited)
        self.agenda.apply_results(entries, result.deferred, now=workflow.time(), chance=_chance())
        self._count_settled(result.settled)
        if self._rate_limited_task:
            # The rounds may be waiting for something later than this.
            wakes_at = self.agenda.wake_at(workflow.time(), but=self._blocked_channels)
            self._wake_requested |= wakes_at is not None and wakes_at < (self._wakes_at or math.inf)
            # What was cancelled in flight settles now.
            self._wake_requested |= any(entry.cancel_requested for entry in entries)

    async def _settle(self, entries: list[Entry], reason: str) -> None:
        answer = await workflow.execute_local_activity(
            settle,
            Settlement(groups=groups(entries), reason=reason),
            summary=f"cancel {visibility.count(len(entries), 'delivery')}",
            **REGISTRY,
        )
        self._count_settled(answer.settled)

    async def _wait(self) -> None:
        self._show_in_search()
        now = workflow.time()
        self._wakes_at = wake_at = self.agenda.wake_at(now, but=self._blocked_channels)
        waiting = [entry for entry in self.agenda if entry.is_waiting]
        workflow.set_current_details(visibility.table(self.agenda.unsettled(visibility.ROWS), len(self.agenda)))
        if wake_at is None:
            await workflow.wait_condition(lambda: self._wake_requested)
            return
        seconds = max(wake_at - now, 0.001)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._wake_requested,
                timeout=timedelta(seconds=seconds),
                timeout_summary=visibility.waiting(waiting, seconds),
            )

    def _show_in_search(self) -> None:
        """Upsert what operators search for, only once something was deferred: the happy path pays nothing."""
        waiting = sorted({entry.subscription_id for entry in self.agenda if entry.attempts})
        state = [str(len(waiting)), *waiting[:SHOWN_IN_SEARCH]] if waiting else []
        if state != self._searchable:
            self._searchable = state
            workflow.upsert_search_attributes(
                [UNSETTLED.value_set(len(self.agenda)), WAITING.value_set(waiting[:SHOWN_IN_SEARCH])]
            )

    def _count(self, event_key: str, more: Mapping[str, int]) -> None:
        self.counts[event_key] = self.counts[event_key].plus(more)

    def _count_settled(self, settled: Mapping[str, Mapping[DeliveryState, int]]) -> None:
        for event_key, states in settled.items():
            self._count(event_key, {str(state): number for state, number in states.items()})

    def summary(self) -> Summary:
        """How the run stands: its result, and the answer to the query `status`."""
        return Summary(
            counts=dict(self.counts),
            unsettled=self.agenda.unsettled(SHOWN),
            open_runs=tuple(self.children),
            resolved=not self.filling,
        )

    @workflow.query(description="Counts and the first unsettled deliveries of this run, and the runs below it.")
    def status(self) -> Summary:
        return self.summary()

    @workflow.update(description="Attempt again now: one subscription's delivery, or all that wait.")
    async def retry_now(self, subscription_id: str | None = None) -> ControlResult:
        return await self._control(ControlRequest(action=Action.RETRY_NOW, subscription_id=subscription_id))

    @workflow.update(description="Attempt nothing until resume: one subscription's delivery, or all.")
    async def pause(self, subscription_id: str | None = None) -> ControlResult:
        return await self._control(ControlRequest(action=Action.PAUSE, subscription_id=subscription_id))

    @workflow.update(description="End a pause.")
    async def resume(self, subscription_id: str | None = None) -> ControlResult:
        return await self._control(ControlRequest(action=Action.RESUME, subscription_id=subscription_id))

    @workflow.update(description="Give up: settle one subscription's delivery, or all, as cancelled.")
    async def cancel(self, subscription_id: str | None = None) -> ControlResult:
        return await self._control(ControlRequest(action=Action.CANCEL, subscription_id=subscription_id))

    @workflow.signal(description="The same verbs, from the run above.")
    async def control(self, control: ControlRequest) -> None:
        await self._control(control)

    @retry_now.validator
    @pause.validator
    @resume.validator
    @cancel.validator
    def _holds(self, subscription_id: str | None = None) -> None:
        if subscription_id is not None and not self.children and not self.agenda.holds(subscription_id):
            raise ApplicationError(
                f"no unsettled delivery of subscription {subscription_id} is here", type=NOT_UNSETTLED
            )

    async def _control(self, control: ControlRequest) -> ControlResult:
        if control.action is Action.CANCEL and control.event_key:
            self._cancelled_events.add(control.event_key)
        changed = self.agenda.control(control, now=workflow.time())
        self._wake_requested = True
        forwarded = 0
        for child in list(self.children.values()):
            try:
                await child.signal("control", control)
                forwarded += 1
            except FailureError:
                continue  # it has closed meanwhile, so it holds nothing
        return ControlResult(deliveries=changed, forwarded=forwarded)


def _chance() -> Iterator[float]:
    while True:
        yield workflow.random().random()
