"""Rate limits: of channels, and the reservations of deliveries of rate-limited subscriptions."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.limits import reserve
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription
from tests.registry.conftest import execute_sql

#: So low that the duration of a test is negligible compared to one interval.
RATE = 0.1
INTERVAL = timedelta(seconds=10)

RESERVE = """
import asyncio, sys
from datetime import UTC, datetime
from bellwire.contract import Group
from bellwire.registry import Registry

async def main():
    registry = await Registry.open(sys.argv[1])
    async def one(key):
        groups = [Group(event_key=key, channel="webhook", subscription_ids=("b", "a"))]
        await registry.limits.reserve(await registry.attempts.load(groups), now=datetime.now(UTC))
    await asyncio.gather(*(one(key) for key in sys.argv[2:]))
    await registry.close()

asyncio.run(main())
"""


async def deliveries(registry: Registry, rates: dict[str, float | None], *, events: int) -> Sequence[SendRequest]:
    """Store deliveries of `events` events to one subscription per rate, and load them for the first attempt."""
    for name, rate in rates.items():
        await registry.subscriptions.create(subscription(id=name, rate_limit=rate))
    stored = [event(id=str(number)) for number in range(events)]
    await registry.events.accept(stored, "workflow")
    groups = [
        Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=tuple(rates), attempt=1) for one in stored
    ]
    await registry.deliveries.add("workflow", groups)
    return await registry.attempts.load(groups)


async def reloaded(registry: Registry, requests: Sequence[SendRequest]) -> Sequence[SendRequest]:
    return await registry.attempts.load([request.group for request in requests])


def deferred(request: SendRequest, **fields: Any) -> Attempt:
    return Attempt(
        **{
            "event_key": request.delivery.event_key,
            "subscription_id": request.subscription.id,
            "number": request.number,
            "started_at": NOW,
            "duration": 0.1,
            "outcome": Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 503"),
            "state": DeliveryState.WAITING,
            "delay": 5.0,
            **fields,
        }
    )


def intervals(times: list[datetime]) -> list[timedelta]:
    return [later - earlier for earlier, later in pairwise(times)]


async def test_a_channel_has_the_last_limit_until_it_is_cleared(registry: Registry) -> None:
    assert await registry.limits.by_channel() == {}
    await registry.limits.set(Channel.SMS, 10)
    await registry.limits.set(Channel.EMAIL, 0.5)
    await registry.limits.set(Channel.SMS, 2.5)
    assert await registry.limits.by_channel() == {Channel.EMAIL: 0.5, Channel.SMS: 2.5}
    await registry.limits.clear(Channel.SMS)
    await registry.limits.clear(Channel.WEBHOOK)
    assert await registry.limits.by_channel() == {Channel.EMAIL: 0.5}


async def test_concurrent_calls_may_set_a_limit(registry: Registry) -> None:
    await asyncio.gather(*(registry.limits.set(Channel.SMS, rate) for rate in range(1, 9)))
    assert (await registry.limits.by_channel())[Channel.SMS] in range(1, 9)


async def test_limits_of_unknown_channels_are_ignored(registry: Registry, url: str) -> None:
    await registry.limits.set(Channel.SMS, 10)
    database = Database.at(url, pool=1)
    await execute_sql(database, "INSERT INTO limits VALUES ('pigeon', 1)")
    await database.close()
    assert await registry.limits.by_channel() == {Channel.SMS: 10}


async def test_each_limited_delivery_gets_its_own_reservation(registry: Registry) -> None:
    requests = await deliveries(registry, {"slow": RATE, "slower": RATE / 2, "free": None}, events=4)
    before = datetime.now(UTC)
    reserved = await registry.limits.reserve(requests, now=datetime.now(UTC))
    after = datetime.now(UTC)
    for name, interval in (("slow", INTERVAL), ("slower", 2 * INTERVAL)):
        own = [reserved[request.delivery.key] for request in requests if request.subscription.id == name]
        assert before <= own[0] <= after
        assert intervals(own) == [interval] * 3
    assert {name for _, name in reserved} == {"slow", "slower"}


async def test_later_reservations_follow_earlier_ones(registry: Registry) -> None:
    requests = await deliveries(registry, {"slow": RATE}, events=6)
    reserved = [
        time
        for request in requests
        for time in (await registry.limits.reserve([request], now=datetime.now(UTC))).values()
    ]
    assert intervals(reserved) == [INTERVAL] * 5


async def test_a_delivery_keeps_its_reservation(registry: Registry) -> None:
    requests = await deliveries(registry, {"slow": RATE}, events=3)
    first = await registry.limits.reserve(requests[:2], now=datetime.now(UTC))
    assert await registry.limits.reserve([*requests[:2], *requests[:2]], now=datetime.now(UTC)) == first
    fresh = await reloaded(registry, requests)
    assert [request.delivery.not_before for request in fresh] == [*first.values(), None]
    assert await registry.limits.reserve(fresh, now=datetime.now(UTC)) == {
        **first,
        requests[2].delivery.key: max(first.values()) + INTERVAL,
    }


async def test_recording_an_attempt_clears_the_reservation_and_the_next_attempt_gets_a_new_one(
    registry: Registry,
) -> None:
    requests = await deliveries(registry, {"slow": RATE}, events=2)
    reserved = await registry.limits.reserve(requests, now=datetime.now(UTC))
    await registry.attempts.record([deferred(requests[0])])
    fresh = await reloaded(registry, requests)
    assert [request.delivery.not_before for request in fresh] == [None, reserved[requests[1].delivery.key]]
    assert (await registry.limits.reserve(fresh, now=datetime.now(UTC)))[requests[0].delivery.key] == max(
        reserved.values()
    ) + INTERVAL


async def test_unused_time_is_not_saved_up(registry: Registry) -> None:
    requests = await deliveries(registry, {"fast": 1_000}, events=3)
    await registry.limits.reserve(requests[:1], now=datetime.now(UTC))
    while datetime.now(UTC) < (await registry.limits.reserve(requests[:1], now=datetime.now(UTC)))[
        requests[0].delivery.key
    ] + timedelta(seconds=0.01):
        await asyncio.sleep(0)
    before = datetime.now(UTC)
    reserved = await registry.limits.reserve(requests[1:], now=datetime.now(UTC))
    assert min(reserved.values()) >= before
    assert intervals(sorted(reserved.values())) == [timedelta(milliseconds=1)]


async def test_the_limit_in_the_registry_applies(registry: Registry, url: str) -> None:
    requests = await deliveries(registry, {"changed": RATE, "freed": RATE}, events=2)
    database = Database.at(url, pool=1)
    await execute_sql(
        database,
        "UPDATE subscriptions SET rate_limit = 0.01 WHERE id = 'changed'",
        "UPDATE subscriptions SET rate_limit = NULL WHERE id = 'freed'",
    )
    await database.close()
    reserved = await registry.limits.reserve(requests, now=datetime.now(UTC))
    assert {name for _, name in reserved} == {"changed"}
    assert intervals(sorted(reserved.values())) == [timedelta(seconds=100)]


async def test_reserving_changes_nothing_else(registry: Registry) -> None:
    requests = await deliveries(registry, {"slow": RATE, "free": None}, events=1)
    before = [request.delivery.model_dump(exclude={"not_before"}) for request in requests]
    await registry.limits.reserve(requests, now=datetime.now(UTC))
    fresh = await reloaded(registry, requests)
    assert [request.delivery.model_dump(exclude={"not_before"}) for request in fresh] == before
    assert await registry.limits.reserve([], now=datetime.now(UTC)) == {}


async def test_a_deleted_delivery_gets_no_reservation(registry: Registry, url: str) -> None:
    requests = await deliveries(registry, {"slow": RATE}, events=2)
    database = Database.at(url, pool=1)
    await execute_sql(database, f"DELETE FROM events WHERE key = '{requests[0].event.key}'")
    await database.close()
    assert [key for key, _ in await registry.limits.reserve(requests, now=datetime.now(UTC))] == [requests[1].event.key]


@pytest.mark.slow
async def test_several_processes_never_reserve_the_same_time(registry: Registry, url: str) -> None:
    """Each process reserves for deliveries of both subscriptions, partly the same ones as the others."""
    requests = await deliveries(registry, {"a": RATE, "b": RATE}, events=60)
    keys = list(dict.fromkeys(request.delivery.event_key for request in requests))
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RESERVE, url, *keys[start : start + 30]),
            cwd=Path(__file__).parents[2],
            stderr=asyncio.subprocess.PIPE,
        )
        for start in (0, 15, 30)
    ]
    errors = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    fresh = await reloaded(registry, requests)
    for name in ("a", "b"):
        times = sorted(request.delivery.not_before or NOW for request in fresh if request.subscription.id == name)
        assert intervals(times) == [INTERVAL] * 59


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_inserting_deliveries_does_not_wait_for_reservations(registry: Registry, url: str) -> None:
    requests = await deliveries(registry, {"a": RATE, "b": RATE}, events=1)
    fresh = event(id="fresh")
    await registry.events.accept([fresh], "workflow")
    both = Group(event_key=fresh.key, channel=Channel.WEBHOOK, subscription_ids=("b", "a"))
    database = Database.at(url, pool=1)

    async def reserve_and_insert(connection: AsyncConnection) -> None:
        await reserve(connection, requests, now=NOW)
        await asyncio.wait_for(registry.deliveries.add("workflow", [both]), 60)

    await database.write(reserve_and_insert)
    await database.close()
    assert len(await registry.deliveries.list(event_key=fresh.key)) == 2


async def test_concurrent_reserving_inserting_and_recording_never_deadlock(registry: Registry) -> None:
    requests = await deliveries(registry, {"a": 10_000, "b": 10_000}, events=10)

    async def work(request: SendRequest) -> None:
        await registry.limits.reserve([request, *requests], now=datetime.now(UTC))
        fresh = event(id=f"of-{request.event.id}-{request.subscription.id}")
        await registry.events.accept([fresh], "workflow")
        both = Group(event_key=fresh.key, channel=Channel.WEBHOOK, subscription_ids=("b", "a"))
        await registry.deliveries.add("workflow", [both])
        gone = Outcome(kind=OutcomeKind.REJECTED, reason="HTTP 410", disable=True)
        await registry.attempts.record([deferred(request, outcome=gone, state=DeliveryState.REJECTED, delay=None)])

    await asyncio.gather(*map(work, requests))
    assert [found.state for found in await registry.deliveries.list(state=DeliveryState.REJECTED)] == [
        DeliveryState.REJECTED
    ] * len(requests)
