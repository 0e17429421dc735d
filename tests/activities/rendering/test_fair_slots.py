"""Slots are shared fairly among tenants."""

import asyncio

from activities.rendering.fair_slots import FairSlots


async def ran_until_it_waits(task: asyncio.Task[None]) -> bool:
    """Let everything run that can run. True if the task has ended."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


def acquiring(slots: FairSlots, tenant: str) -> asyncio.Task[None]:
    return asyncio.create_task(slots.acquire(tenant))


async def test_one_tenant_has_at_most_half_of_the_slots() -> None:
    slots = FairSlots(4)
    first, second, third = (acquiring(slots, "loud") for _ in range(3))
    assert not await ran_until_it_waits(third)
    assert first.done()
    assert second.done()
    assert await ran_until_it_waits(acquiring(slots, "quiet"))
    slots.release("loud")
    assert await ran_until_it_waits(third)


async def test_slow_tenants_share_half_of_the_slots() -> None:
    slots = FairSlots(2)
    for tenant in ("slow", "also slow"):
        slots.mark_slow(tenant)
    assert await ran_until_it_waits(acquiring(slots, "slow"))
    waiting = acquiring(slots, "also slow")
    assert not await ran_until_it_waits(waiting)
    assert await ran_until_it_waits(acquiring(slots, "quiet"))
    slots.release("quiet")
    assert not await ran_until_it_waits(waiting)
    slots.release("slow")
    assert await ran_until_it_waits(waiting)


async def test_tenants_that_wait_get_slots_in_turn() -> None:
    slots, order = FairSlots(1), []

    async def work(tenant: str) -> None:
        await slots.acquire(tenant)
        order.append(tenant)
        slots.release(tenant)

    await slots.acquire("first")
    tasks = [asyncio.create_task(work(tenant)) for tenant in ("loud", "loud", "loud", "a", "b")]
    await ran_until_it_waits(tasks[0])
    slots.release("first")
    await asyncio.gather(*tasks)
    assert order == ["loud", "a", "b", "loud", "loud"]


async def test_a_cancelled_wait_loses_no_slot() -> None:
    slots = FairSlots(1)
    await slots.acquire("a")
    before, given = acquiring(slots, "b"), acquiring(slots, "c")
    await ran_until_it_waits(before)
    before.cancel()
    assert await ran_until_it_waits(before)
    slots.release("a")  # to c, which is cancelled before it learns of it
    given.cancel()
    assert await ran_until_it_waits(given)
    assert await ran_until_it_waits(acquiring(slots, "d"))


async def test_a_request_that_is_cancelled_as_a_slot_is_returned_takes_none() -> None:
    slots = FairSlots(1)
    await slots.acquire("first")
    cancelled, waiting = acquiring(slots, "second"), acquiring(slots, "third")
    assert not await ran_until_it_waits(cancelled)
    cancelled.cancel()
    slots.release("first")
    assert await ran_until_it_waits(waiting)
    slots.release("third")
    assert await ran_until_it_waits(acquiring(slots, "second"))
