"""Group commit: joins concurrent `publish` calls into publications, as a database joins transactions into one write."""

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bellwire import contract
from bellwire.errors import EventConflict, RegistryUnavailable, TemporalUnavailable
from bellwire.events import Event
from bellwire.receipts import KnownEvent, Receipt
from bellwire.temporal.publications import Publication, encoded_size

#: Starts in flight at a time. More make smaller publications, and a workflow costs far more than the events that it carries.
MAX_STARTS = 1
#: After a start, the next one waits for this many times as long as the start took, and at most MAX_PAUSE seconds. So events that
#: come singly, at a rate that Temporal and the workers cannot keep up with, go together, and more of them the busier Temporal is.
PAUSE, MAX_PAUSE = 6.0, 0.06


#: Finds those of some events that were published before, by event key.
Lookup = Callable[[Sequence[Event]], Awaitable[Mapping[str, KnownEvent]]]


@dataclass(eq=False, slots=True)
class _Call:
    """A call of `publish` that waits for its receipt."""

    event: Event
    size: int
    receipt: asyncio.Future[Receipt]
    caller: asyncio.Task[object] | None


class GroupCommit:
    """A call starts a workflow at once, unless `max_starts` starts are in flight, or another task's call was answered just now.
    The events of calls that arrive meanwhile go together with the next start, oldest first, up to MAX_EVENTS and
    MAX_PUBLICATION_BYTES. So sparse traffic is published without delay, one event per workflow, and a task that publishes one
    event after another never waits for more than its own starts.
    """

    def __init__(
        self,
        start: Callable[[Publication], Awaitable[bool]],
        *,
        max_starts: int = MAX_STARTS,
        lookup: Lookup | None = None,
    ) -> None:
        """`start` starts the workflow of a publication and returns whether it was started before. With `lookup`, events that
        were published before are not published again, and each receipt tells whether its event was."""
        self._start = start
        self._lookup = lookup
        self._max_starts = max_starts
        self._waiting: deque[_Call] = deque()
        #: When the pause after the last start ends, by the event loop's clock, and the tasks whose calls that start answered.
        self._pause_ends = 0.0
        self._answered = weakref.WeakSet[asyncio.Task[object]]()
        self._timer: asyncio.TimerHandle | None = None
        # The event loop keeps only weak references to tasks.
        self._starts: set[asyncio.Task[None]] = set()

    async def publish(self, event: Event) -> Receipt:
        """Return the receipt once the event is durable. A cancelled call does not take its event back.

        Raises what `start` raises for this event; an error of another event that goes with it is raised for that one only.
        """
        caller = asyncio.current_task()
        call = _Call(event, encoded_size(event), asyncio.get_running_loop().create_future(), caller)
        self._waiting.append(call)
        self._plan(at_once=caller in self._answered or len(self._waiting) >= contract.MAX_EVENTS)
        return await call.receipt

    async def find(self, event: Event) -> Receipt | None:
        """The receipt of an event that was published before, as far as `lookup` knows. Raises EventConflict."""
        try:
            stored = (await self._lookup([event])).get(event.key) if self._lookup else None
        except RegistryUnavailable:
            return None
        return None if stored is None else _receipt_of_known(event, stored)

    def _plan(self, *, at_once: bool = False) -> None:
        """Start what waits when the pause ends, or in the event loop's next turn, with what else is called in this one."""
        if self._timer is not None:
            if not at_once:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() if at_once else self._pause_ends, self._start_next)

    def _start_next(self) -> None:
        self._timer = None
        while self._waiting and len(self._starts) < self._max_starts:
            task = asyncio.create_task(self._commit(self._next_group()))
            self._starts.add(task)
            task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        if self._waiting:
            self._plan(at_once=len(self._waiting) >= contract.MAX_EVENTS)

    def _next_group(self) -> list[_Call]:
        """The oldest calls that fit into one publication; an event that waits twice goes once at a time."""
        group, keys, size = list[_Call](), set[str](), 0
        while self._waiting and len(group) < contract.MAX_EVENTS:
            call = self._waiting[0]
            if group and (size + call.size > contract.MAX_PUBLICATION_BYTES or call.event.key in keys):
                break
            group.append(self._waiting.popleft())
            keys.add(call.event.key)
            size += call.size
        return group

    async def _unknown(self, group: list[_Call], lookup: Lookup) -> list[_Call]:
        """Answer the calls whose events were published before; return the others."""
        try:
            known = await lookup([call.event for call in group])
        except RegistryUnavailable:
            return group  # what is published twice is recognised when it is stored
        others = []
        for call in group:
            if (stored := known.get(call.event.key)) is None:
                others.append(call)
            elif not call.receipt.done():
                try:
                    call.receipt.set_result(_receipt_of_known(call.event, stored))
                except EventConflict as error:
                    call.receipt.set_exception(error)
        return others

    async def _commit(self, group: list[_Call]) -> None:
        """Answer the calls whose events are known, and start one workflow for the others.

        If Temporal refuses it, start one for each event.
        """
        if self._lookup and not (group := await self._unknown(group, self._lookup)):
            return
        publication = Publication(events=tuple(call.event for call in group))
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            duplicate = await self._start(publication)
        except BaseException as error:
            if len(group) > 1 and _may_be_of_one_event(error):
                for call in group:
                    await self._commit([call])
                return
            for call in group:
                _fail(call, error)
            if not isinstance(error, Exception):
                raise
            return
        ended = loop.time()
        self._pause_ends = ended + min(MAX_PAUSE, PAUSE * (ended - began))
        self._answered = weakref.WeakSet(call.caller for call in group if call.caller)
        for call in group:
            if not call.receipt.done():
                # Which events of a group were published before is known when the workflow stores them.
                known = duplicate if duplicate or self._lookup or len(group) == 1 else None
                call.receipt.set_result(_receipt(call.event, publication.workflow_id, duplicate=known))


def _may_be_of_one_event(error: BaseException) -> bool:
    """Whether the same events may be accepted one by one. While Temporal is away, trying would only take longer."""
    return isinstance(error, Exception) and not isinstance(error, TemporalUnavailable)


def _fail(call: _Call, error: BaseException) -> None:
    if call.receipt.done():
        return
    if isinstance(error, Exception):
        call.receipt.set_exception(error)
    else:
        call.receipt.cancel()


def _receipt_of_known(event: Event, stored: KnownEvent) -> Receipt:
    """The receipt of an event that was published before. Raises EventConflict if that one had other content."""
    if stored.digest != event.digest:
        raise EventConflict(
            f"event {event.id} of {event.source} was published before with other content, by {stored.workflow_id}; "
            "give the new event an id of its own"
        )
    return _receipt(event, stored.workflow_id, duplicate=True)


def _receipt(event: Event, workflow_id: str, *, duplicate: bool | None) -> Receipt:
    return Receipt(source=event.source, event_id=event.id, workflow_id=workflow_id, duplicate=duplicate)
