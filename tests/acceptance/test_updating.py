"""Updating a subscription while its deliveries are on their way, on a real worker."""

import asyncio

import pytest

from bellwire import Event, Subscription
from bellwire.deliveries import DeliveryState
from tests.acceptance.conftest import System


async def moved(system: System, subscription: Subscription, path: str) -> Subscription:
    """Update the subscription to another path of the receiver, which verifies with the same secret as before."""
    current, secrets, _ = await system.registry.subscriptions.context(subscription.id)
    system.hooks.expect(path, secrets[0].get_secret_value())
    target = current.target.model_copy(update={"url": system.hooks.url(path)})
    (after,) = await system.registry.subscriptions.update([current.model_copy(update={"target": target})])
    return after


async def test_a_waiting_delivery_goes_to_the_new_url_at_its_next_attempt(system: System) -> None:
    system.hooks.script("/before", 503, repeat=True)
    subscription = await system.hook("/before", "move.it", retry_schedule=[3600])
    event = Event(source="/tests", type="move.it", data={"n": 1})
    await system.client.publish(event)
    async with asyncio.timeout(30):
        while not any(item.due for item in (await system.client.status(event)).unsettled):
            await asyncio.sleep(0.05)
    await moved(system, subscription, "/after")
    await system.client.retry(event, subscription.id)
    assert (await system.client.wait(event, timeout=30)).counts.delivered == 1
    before, after = [[item for item in system.hooks.received if item.path == path] for path in ("/before", "/after")]
    assert (len(before), len(after), after[0].verified) == (1, 1, True)
    assert before[0].headers["webhook-id"] == after[0].headers["webhook-id"]
    assert before[0].body == after[0].body


async def test_a_delivery_due_by_its_schedule_goes_to_the_new_url(system: System) -> None:
    system.hooks.script("/slow-before", 503, repeat=True)
    subscription = await system.hook("/slow-before", "move.later", retry_schedule=[1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    event = Event(source="/tests", type="move.later")
    await system.client.publish(event)
    async with asyncio.timeout(30):
        while not await system.registry.attempts.list(event.key):
            await asyncio.sleep(0.05)
    await moved(system, subscription, "/slow-after")
    assert (await system.client.wait(event, timeout=30)).counts.delivered == 1
    attempts = await system.registry.attempts.list(event.key)
    old, new = [
        [item for item in system.hooks.received if item.path == f"/slow-{when}"] for when in ("before", "after")
    ]
    assert (len(new), len(old)) == (1, len(attempts) - 1)


@pytest.mark.slow
async def test_events_that_are_sent_while_the_url_changes_arrive_once_each(system: System) -> None:
    subscription = await system.hook("/turn-0", "turn.*", retry_schedule=[0.2] * 20)
    events = [Event(source="/tests", type="turn.it", id=f"turn-{number}") for number in range(200)]

    async def turn() -> int:
        for number in range(1, 10):
            await moved(system, subscription, f"/turn-{number}")
        return (await system.registry.subscriptions.get(subscription.id)).version

    publishing = [system.client.publish(event) for event in events[:50]]
    receipts, _, version = await asyncio.gather(
        asyncio.gather(*publishing), system.client.publish_many(events[50:]), turn()
    )
    assert (len(receipts), version) == (50, 10)
    async with asyncio.timeout(60):
        for event in events:
            assert (await system.client.wait(event)).counts.delivered == 1
    received = [item for item in system.hooks.received if item.path.startswith("/turn-")]
    assert {item.verified for item in received} == {True}
    assert sorted(item.event["id"] for item in received) == sorted(event.id for event in events)
    deliveries = await system.registry.deliveries.list(subscription_id=subscription.id, limit=1000)
    assert {delivery.state for delivery in deliveries} == {DeliveryState.DELIVERED}
