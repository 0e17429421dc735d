"""Slots: how much of each kind of work a process takes from the server at a time.

What waits should wait on the server, which hands it out fairly to all tenants and to whoever is free, and not in a process,
where the first to come is the first to be served. So a process takes no more than keeps it busy. What waits for receivers keeps
nobody busy.
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

#: Workflow tasks that keep a process busy, and most of all that it has, those that wait for receivers among them.
BUSY, MAX_BUSY = 1, 200
#: Seconds between two looks at whether a slot may be granted.
LOOK_SECONDS = 0.002
#: Seconds after which a process is idle that has used less than this share of them as processor time: it waits for a server
#: or a registry that is far away, and can do more meanwhile.
IDLE_SECONDS, IDLE_SHARE = 0.02, 0.5
#: Seconds by which the event loop of a process that keeps up may come round late, and send activities that one takes though
#: it does not keep up, so that each queue goes on.
LATE_SECONDS, FEW = 0.01, 4


class _Slots(CustomSlotSupplier):
    """Knows which slots are granted, and which of them are in use: those that a poll has brought a task for.

    A sticky poll brings only what comes after a run's first task, and its slot counts from then on.
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
    """For workflow tasks, BUSY at a time, and more if they leave the process idle; `waiting` tells how many of those in use
    wait for receivers, and do not count.

    What a poll may bring at any moment counts as well, but for a sticky poll: that one is held all the time.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        super().__init__()
        self._waiting = waiting

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        since, used = time.monotonic(), time.process_time()
        permit = self.try_reserve_slot(ctx)
        while permit is None:
            await asyncio.sleep(LOOK_SECONDS)
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
    """For send activities, up to `most`, while the process keeps up: its event loop comes round in time.

    How many of them keep it busy depends on the receivers: a few if they answer at once, hundreds if they hang.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        #: One poll looks at a time, or all of them would find the process idle at once.
        self._asking = asyncio.Lock()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        async with self._asking:
            while True:
                due = time.monotonic() + LOOK_SECONDS
                await asyncio.sleep(LOOK_SECONDS)
                late = time.monotonic() - due
                if len(self.granted) < self._most and (late < LATE_SECONDS or len(self.used) < FEW):
                    return self.grant(ctx)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - Temporal's signature
        """None: no workflow is run on the queues of the channels, so that nobody asks."""
        return None


def tuner(*, workflows: BusySlots | None = None, activities: SendSlots | None = None) -> WorkerTuner:
    """How much a worker takes of what it polls for; local activities as many as there are workflow tasks."""
    none = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=workflows or none,
        activity_supplier=activities or none,
        local_activity_supplier=FixedSizeSlotSupplier(MAX_BUSY) if workflows else none,
        nexus_supplier=none,
    )
