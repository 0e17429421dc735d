"""Calls: deliveries to handlers, whose functions run in services' own processes, on the services' own task queues.

A call may wait for hours, since the service may be down. So the loop does not wait for it: what a call came to is applied when
it ends. Waiting is not an attempt. A call that waits or runs is interrupted if one of its deliveries is paused or cancelled: the
service finishes what it has begun, and hands the rest back.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutType, is_cancelled_exception
from temporalio.exceptions import TimeoutError as TemporalTimeout

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        CALL_HANDLERS,
        NO_PROCESS,
        UNKNOWN_HANDLER,
        CallOutcomes,
        CallRecords,
        Chunk,
        ChunkResult,
        HandlerCalls,
        OpenedCalls,
        open_calls,
        record_calls,
    )
    from bellwire.formats.counts import counted
    from bellwire.targets.handler import handler_queue
    from workflows.agenda import Entry, groups
    from workflows.policies import CALL_OPTIONS, REGISTRY_OPTIONS, RETURNED_DELAY, SCHEDULES, UNKNOWN_HANDLER_DELAY
    from workflows.rounds import visibility


@dataclass(eq=False)
class _Call:
    """One call: some entries of one service."""

    entries: list[Entry]
    batch: HandlerCalls
    handle: workflow.ActivityHandle[CallOutcomes] | None = None

    def interrupt(self) -> None:
        if self.handle:
            self.handle.cancel()
            self.handle = None


class Calls:
    """The calls in flight of one workflow. `apply` ends the flight of entries that were sent; `wake` has the loop look."""

    def __init__(self, apply: Callable[[list[Entry], ChunkResult], None], wake: Callable[[], None]) -> None:
        self._apply, self._wake = apply, wake
        self._calls: dict[_Call, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> bool:
        return bool(self._calls)

    async def start(self, entries: list[Entry], published_at: datetime | None, *, in_order: bool) -> None:
        """Start calls of these entries, one for each service; `in_order` in the order of the entries, instead of by event."""
        chunk = Chunk(groups=groups(entries, in_order=in_order), schedule=_schedule(entries), published_at=published_at)
        opened: OpenedCalls = await workflow.execute_local_activity(
            open_calls, chunk, summary=visibility.send_summary(entries), **REGISTRY_OPTIONS
        )
        by_key = {(entry.event_key, entry.subscription_id): entry for entry in entries}
        for group in opened.remaining:
            for name in group.subscription_ids:
                by_key.pop((group.event_key, name)).in_flight = False
        for batch in opened.batches:
            called = [by_key.pop((call.event_key, call.subscription_id)) for call in batch.calls]
            call = _Call(called, batch)
            self._calls[call] = asyncio.create_task(self._run(call, published_at))
        self._apply(list(by_key.values()), opened)

    def interrupt(self, *, everything: bool = False) -> None:
        """Interrupt the calls of which a delivery was paused or cancelled, or all of them."""
        for call in self._calls:
            if everything or any(entry.paused or entry.cancel_requested for entry in call.entries):
                call.interrupt()

    def raise_failures(self) -> None:
        """Raise what failed in a call: an error of the workflow's own code, since failures of activities are handled."""
        for call in [call for call, task in self._calls.items() if task.done()]:
            self._calls.pop(call).result()

    async def close(self) -> None:
        """Interrupt all calls, and wait until what they came to is recorded."""
        self.interrupt(everything=True)
        if self._calls:
            await asyncio.gather(*self._calls.values(), return_exceptions=True)

    async def _run(self, call: _Call, published_at: datetime | None) -> None:
        try:
            _return(call, await self._attempt(call, published_at))
        finally:
            call.handle = None
            self._wake()

    async def _attempt(self, call: _Call, published_at: datetime | None) -> "_Returned":
        """Make the call and record what it came to. Returns what was not called."""
        try:
            outcomes = await self._call(call)
        except asyncio.CancelledError:
            return _Returned(call.entries)  # it was interrupted before it was scheduled
        except ActivityError as error:
            if is_cancelled_exception(error):
                return _Returned(call.entries)
            if _has_not_started(error):
                return _Returned(call.entries, reason=NO_PROCESS)
            return _Returned(call.entries, delay=UNKNOWN_HANDLER_DELAY)
        ended = {(outcome.event_key, outcome.subscription_id) for outcome in outcomes.outcomes}
        sent = [entry for entry in call.entries if (entry.event_key, entry.subscription_id) in ended]
        if sent:
            result: ChunkResult = await workflow.execute_local_activity(
                record_calls,
                CallRecords(
                    groups=groups(sent),
                    outcomes=outcomes.outcomes,
                    schedule=_schedule(sent),
                    published_at=published_at,
                ),
                **REGISTRY_OPTIONS,
            )
            self._apply(sent, result)
        return _Returned([entry for entry in call.entries if entry not in sent], unknown=frozenset(outcomes.unknown))

    async def _call(self, call: _Call) -> CallOutcomes:
        # They may have been paused or cancelled while the registry was read.
        if any(entry.paused or entry.cancel_requested for entry in call.entries):
            return CallOutcomes()
        service = call.batch.service
        call.handle = workflow.start_activity(
            CALL_HANDLERS,
            call.batch,
            result_type=CallOutcomes,
            task_queue=handler_queue(service),
            summary=f"{service}: {counted(len(call.entries), 'call')}",
            **CALL_OPTIONS,
        )
        return await call.handle


class _Returned(NamedTuple):
    """Entries that were not called, and when they are called again."""

    entries: list[Entry]
    #: Names of handlers that the process did not have.
    unknown: frozenset[str] = frozenset()
    #: Why they wait; empty: as before.
    reason: str = ""
    delay: float = RETURNED_DELAY


def _return(call: _Call, returned: _Returned) -> None:
    """Have entries due again without an attempt."""
    handlers = {(each.event_key, each.subscription_id): each.handler for each in call.batch.calls}
    for entry in returned.entries:
        if handlers[entry.event_key, entry.subscription_id] in returned.unknown:
            _hold(entry, UNKNOWN_HANDLER_DELAY, reason=UNKNOWN_HANDLER)
        else:
            _hold(entry, returned.delay, reason=returned.reason or entry.reason)


def _hold(entry: Entry, delay: float, *, reason: str) -> None:
    entry.in_flight = False
    entry.due = workflow.time() + delay
    entry.reason = reason


def _schedule(entries: Sequence[Entry]) -> tuple[float, ...]:
    return SCHEDULES[entries[0].channel]


def _has_not_started(error: ActivityError) -> bool:
    cause = error.cause
    return isinstance(cause, TemporalTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START
