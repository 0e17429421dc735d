"""Slots: a process takes as many tasks as keep it busy; waiting tasks do not count."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

from bellwire.service import slots
from bellwire.service.slots import (
    BUSY,
    LATE_SECONDS,
    MAX_BUSY,
    MIN_ACTIVITIES,
    BusySlots,
    SendSlots,
)


class Poll:
    """The context of a poll."""

    def __init__(self, *, is_sticky: bool) -> None:
        self.is_sticky = is_sticky


POLL = cast("SlotReserveContext", Poll(is_sticky=False))
STICKY = cast("SlotReserveContext", Poll(is_sticky=True))


class Permitted:
    """The context of a permit."""

    def __init__(self, permit: SlotPermit) -> None:
        self.permit = permit


def use(supplier: CustomSlotSupplier, permit: SlotPermit) -> SlotPermit:
    supplier.mark_slot_used(cast("SlotMarkUsedContext", Permitted(permit)))
    return permit


def release(supplier: CustomSlotSupplier, permit: SlotPermit) -> None:
    supplier.release_slot(cast("SlotReleaseContext", Permitted(permit)))


def granted(supplier: BusySlots) -> SlotPermit:
    permit = supplier.try_reserve_slot(POLL)
    assert permit is not None
    return permit


def test_a_process_takes_as_many_tasks_as_keep_it_busy() -> None:
    supplier = BusySlots(lambda: 0)
    used = [use(supplier, granted(supplier)) for _ in range(BUSY)]
    assert supplier.try_reserve_slot(POLL) is None
    release(supplier, used[0])
    granted(supplier)


def test_tasks_that_wait_for_receivers_do_not_count() -> None:
    waiting = 0
    supplier = BusySlots(lambda: waiting)
    for _ in range(BUSY):
        use(supplier, granted(supplier))
    waiting = 2
    for _ in range(2):
        use(supplier, granted(supplier))
    assert supplier.try_reserve_slot(POLL) is None


def test_the_number_of_all_tasks_is_limited() -> None:
    supplier = BusySlots(lambda: MAX_BUSY)
    for _ in range(MAX_BUSY):
        use(supplier, granted(supplier))
    assert supplier.try_reserve_slot(POLL) is None


def test_granted_slots_count() -> None:
    supplier = BusySlots(lambda: 0)
    held = [granted(supplier) for _ in range(BUSY)]
    assert supplier.try_reserve_slot(POLL) is None
    release(supplier, held.pop())
    granted(supplier)


def test_slots_of_sticky_polls_count_once_they_are_used() -> None:
    supplier = BusySlots(lambda: 0)
    held = [supplier.try_reserve_slot(STICKY) for _ in range(3 * BUSY)]
    release(supplier, granted(supplier))
    for permit in held[:BUSY]:
        use(supplier, cast("SlotPermit", permit))
    assert supplier.try_reserve_slot(POLL) is None


async def test_a_poll_gets_the_next_free_slot(monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "IDLE_SHARE", -1.0)
    supplier = BusySlots(lambda: 0)
    used = [use(supplier, await supplier.reserve_slot(POLL)) for _ in range(BUSY)]
    polling = asyncio.create_task(supplier.reserve_slot(POLL))
    await asyncio.sleep(0.1)
    assert not polling.done()
    release(supplier, used[0])
    await asyncio.wait_for(polling, 60)


async def test_an_idle_process_takes_more_workflow_tasks() -> None:
    supplier = BusySlots(lambda: 0)
    for _ in range(BUSY + 2):
        use(supplier, await asyncio.wait_for(supplier.reserve_slot(POLL), 60))


async def test_a_computing_process_takes_no_more_workflow_tasks(monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "IDLE_SHARE", 0.05)  # on a busy machine a process gets only a share of the CPU
    supplier = BusySlots(lambda: 0)
    for _ in range(BUSY):
        use(supplier, granted(supplier))
    computing = asyncio.create_task(compute())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(supplier.reserve_slot(POLL), 0.5)
    computing.cancel()


async def compute() -> None:
    while True:
        until = time.process_time() + 0.005
        while time.process_time() < until:
            pass
        await asyncio.sleep(0)


@asynccontextmanager
async def late_loop() -> AsyncIterator[None]:
    async def hog() -> None:
        while True:
            time.sleep(3 * LATE_SECONDS)  # noqa: ASYNC251 - blocks the loop on purpose
            await asyncio.sleep(0)

    hogging = asyncio.create_task(hog())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        hogging.cancel()


async def taken(supplier: SendSlots, within: float) -> SlotPermit | None:
    """The slot of a poll that receives a task at once; None if it gets no slot within this many seconds."""
    try:
        return use(supplier, await asyncio.wait_for(supplier.reserve_slot(POLL), within))
    except TimeoutError:
        return None


async def test_a_process_that_keeps_up_takes_send_activities_up_to_the_maximum() -> None:
    supplier, maximum = SendSlots(MIN_ACTIVITIES + 3), MIN_ACTIVITIES + 3
    used = [await taken(supplier, 60) for _ in range(maximum)]
    assert all(used)
    assert await taken(supplier, 0.1) is None
    release(supplier, cast("SlotPermit", used[0]))
    assert await taken(supplier, 60)


async def test_a_process_that_does_not_keep_up_takes_only_a_few_send_activities() -> None:
    supplier = SendSlots(200)
    async with late_loop():
        used = [await taken(supplier, 60) for _ in range(MIN_ACTIVITIES)]
        assert all(used)
        assert await taken(supplier, 0.5) is None
        release(supplier, cast("SlotPermit", used[0]))
        assert await taken(supplier, 60)
    assert await taken(supplier, 60), "it keeps up again"


async def test_granted_slots_of_send_activities_count() -> None:
    supplier = SendSlots(2)
    held = [await asyncio.wait_for(supplier.reserve_slot(POLL), 60) for _ in range(2)]
    assert await taken(supplier, 0.1) is None
    release(supplier, held[0])
    assert await taken(supplier, 60)


async def test_a_cancelled_poll_does_not_block_others() -> None:
    supplier = SendSlots(1)
    held = await asyncio.wait_for(supplier.reserve_slot(POLL), 60)
    waiting = [asyncio.create_task(supplier.reserve_slot(POLL)) for _ in range(2)]
    await asyncio.sleep(0.02)
    waiting[0].cancel()
    release(supplier, held)
    assert await asyncio.wait_for(waiting[1], 60)


def test_send_slots_are_granted_only_to_polls() -> None:
    assert SendSlots(1).try_reserve_slot(POLL) is None
