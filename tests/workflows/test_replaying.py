"""The workflow Replay, on a server that skips time."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Event, Handlers
from bellwire.contract import (
    QUEUE,
    REPLAY,
    Group,
    ReplayInput,
    replay_batch_workflow_id,
    replay_workflow_id,
)
from bellwire.deliveries import DeliveryState
from bellwire.replays import ReplayState, new_replay_id
from bellwire.targets import Channel
from bellwire.testing.registry import MemoryDelivery, MemoryEvent, MemoryReplay
from tests.factories import event
from tests.workflows.platform import FakePlatform, deferred
from tests.workflows.waiting import until


def past(platform: FakePlatform, number: int, name: str = "late", channel: Channel = Channel.WEBHOOK) -> list[Group]:
    """Stored events that were never delivered to the subscription."""
    platform.subscriptions = {channel: [name]}
    events = [event(id=f"{each:03}") for each in range(number)]
    platform.events |= {each.key: MemoryEvent(each, "event/1", "", datetime.now(UTC)) for each in events}
    return [Group(event_key=each.key, channel=channel, subscription_ids=(name,)) for each in events]


def add(platform: FakePlatform, group: Group, workflow_id: str) -> None:
    """A delivery of another workflow."""
    (name,) = group.subscription_ids
    platform.deliveries[group.event_key, name] = MemoryDelivery(group.event_key, name, group.channel, workflow_id)


async def start(
    platform: FakePlatform, client: Client, groups: Sequence[Group], **fields: Any
) -> WorkflowHandle[Any, Any]:
    name = new_replay_id()
    platform.replays[name] = MemoryReplay(groups, **fields)
    workflow_id = replay_workflow_id(name)
    return await client.temporal.start_workflow(REPLAY, ReplayInput(replay_id=name), id=workflow_id, task_queue=QUEUE)


async def end(platform: FakePlatform) -> MemoryReplay:
    """Wait for the end. The result of the workflow would skip time, beyond the start of a child."""
    await until(lambda: only(platform).state.ended)
    return only(platform)


def only(platform: FakePlatform) -> MemoryReplay:
    (replay,) = platform.replays.values()
    return replay


def name_of(platform: FakePlatform) -> str:
    (name,) = platform.replays
    return name


async def test_past_events_are_delivered_in_order_and_no_faster_than_the_rate(
    platform: FakePlatform, client: Client
) -> None:
    groups = past(platform, 25)
    await start(platform, client, groups, rate=10, batch=10)
    replay = await end(platform)
    assert (replay.state, replay.done) == (ReplayState.COMPLETED, 25)
    sent = [group.event_key for chunk in platform.chunks for group in chunk.groups]
    assert sent == [group.event_key for group in groups]
    assert all(chunk.in_order for chunk in platform.chunks)
    times = platform.times("late")
    # The third batch is selected two seconds after the first, whose attempts may begin late on a busy machine.
    assert times[20] - times[0] >= timedelta(seconds=1)
    assert {each.workflow_id for each in platform.deliveries.values()} == {
        replay_batch_workflow_id(name_of(platform), number) for number in (1, 2, 3)
    }


async def test_it_does_not_wait_for_days_of_retries(dev_server: WorkflowEnvironment) -> None:
    """On the dev server: the signal of a batch would keep the test server from skipping time in the tests after this one."""
    platform = FakePlatform(dev_server)
    platform.respond = lambda *_: deferred(86_400)
    client = Client(dev_server.client)
    async with platform.running():
        await start(platform, client, past(platform, 4), rate=100, batch=2)
        assert (await end(platform)).done == 4
        assert {each.state for each in platform.deliveries.values()} == {DeliveryState.WAITING}
        for number in (1, 2):
            batch = client.temporal.get_workflow_handle(replay_batch_workflow_id(name_of(platform), number))
            await batch.cancel()
            await batch.result()
    assert {each.state for each in platform.deliveries.values()} == {DeliveryState.CANCELLED}


async def test_a_paused_replay_starts_nothing_until_it_is_resumed(platform: FakePlatform, client: Client) -> None:
    platform.gates["late"] = asyncio.Event()
    groups = past(platform, 6)
    handle = await start(platform, client, groups, rate=1000, batch=2)
    await until(lambda: len(platform.attempts) == 1)
    only(platform).state = ReplayState.PAUSED
    platform.gates["late"].set()
    await until(lambda: only(platform).done == 2)
    assert len(platform.attempts) == 2
    only(platform).state = ReplayState.RUNNING
    await handle.signal("changed")
    assert (await end(platform)).done == 6


async def test_a_lost_signal_is_made_up_for(platform: FakePlatform, client: Client) -> None:
    await start(platform, client, past(platform, 1), state=ReplayState.PAUSED)
    await until(lambda: only(platform).selections == 1)
    only(platform).state = ReplayState.CANCELLED
    async with platform.skipping():
        await until(lambda: only(platform).selections == 2)


async def test_what_was_not_started_is_not_sent_after_a_cancel(platform: FakePlatform, client: Client) -> None:
    platform.gates["late"] = asyncio.Event()
    groups = past(platform, 6)
    handle = await start(platform, client, groups, rate=1000, batch=2)
    await until(lambda: len(platform.attempts) == 1)
    only(platform).state = ReplayState.CANCELLED
    await handle.signal("changed")
    platform.gates["late"].set()
    await until(lambda: only(platform).done == 2)
    assert (await end(platform)).state is ReplayState.CANCELLED
    assert len(platform.attempts) == 2


async def test_a_cancel_in_temporal_cancels_the_replay_and_leaves_its_batches(
    platform: FakePlatform, client: Client
) -> None:
    groups = past(platform, 4)
    handle = await start(platform, client, groups, rate=0.01, batch=2)
    await until(lambda: len(platform.attempts) == 2)
    await handle.cancel()
    assert (await end(platform)).state is ReplayState.CANCELLED
    assert [each.state for each in platform.deliveries.values()] == [DeliveryState.DELIVERED] * 2


async def test_what_another_workflow_has_is_not_sent(platform: FakePlatform, client: Client) -> None:
    groups = past(platform, 3)
    add(platform, groups[1], "event/live")
    await start(platform, client, groups, rate=1000, batch=3)
    await end(platform)
    sent = [group.event_key for chunk in platform.chunks for group in chunk.groups]
    assert sent == [groups[0].event_key, groups[2].event_key]
    assert platform.state(groups[1].event_key, "late") is DeliveryState.PENDING


async def test_failed_deliveries_are_sent_again_and_unchanged_only(platform: FakePlatform, client: Client) -> None:
    groups = past(platform, 3)
    for number, group in enumerate(groups):
        add(platform, group, "event/1")
        failed = platform.deliveries[group.event_key, "late"]
        failed.state, failed.attempts = DeliveryState.EXHAUSTED, 1 + number
    again = [group.model_copy(update={"attempt": 2}) for group in groups]
    await start(platform, client, again, missing=False, rate=1000)
    await end(platform)
    states = [platform.state(group.event_key, "late") for group in groups]
    assert states == [DeliveryState.DELIVERED, DeliveryState.EXHAUSTED, DeliveryState.EXHAUSTED]


@pytest.mark.parametrize("missing", [True, False], ids=["events", "failed"])
async def test_a_batch_begins_after_the_calls_of_the_one_before(
    platform: FakePlatform, client: Client, missing: bool
) -> None:
    service = "past" if missing else "failed"
    groups = past(platform, 4, f"{service}_work", Channel.HANDLER)
    if not missing:
        for group in groups:
            add(platform, group, "event/1")
            failed = platform.deliveries[group.event_key, f"{service}_work"]
            failed.state, failed.attempts = DeliveryState.EXHAUSTED, 1
        groups = [group.model_copy(update={"attempt": 2}) for group in groups]
    handlers, begun, may_end = Handlers(service=service), list[str](), asyncio.Event()

    @handlers.on("*")
    async def work(event: Event) -> None:
        begun.append(event.id)
        await may_end.wait()

    async with handlers.running(client):
        await start(platform, client, groups, rate=1000, batch=2, missing=missing)
        await until(lambda: len(begun) >= 1)
        # Nothing tells that a batch is not selected; it took some milliseconds when replays did not wait for calls.
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await until(lambda: only(platform).selections > 1)
        assert (only(platform).selections, set(begun) <= {"000", "001"}) == (1, True)
        may_end.set()
        replay = await end(platform)
    assert (replay.state, replay.done) == (ReplayState.COMPLETED, 4)
    assert sorted(begun) == ["000", "001", "002", "003"]
    assert {each.state for each in platform.deliveries.values()} == {DeliveryState.DELIVERED}
