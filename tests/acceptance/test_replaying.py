"""Subscriptions with a past, and replays, on the whole system."""

import asyncio
import os
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bellwire import Event, Subscription
from bellwire.deliveries import DeliveryState, delivery_id
from bellwire.replays import Replay, ReplayState, replay_since
from bellwire.replays.workflows import start_replay
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System, running_system, start_worker


async def subscribe(system: System, path: str, type: str, *, rate: float = 1000) -> Replay:  # noqa: A002
    """A subscription to what happened in the last hour, and from now on."""
    target = {"channel": "webhook", "url": system.hooks.url(path)}
    new = Subscription.model_validate({"types": [type], "target": target})
    replay = replay_since(new, datetime.now(UTC) - timedelta(hours=1), rate=rate)
    secret = await system.registry.subscriptions.create(new, replay=replay)
    assert secret
    system.hooks.expect(path, secret.get_secret_value())
    return replay


async def ended(system: System, replay: Replay) -> Replay:
    async with asyncio.timeout(90):
        while not (found := await system.registry.replays.get(replay.id)).state.ended:
            await asyncio.sleep(0.05)
    return found


def ids(system: System, path: str) -> list[str]:
    return [each.headers["webhook-id"] for each in system.hooks.received_at(path)]


async def test_what_was_published_before_is_delivered_in_order_and_the_future_after_it(system: System) -> None:
    before = [Event(source="/tests", type="past.seen", id=f"past-{number}") for number in range(30)]
    for each in before:
        await system.client.wait(await system.client.publish(each), timeout=60)
    # Nobody starts it but the worker, which finds it in the registry.
    replay = await subscribe(system, "/past", "past.*")
    assert (await ended(system, replay)).done == 30
    after = Event(source="/tests", type="past.seen", id="after")
    assert (await system.client.wait(await system.client.publish(after), timeout=60)).counts.delivered == 1
    expected = [delivery_id(each.key, replay.subscription_id) for each in (*before, after)]
    assert ids(system, "/past") == expected


async def test_no_gap_and_no_double_while_events_are_published(system: System) -> None:
    events = [Event(source="/tests", type="flood.now", id=f"flood-{number}") for number in range(300)]

    async def publish(own: list[Event]) -> None:
        for each in own:
            await system.client.publish(each)

    async def follow(number: int) -> Replay:
        while len(await system.registry.events.list(type="flood.now", limit=200)) < 30 * number:
            await asyncio.sleep(0.02)
        replay = await subscribe(system, f"/flood/{number}", "flood.now")
        await start_replay(system.client.temporal, replay)
        return replay

    publishing = asyncio.gather(*(publish(events[start::3]) for start in range(3)))
    replays = await asyncio.gather(follow(1), follow(2), follow(3))
    await publishing
    for number, replay in enumerate(replays, start=1):
        await ended(system, replay)
        await system.hooks.arrived(len(events), f"/flood/{number}", timeout=60)
        name = replay.subscription_id
        assert Counter(ids(system, f"/flood/{number}")) == {delivery_id(each.key, name): 1 for each in events}


@pytest.mark.slow
async def test_a_replay_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    async with running_system(tmp_path) as system:
        events = [Event(source="/tests", type="killed.now", id=f"killed-{number}") for number in range(120)]
        for receipt in await system.client.publish_many(events):
            await system.client.wait(receipt, timeout=60)
        system.hooks.script("/killed", WebhookResponse(delay=0.02), repeat=True)
        replay = await subscribe(system, "/killed", "killed.now", rate=20)
        await start_replay(system.client.temporal, replay)
        await system.hooks.arrived(45, "/killed", timeout=60)
        os.kill(system.stack.processes[1].pid, signal.SIGKILL)
        known = await system.registry.replays.get(replay.id)
        assert (known.state, 0 < known.done < 120) == (ReplayState.RUNNING, True)
        other = await start_worker(system, tmp_path, "other")
        try:
            assert (await ended(system, replay)).done == 120
        finally:
            await other.stop(grace=10)
        posted = Counter(ids(system, "/killed"))
        assert set(posted) == {delivery_id(each.key, replay.subscription_id) for each in events}
        # What was sent in the last 50 ms before the kill was not recorded.
        assert sum(posted.values()) - len(posted) <= 5
        assert await system.registry.replays.outcomes(replay) == {DeliveryState.DELIVERED: 120}
