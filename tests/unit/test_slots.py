"""How much a process takes: what keeps it busy, and not what waits."""

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
    FEW,
    LATE_SECONDS,
    MAX_BUSY,
    BusySlots,
    SendSlots,
)


class Asking:
    """What Temporal says of a poll."""

    def __init__(self, *, is_sticky: bool) -> None:
        self.is_sticky = is_sticky


ASKING = cast("SlotReserveContext", Asking(is_sticky=False))
STICKY = cast("SlotReserveContext", Asking(is_sticky=True))


class Given:
    """What Temporal says of a permit."""

    def __init__(self, permit: SlotPermit) -> None:
        self.permit = permit


def use(supplier: CustomSlotSupplier, permit: SlotPermit) -> SlotPermit:
    supplier.mark_slot_used(cast("SlotMarkUsedContext", Given(permit)))
    return permit


def release(supplier: CustomSlotSupplier, permit: SlotPermit) -> None:
    supplier.release_slot(cast("SlotReleaseContext", Given(permit)))


def granted(supplier: BusySlots) -> SlotPermit:
    permit = supplier.try_reserve_slot(ASKING)
    assert permit is not None
    return permit


def test_no_more_are_worked_on_than_keep_it_busy() -> None:
    supplier = BusySlots(lambda: 0)
    used = [use(supplier, granted(supplier)) for _ in range(BUSY)]
    assert supplier.try_reserve_slot(ASKING) is None
    release(supplier, used[0])
    granted(supplier)


def test_what_waits_for_receivers_makes_room_for_others() -> None:
    waiting = 0
    supplier = BusySlots(lambda: waiting)
    for _ in range(BUSY):
        use(supplier, granted(supplier))
    waiting = 2
    for _ in range(2):
        use(supplier, granted(supplier))
    assert supplier.try_reserve_slot(ASKING) is None


def test_there_is_an_end_to_what_waits() -> None:
    supplier = BusySlots(lambda: MAX_BUSY)
    for _ in range(MAX_BUSY):
        use(supplier, granted(supplier))
    assert supplier.try_reserve_slot(ASKING) is None


def test_what_a_poll_may_bring_counts() -> None:
    supplier = BusySlots(lambda: 0)
    held = [granted(supplier) for _ in range(BUSY)]
    assert supplier.try_reserve_slot(ASKING) is None
    release(supplier, held.pop())
    granted(supplier)


def test_a_sticky_poll_keeps_nobody_away_until_it_brings_something() -> None:
    supplier = BusySlots(lambda: 0)
    held = [supplier.try_reserve_slot(STICKY) for _ in range(3 * BUSY)]
    release(supplier, granted(supplier))
    for permit in held[:BUSY]:
        use(supplier, cast("SlotPermit", permit))
    assert supplier.try_reserve_slot(ASKING) is None


async def test_who_asks_while_all_are_busy_gets_the_next_that_is_free(monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "IDLE_SHARE", -1.0)
    supplier = BusySlots(lambda: 0)
    used = [use(supplier, await supplier.reserve_slot(ASKING)) for _ in range(BUSY)]
    asking = asyncio.create_task(supplier.reserve_slot(ASKING))
    await asyncio.sleep(0.1)
    assert not asking.done()
    release(supplier, used[0])
    await asyncio.wait_for(asking, 5)


async def test_a_process_that_only_waits_takes_more_workflow_tasks() -> None:
    supplier = BusySlots(lambda: 0)
    for _ in range(BUSY + 2):
        use(supplier, await asyncio.wait_for(supplier.reserve_slot(ASKING), 10))


async def test_one_that_computes_does_not(monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "IDLE_SHARE", 0.05)  # on a busy machine it does not get more than a share
    supplier = BusySlots(lambda: 0)
    for _ in range(BUSY):
        use(supplier, granted(supplier))
    computing = asyncio.create_task(compute())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(supplier.reserve_slot(ASKING), 0.5)
    computing.cancel()


async def compute() -> None:
    while True:
        until = time.process_time() + 0.005
        while time.process_time() < until:
            pass
        await asyncio.sleep(0)


@asynccontextmanager
async def a_loop_that_is_late() -> AsyncIterator[None]:
    async def hog() -> None:
        while True:
            time.sleep(3 * LATE_SECONDS)  # noqa: ASYNC251 - what others must not do
            await asyncio.sleep(0)

    hogging = asyncio.create_task(hog())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        hogging.cancel()


async def taken(supplier: SendSlots, within: float) -> SlotPermit | None:
    """What a poll that brings something at once takes; None if it gets no slot within so many seconds."""
    try:
        return use(supplier, await asyncio.wait_for(supplier.reserve_slot(ASKING), within))
    except TimeoutError:
        return None


async def test_a_process_that_keeps_up_takes_send_activities_up_to_its_bound() -> None:
    supplier, bound = SendSlots(FEW + 3), FEW + 3
    used = [await taken(supplier, 10) for _ in range(bound)]
    assert all(used)
    assert await taken(supplier, 0.1) is None
    release(supplier, cast("SlotPermit", used[0]))
    assert await taken(supplier, 10)


async def test_one_that_does_not_keep_up_leaves_send_activities_to_others_but_for_a_few() -> None:
    supplier = SendSlots(200)
    async with a_loop_that_is_late():
        used = [await taken(supplier, 10) for _ in range(FEW)]
        assert all(used)
        assert await taken(supplier, 0.5) is None
        release(supplier, cast("SlotPermit", used[0]))
        assert await taken(supplier, 10)
    assert await taken(supplier, 10), "it keeps up again"


async def test_a_send_activity_that_a_poll_may_bring_counts() -> None:
    supplier = SendSlots(2)
    held = [await asyncio.wait_for(supplier.reserve_slot(ASKING), 10) for _ in range(2)]
    assert await taken(supplier, 0.1) is None
    release(supplier, held[0])
    assert await taken(supplier, 10)


async def test_a_poll_that_gives_up_keeps_no_other_from_asking() -> None:
    supplier = SendSlots(1)
    held = await asyncio.wait_for(supplier.reserve_slot(ASKING), 10)
    waiting = [asyncio.create_task(supplier.reserve_slot(ASKING)) for _ in range(2)]
    await asyncio.sleep(0.02)
    waiting[0].cancel()
    release(supplier, held)
    assert await asyncio.wait_for(waiting[1], 10)


def test_nobody_is_given_send_activities_that_were_not_polled_for() -> None:
    assert SendSlots(1).try_reserve_slot(ASKING) is None
