"""Slots: how many tasks of each kind a worker process takes from the server at a time.

Tasks should wait on the server, which dispatches them fairly across tenants and to any free process, and not in a process,
which runs them in the order they came. So a process takes only as many as keep it busy. Tasks that wait for receivers do not
keep it busy.
"""

import asyncio
import time
from collections.abc import Callable

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

#: Workflow tasks that keep a process busy, and the maximum of all it has, including those that wait for receivers.
BUSY, MAX_BUSY = 1, 200
#: Activities that wait for an event, of which each has few seconds, and Nexus operations, in a worker of workflows.
MAX_FOLLOWING, MAX_OPERATIONS = 200, 50
#: Seconds between two checks whether a slot may be granted.
CHECK_SECONDS = 0.002
#: A process is idle if its share of CPU time over this many seconds is below this: it waits for a remote server or registry
#: and can run more tasks meanwhile.
IDLE_SECONDS, IDLE_SHARE = 0.02, 0.5
#: A process keeps up if its event loop is at most this many seconds late. One that does not keep up still takes MIN_ACTIVITIES
#: send activities, so that no queue stops.
LATE_SECONDS, MIN_ACTIVITIES = 0.01, 4


class _Slots(CustomSlotSupplier):
    """Tracks which slots are granted, and which are used: those that a poll has received a task for.

    Sticky polls receive only later tasks of a workflow, so their slots count only once they are used.
    """

    def __init__(self) -> None:
        self.granted: set[SlotPermit] = set()
        self.used: set[SlotPermit] = set()

    def grant(self, ctx: SlotReserveContext) -> SlotPermit:
        permit = SlotPermit()
        if not ctx.is_sticky:
            self.granted.add(permit)
        return permit

    # Temporal's threads call these two.

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        self.used.add(ctx.permit)

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        self.used.discard(ctx.permit)
        self.granted.discard(ctx.permit)


class BusySlots(_Slots):
    """Slots for workflow tasks: BUSY at a time, and more while the process is idle.

    `waiting` returns how many used slots wait for receivers; they do not count. Granted slots count, since a poll may receive a
    task at any time, except those of sticky polls, which are always granted.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        super().__init__()
        self._waiting = waiting

    @property
    def busy(self) -> bool:
        """Whether a workflow task runs that does not wait for a receiver."""
        return bool(self.used) and len(self.used) > self._waiting()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        since, used = time.monotonic(), time.process_time()
        permit = self.try_reserve_slot(ctx)
        while permit is None:
            await asyncio.sleep(CHECK_SECONDS)
            permit = self.try_reserve_slot(ctx)
            if permit is None and (elapsed := time.monotonic() - since) >= IDLE_SECONDS:
                share = (time.process_time() - used) / elapsed
                since, used = time.monotonic(), time.process_time()
                if share < IDLE_SHARE and len(self.granted) < MAX_BUSY:
                    permit = self.grant(ctx)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        taken = len(self.used if ctx.is_sticky else self.used | self.granted)
        return self.grant(ctx) if taken < MAX_BUSY and taken - self._waiting() < BUSY else None


class SendSlots(_Slots):
    """Slots for send activities: up to `max_activities` while the process keeps up.

    How many keep it busy depends on the receivers: a few if they respond at once, hundreds if they hang.
    """

    def __init__(self, max_activities: int) -> None:
        super().__init__()
        self._max_activities = max_activities
        #: One poll checks at a time. Otherwise all would find the process idle at the same time.
        self._checking = asyncio.Lock()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        async with self._checking:
            while True:
                due = time.monotonic() + CHECK_SECONDS
                await asyncio.sleep(CHECK_SECONDS)
                late = time.monotonic() - due
                keeps_up = late < LATE_SECONDS or len(self.used) < MIN_ACTIVITIES
                if len(self.granted) < self._max_activities and keeps_up:
                    return self.grant(ctx)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - Temporal's signature
        """Return None. Only workflows request slots this way, and the channels' queues have none."""
        return None


def tuner(*, workflows: BusySlots | None = None, activities: SendSlots | None = None) -> WorkerTuner:
    """Return the tuner of a worker. Local activities have as many slots as workflow tasks.

    The worker of workflows has slots for the activities that follow events, and for Nexus operations.
    """
    none = FixedSizeSlotSupplier(1)
    following = FixedSizeSlotSupplier(MAX_FOLLOWING) if workflows else none
    return WorkerTuner.create_composite(
        workflow_supplier=workflows or none,
        activity_supplier=activities or following,
        local_activity_supplier=FixedSizeSlotSupplier(MAX_BUSY) if workflows else none,
        nexus_supplier=FixedSizeSlotSupplier(MAX_OPERATIONS) if workflows else none,
    )
