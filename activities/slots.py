"""Slots: how many workflow tasks a process works on at a time.

What waits should wait on the server, which hands it out fairly to all tenants, and not in a process, where the first to come is
the first to be served. So a process takes no more than keeps it busy. A task that waits for receivers keeps nobody busy.
"""

import asyncio
from collections.abc import Callable

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

#: Workflow tasks that are worked on, and those together with the ones that wait.
BUSY, MOST = 2, 200
#: Seconds between two looks at whether a slot is free.
LOOK_SECONDS = 0.005


class BusySlots(CustomSlotSupplier):
    """Grants slots while fewer than BUSY are worked on; `waiting` tells how many of those in use are not.

    A slot that a poll holds, since nothing has come yet, does not count: polls of one queue would keep those of another away.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._waiting = waiting
        self._used: set[SlotPermit] = set()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        permit = self.try_reserve_slot(ctx)
        while permit is None:
            await asyncio.sleep(LOOK_SECONDS)
            permit = self.try_reserve_slot(ctx)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - Temporal's signature
        used = len(self._used)
        return SlotPermit() if used < MOST and used - self._waiting() < BUSY else None

    # Temporal's threads call these two.

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        self._used.add(ctx.permit)

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        self._used.discard(ctx.permit)
