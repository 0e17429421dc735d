"""How many workflow tasks a process takes: what keeps it busy, not what waits, and not what a poll merely holds."""

import asyncio
from typing import Any, cast

from temporalio.worker import SlotMarkUsedContext, SlotPermit, SlotReleaseContext, SlotReserveContext

from activities import slots
from activities.slots import BUSY, MOST, BusySlots

ASKING = cast("SlotReserveContext", None)


class Given:
    """What Temporal says of a permit."""

    def __init__(self, permit: SlotPermit) -> None:
        self.permit = permit


def use(supplier: BusySlots, permit: SlotPermit) -> SlotPermit:
    supplier.mark_slot_used(cast("SlotMarkUsedContext", Given(permit)))
    return permit


def release(supplier: BusySlots, permit: SlotPermit) -> None:
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
    supplier = BusySlots(lambda: MOST)
    for _ in range(MOST):
        use(supplier, granted(supplier))
    assert supplier.try_reserve_slot(ASKING) is None


def test_polls_that_nothing_came_for_keep_nobody_away() -> None:
    supplier = BusySlots(lambda: 0)
    held = [granted(supplier) for _ in range(3 * BUSY)]
    release(supplier, held.pop())
    use(supplier, granted(supplier))


async def test_who_asks_while_all_are_busy_gets_the_next_that_is_free(monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "LOOK_SECONDS", 0.001)
    supplier = BusySlots(lambda: 0)
    used = [use(supplier, await supplier.reserve_slot(ASKING)) for _ in range(BUSY)]
    asking = asyncio.create_task(supplier.reserve_slot(ASKING))
    await asyncio.sleep(0.01)
    assert not asking.done()
    release(supplier, used[0])
    await asyncio.wait_for(asking, 5)
