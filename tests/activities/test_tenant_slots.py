"""Slots that tenants share: nobody takes the last ones, and what is given back goes to the tenant that holds the fewest."""

import asyncio

import pytest

from activities.tenant_slots import TenantSlots


def take_all(slots: TenantSlots, tenant: str) -> int:
    """The number of slots that the tenant gets at once."""
    number = 0
    while slots.try_acquire(tenant):
        number += 1
    return number


def waiting(slots: TenantSlots, tenant: str, order: list[str], name: str) -> asyncio.Task[None]:
    async def wait() -> None:
        await slots.acquire(tenant)
        order.append(name)

    return asyncio.create_task(wait())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_tenant_gets_at_most_its_share() -> None:
    slots = TenantSlots(100, per_tenant=8)
    assert take_all(slots, "evil") == 8
    assert take_all(slots, "other") == 8


def test_lone_tenant_gets_a_quarter_of_the_slots_and_others_as_much_as_is_left() -> None:
    slots = TenantSlots(200)
    assert [take_all(slots, f"tenant-{n}") for n in range(9)] == [50, 25, 13, 6, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("number", [1, 2, 16, 63, 70])
def test_tenant_without_slots_finds_one_however_many_others_take_all_that_they_may(number: int) -> None:
    slots = TenantSlots(128, per_tenant=8)
    for other in range(number):
        assert take_all(slots, f"evil-{other}") >= 1
    assert slots.try_acquire("good")


def test_lone_tenant_of_a_greedy_pool_leaves_a_fifth() -> None:
    slots = TenantSlots(50, greedy=True)
    assert take_all(slots, "one") == 40
    assert [take_all(slots, f"other-{n}") for n in range(11)] == [1] * 10 + [0]
    assert take_all(TenantSlots(3, greedy=True), "one") == 3


async def test_slot_that_is_given_back_goes_to_the_tenant_with_the_fewest_and_then_in_order() -> None:
    slots, order = TenantSlots(3, greedy=True), list[str]()
    assert take_all(slots, "busy") == 3
    tasks = [waiting(slots, "busy", order, f"busy-{n}") for n in range(3)]
    await settle()
    tasks += [waiting(slots, "quiet", order, f"quiet-{n}") for n in range(2)]
    for tenant in ("busy", "busy", "quiet", "busy", "quiet"):
        await settle()
        slots.release(tenant)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert order == ["quiet-0", "quiet-1", "busy-0", "busy-1", "busy-2"]


async def test_request_does_not_overtake_earlier_ones_of_its_tenant() -> None:
    slots, order = TenantSlots(4, per_tenant=1), list[str]()
    assert slots.try_acquire("one")
    first = waiting(slots, "one", order, "first")
    await settle()
    slots.release("one")
    assert not slots.try_acquire("one")  # it is granted, although the task has not run
    await first
    assert order == ["first"]


async def test_cancelled_requests_leave_the_queue_and_give_back_what_they_were_granted() -> None:
    slots, order = TenantSlots(2, per_tenant=1), list[str]()
    assert slots.try_acquire("one")
    waits = [waiting(slots, "one", order, str(n)) for n in range(3)]
    await settle()
    waits[0].cancel()
    slots.release("one")  # grants the second, which is cancelled before it runs
    waits[1].cancel()
    await asyncio.wait(waits[:2])
    await asyncio.wait_for(waits[2], 5)
    assert order == ["2"]
    slots.release("one")
    assert slots.try_acquire("one")
    slots.release("one")
    assert take_all(slots, "other") == 1


async def test_slot_is_given_back_when_the_context_raises() -> None:
    slots = TenantSlots(2, per_tenant=1)
    for _ in range(3):
        with pytest.raises(KeyError):
            async with slots.hold("one"):
                raise KeyError
    assert slots.try_acquire("one")
