"""Events that are published for later, on a server that skips the time until then."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, DeliveryNotFound, EventConflict
from bellwire.contract import DIGEST_MEMO
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import FakePlatform


async def test_an_event_is_delivered_in_three_days(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    before = await platform.env.get_current_time()
    receipt = await client.publish(event(), delay="3d")
    assert receipt.deliver_at is not None
    scheduled = await client.status(receipt)
    assert (scheduled.scheduled, scheduled.settled, scheduled.resolved, scheduled.counts.matched) == (
        True,
        False,
        False,
        0,
    )
    assert scheduled.deliver_at is not None
    assert abs(scheduled.deliver_at - before - timedelta(days=3)) < timedelta(minutes=1)
    # Subscriptions are matched when it is delivered.
    platform.subscriptions = {Channel.WEBHOOK: ["b"]}
    async with platform.skipping():
        status = await asyncio.wait_for(client.wait(receipt), 60)
    assert (status.settled, status.scheduled, status.deliver_at, status.counts.delivered) == (True, False, None, 1)
    (attempted,) = platform.times("b")
    assert attempted - before >= timedelta(days=3) - timedelta(seconds=5)
    assert not platform.times("a")


async def test_a_cancelled_event_is_never_delivered(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    published = event()
    receipt = await client.publish(published, deliver_at=datetime.now(UTC) + timedelta(days=300))
    await client.cancel(published)
    status = await asyncio.wait_for(client.wait(receipt), 60)
    assert (status.cancelled, status.settled, status.scheduled, status.counts.matched) == (True, True, False, 0)
    description = await client.temporal.get_workflow_handle(receipt.workflow_id).describe()
    assert description.status is WorkflowExecutionStatus.CANCELED
    assert (await client.publish(published)).duplicate
    assert not platform.events
    assert not platform.times("a")
    await client.cancel(receipt)


async def test_an_event_that_waits_is_published_once(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    published = event()
    first = await client.publish(published, delay=3600)
    again = await client.publish(published, delay=timedelta(hours=2))
    at_once = await client.publish(published)
    assert [(each.duplicate, each.workflow_id) for each in (first, again, at_once)] == [
        (False, first.workflow_id),
        (True, first.workflow_id),
        (True, first.workflow_id),
    ]
    assert (again.deliver_at, at_once.deliver_at) == (None, None)
    with pytest.raises(EventConflict, match="published before with other content"):
        await client.publish(event(id=published.id, data={"changed": True}), delay=3600)
    async with platform.skipping():
        status = await asyncio.wait_for(client.wait(published), 60)
    assert status.counts.delivered == len(platform.times("a")) == 1


async def test_an_event_that_waits_is_published_once_also_together_with_others(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    waits, *others = events = [event(), event(), event()]
    first = await client.publish(waits, delay="1h")
    many = await client.publish_many([others[0], waits, others[0]])
    together = await asyncio.gather(*(client.publish(each) for each in (others[1], waits, event())))
    for again in (many[1], together[1]):
        assert (again.duplicate, again.workflow_id) == (True, first.workflow_id)
    with pytest.raises(EventConflict, match="published before with other content"):
        await client.publish_many([others[0], event(id=waits.id, data={"changed": True})])
    async with platform.skipping():
        await asyncio.wait_for(client.wait_many([*events, *together]), 60)
    attempted = platform.times("a")
    assert len(attempted) == 4
    assert attempted[-1] - attempted[0] > timedelta(minutes=59), "the one that waits is delivered at its time"


async def test_events_for_later_have_workflows_of_their_own(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    events = [event(), event(), event()]
    receipts = await client.publish_many(events, delay="1h")
    assert len({receipt.workflow_id for receipt in receipts}) == 3
    await client.cancel(events[1])
    async with platform.skipping():
        statuses = await asyncio.wait_for(client.wait_many(receipts), 60)
    assert [status.cancelled for status in statuses] == [False, True, False]
    assert len(platform.times("a")) == 2


async def test_concurrent_events_for_other_times_are_not_grouped(platform: FakePlatform, client: Client) -> None:
    receipts = await asyncio.gather(*(client.publish(event(), delay=delay) for delay in (3600, 7200, 0, None)))
    later = [receipt.workflow_id for receipt in receipts if receipt.deliver_at]
    assert len(later) == 2
    for workflow_id in later:
        assert not workflow_id.startswith("events/")
        description = await client.temporal.get_workflow_handle(workflow_id).describe()
        assert await description.memo_value(DIGEST_MEMO)
    async with platform.skipping():
        await asyncio.wait_for(client.wait_many(receipts), 60)


async def test_an_event_that_waits_has_nothing_to_pause(platform: FakePlatform, client: Client) -> None:
    receipt = await client.publish(event(), delay="1h")
    with pytest.raises(DeliveryNotFound, match="can only be cancelled"):
        await client.pause(receipt)
    await client.cancel(receipt)
    await asyncio.wait_for(client.wait(receipt), 60)


async def test_what_waits_and_what_was_cancelled_is_known_without_a_worker(dev_server: WorkflowEnvironment) -> None:
    client = Client(dev_server.client)
    waits, cancelled = await client.publish_many([event(), event()], delay="1d")
    await client.cancel(cancelled)
    found = [await client.status(receipt) for receipt in (waits, cancelled)]
    assert [(each.scheduled, each.cancelled, each.settled) for each in found] == [
        (True, False, False),
        (False, True, True),
    ]
    await client.temporal.get_workflow_handle(cancelled.workflow_id).terminate()
    await client.temporal.get_workflow_handle(waits.workflow_id).terminate()
