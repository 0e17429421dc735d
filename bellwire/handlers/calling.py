"""Caller: the activity of a service that calls the functions of its handlers.

It reads nothing but its input. What ended is in its heartbeats too, so that after a crash only what had not ended is called
again: one call at a time, and the server knows which one runs. If the process ends once more, that call is known to be the
cause, and counts as an attempt that failed. A process that ends gracefully says so, and nothing counts.
"""

import asyncio
import contextvars
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import (
    CALL_HANDLERS,
    BegunCall,
    CallOutcome,
    CallOutcomes,
    HandlerCall,
    HandlerCalls,
    heartbeat_in,
)
from bellwire.deliveries import OutcomeKind, delivery_id
from bellwire.events import Event
from bellwire.handlers.declared import Handler
from bellwire.handlers.outcomes import DONE, PROCESS_ENDED, CurrentDelivery, Result, current, result_of

_logger = logging.getLogger("bellwire.handlers")

#: Seconds between two heartbeats. A process counts as dead after 15 s without one.
HEARTBEAT_SECONDS = 1.0
#: Of a heartbeat that must arrive before a call begins.
HEARTBEAT_TIMEOUT = timedelta(seconds=5)
#: Seconds after which an activity begins no more calls and hands the rest back.
MAX_SECONDS = 300.0

#: Identifies a call: event, subscription, attempt.
_Key = tuple[str, str, int]
#: Tells the server that a call begins now. Returns whether it may.
_TellServer = Callable[[BegunCall], Awaitable[bool]]


class Caller:
    """Calls the functions, each handler's up to its concurrency at a time. Functions that are not async run in `executor`."""

    def __init__(self, handlers: Iterable[Handler], executor: Executor) -> None:
        self._handlers = {handler.name: handler for handler in handlers}
        self._slots = {name: asyncio.Semaphore(handler.concurrency) for name, handler in self._handlers.items()}
        self._executor = executor
        #: Calls that run in this process. An activity that the server counts as lost may still run here.
        self._running: dict[_Key, asyncio.Task[CallOutcome]] = {}

    @activity.defn(name=CALL_HANDLERS)
    async def call_handlers(self, calls: HandlerCalls) -> CallOutcomes:
        """Call the handlers. Calls that were not made are missing in the result."""
        info = activity.info()
        before = heartbeat_in(info.heartbeat_details)  # of an earlier try, whose process ended
        outcomes = {(each.event_key, each.subscription_id): each for each in before.outcomes}
        if (lost := before.calling) and not any(_is_of(lost, running) for running in self._running):
            outcomes[lost.event_key, lost.subscription_id] = _lost(lost)
        due = [call for call in calls.calls if (call.event_key, call.subscription_id) not in outcomes]
        unknown = {call.handler for call in due if call.handler not in self._handlers}
        known = [call for call in due if call.handler in self._handlers]
        batch = _Batch(self, known, calls.events, outcomes.values(), one_by_one=info.attempt > 1)
        return CallOutcomes(outcomes=tuple(await batch.run()), unknown=tuple(sorted(unknown)))

    async def begin(
        self, call: HandlerCall, event: Event, tell_server: _TellServer | None = None
    ) -> "asyncio.Task[CallOutcome]":
        """Wait for a slot of the handler, and begin the call; or return the one that runs already."""
        key = (call.event_key, call.subscription_id, call.attempt)
        if running := self._running.get(key):
            return running
        slots = self._slots[call.handler]
        await slots.acquire()
        if running := self._running.get(key):
            slots.release()
            return running
        task = asyncio.create_task(self._call(call, event, slots, tell_server))
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))
        return task

    async def _call(
        self, call: HandlerCall, event: Event, slots: asyncio.Semaphore, tell_server: _TellServer | None
    ) -> CallOutcome:
        handler, started_at, start = self._handlers[call.handler], datetime.now(UTC), time.monotonic()
        current.set(CurrentDelivery(delivery_id(call.event_key, call.subscription_id), call.attempt))
        held = _Slot(slots)
        begun = BegunCall(event_key=call.event_key, subscription_id=call.subscription_id, started_at=started_at)
        try:
            if tell_server and not await tell_server(begun):
                raise asyncio.CancelledError  # the call is handed back
            result = await self._result(handler, event, held)
        finally:
            held.release()
        duration = time.monotonic() - start
        level = logging.INFO if result.kind is OutcomeKind.DELIVERED else logging.WARNING
        _logger.log(
            level,
            "%s called for %s: %s (%s)",
            call.handler,
            event.type,
            result.kind,
            result.reason,
            extra={"delivery": delivery_id(call.event_key, call.subscription_id), "attempt": call.attempt},
        )
        return CallOutcome(
            event_key=call.event_key,
            subscription_id=call.subscription_id,
            kind=result.kind,
            reason=result.reason,
            retry_after=result.retry_after,
            started_at=started_at,
            duration=duration,
        )

    async def _result(self, handler: Handler, event: Event, held: "_Slot") -> Result:
        deadline = asyncio.timeout(handler.timeout)
        try:
            async with deadline:
                if handler.is_async:
                    await handler.function(event)  # type: ignore[misc]
                else:
                    await self._in_thread(handler, event, held)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise  # the process ends; the call is made again
            return result_of(error)
        except TimeoutError as error:
            if not deadline.expired():
                return result_of(error)
            seconds = handler.timeout
            return Result(OutcomeKind.DEFERRED, reason=f"timed out after {seconds:g} s")
        except (Exception, SystemExit) as error:
            _logger.debug("%s raised", handler.name, exc_info=error)
            return result_of(error)
        return DONE

    async def _in_thread(self, handler: Handler, event: Event, held: "_Slot") -> None:
        context = contextvars.copy_context()
        # In a task, since a SystemExit in a thread must not end the process.
        future = asyncio.get_running_loop().run_in_executor(self._executor, context.run, _guarded, handler, event)
        held.until(future)
        outcome = await asyncio.shield(future)
        if isinstance(outcome, BaseException):
            raise outcome


