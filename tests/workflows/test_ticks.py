"""Ticks: each publishes the event of its time once, and is recorded."""

import asyncio

from temporalio.client import WorkflowHandle

from bellwire import Client
from bellwire.contract import QUEUE, TICK, TickInput, TickRecord, TickState
from bellwire.events import uuid7
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import FakePlatform

LIMIT = 60


async def tick(client: Client, request: TickInput) -> TickRecord:
    handle: WorkflowHandle[object, TickRecord] = await client.temporal.start_workflow(
        TICK, request, id=f"tick/{request.schedule}-{uuid7()}", task_queue=QUEUE, result_type=TickRecord
    )
    return await asyncio.wait_for(handle.result(), LIMIT)


async def test_a_tick_publishes_its_event_and_is_recorded(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    request = TickInput(schedule=f"report-{uuid7()}", event=event(data={"n": 1}))
    done = await tick(client, request)
    published = request.event_at(done.scheduled_at)
    status = await asyncio.wait_for(client.wait(published), LIMIT)
    assert (status.counts.delivered, status.workflow_id) == (1, done.workflow_id)
    assert (done.state, done.event_key) == (TickState.PUBLISHED, published.key)
    assert platform.ticks == [done]
    assert platform.events[published.key].event.data == {"n": 1}
    # The client that publishes it too finds it published.
    assert (await client.publish(published)).duplicate


async def test_a_second_tick_of_a_day_is_a_duplicate(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    request = TickInput(schedule=f"report-{uuid7()}", event=event(), once_a_day=True)
    first = await tick(client, request)
    await asyncio.wait_for(client.wait(request.event_at(first.scheduled_at)), LIMIT)
    second = await tick(client, request)
    if first.scheduled_at.date() == second.scheduled_at.date():  # not around midnight of the server
        assert (first.state, second.state) == (TickState.PUBLISHED, TickState.DUPLICATE)
        assert first.event_key == second.event_key
        assert len(platform.times("a")) == 1


async def test_a_tick_that_cannot_be_recorded_ends_all_the_same(platform: FakePlatform, client: Client) -> None:
    platform.ticks_fail = True
    request = TickInput(schedule=f"report-{uuid7()}", event=event())
    done = await tick(client, request)
    assert (done.state, platform.ticks) == (TickState.PUBLISHED, [])
    await asyncio.wait_for(client.wait(request.event_at(done.scheduled_at)), LIMIT)