class _Slot:
    """A slot of a handler. A thread cannot be stopped, so it is held until the thread ends, whatever the timeout says."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._future: asyncio.Future[Any] | None = None

    def until(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def release(self) -> None:
        if self._future is None or self._future.done():
            self._slots.release()
        else:
            self._future.add_done_callback(lambda _: self._slots.release())


class _Batch:
    """The calls of one activity."""

    def __init__(
        self,
        caller: Caller,
        calls: Sequence[HandlerCall],
        events: dict[str, Event],
        outcomes: Iterable[CallOutcome],
        *,
        one_by_one: bool,
    ) -> None:
        """`one_by_one`: since a process ended during an earlier try, and one of these calls may be the cause."""
        self._caller, self._events = caller, events
        self._outcomes = list(outcomes)
        self._turns = asyncio.Lock() if one_by_one else None
        #: The call that has the turn, from when it begins.
        self._calling: BegunCall | None = None
        self._heartbeats = asyncio.Lock()
        self._begun = set[asyncio.Task[CallOutcome]]()
        self._tasks = {asyncio.create_task(self._one(call)) for call in calls}
        #: Those that wait for a slot.
        self._waiting = set(self._tasks)

    async def run(self) -> list[CallOutcome]:
        """Make the calls, or those that can be made before the activity has to end, and return the outcomes."""
        until = time.monotonic() + MAX_SECONDS
        pending = self._tasks
        while pending:
            try:
                _, pending = await asyncio.wait(pending, timeout=HEARTBEAT_SECONDS)
                await self._heartbeat()
            except asyncio.CancelledError:
                self._stop()
                details = activity.cancellation_details()
                if details is None or details.worker_shutdown:
                    self._abort()
            if activity.is_worker_shutdown() or time.monotonic() > until:
                self._stop()
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()):
                raise error
        return self._outcomes

    async def _one(self, call: HandlerCall) -> None:
        this = asyncio.current_task()
        with suppress(asyncio.CancelledError):
            # A copy: a function may change its event, and others get the same one.
            event = self._events[call.event_key].model_copy(deep=True)
            async with self._turns or nullcontext():
                try:
                    task = await self._caller.begin(call, event, self._tell_server if self._turns else None)
                    self._begun.add(task)
                    if this:
                        self._waiting.discard(this)
                    self._outcomes.append(await asyncio.shield(task))
                finally:
                    self._calling = None

    async def _tell_server(self, begun: BegunCall) -> bool:
        self._calling = begun
        return await self._heartbeat()

    async def _heartbeat(self) -> bool:
        """Send what has ended, and in turns what runs; return whether the server has it, and wants the calls to go on.

        The worker sends heartbeats later, and not all of them. In turns the server must know of a call before it begins, so these
        are sent from here too, one after the other.
        """
        async with self._heartbeats:
            details = CallOutcomes(outcomes=tuple(self._outcomes), calling=self._calling)
            activity.heartbeat(details)
            if not self._turns:
                return True
            handle = activity.client().get_async_activity_handle(task_token=activity.info().task_token)
            try:
                await handle.heartbeat(details, rpc_timeout=HEARTBEAT_TIMEOUT)
            except AsyncActivityCancelledError:
                self._stop()
                return False
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    self._stop()  # another try has begun, or the workflow has ended
                return False
            return True

    def _stop(self) -> None:
        """Begin no more calls."""
        for task in self._waiting:
            task.cancel()
        self._waiting.clear()

    def _abort(self) -> None:
        """End the calls that run. They are made again elsewhere."""
        for task in self._begun:
            task.cancel()


def _is_of(begun: BegunCall, key: _Key) -> bool:
    return (begun.event_key, begun.subscription_id) == key[:2]


def _lost(begun: BegunCall) -> CallOutcome:
    """The outcome of a call during which the process ended."""
    _logger.error("the process ended during a call: %s", delivery_id(begun.event_key, begun.subscription_id))
    return CallOutcome(
        event_key=begun.event_key,
        subscription_id=begun.subscription_id,
        kind=OutcomeKind.DEFERRED,
        reason=PROCESS_ENDED,
        started_at=begun.started_at,
        duration=max((datetime.now(UTC) - begun.started_at).total_seconds(), 0.0),
    )


def _guarded(handler: Handler, event: Event) -> BaseException | None:
    """Call the function in a thread. What it raises is returned, since a future takes no StopIteration."""
    try:
        returned = handler.function(event)
    except (Exception, SystemExit) as error:
        return error
    if inspect.iscoroutine(returned):
        returned.close()
        return TypeError("the function returned a coroutine; declare it with async def")
    return None
