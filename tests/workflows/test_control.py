"""Controls: retry now, pause, resume and cancel, by operators and publishers."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, DeliveryNotFound, DeliveryPaused, Receipt
from bellwire.contract import PAGE_SIZE, Action, ControlRequest, Summary
from bellwire.deliveries import DeliveryState
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, deferred, retry_after
from tests.workflows.waiting import until, until_idle, until_in_history, update


@pytest.fixture(autouse=True)
def down_once(platform: FakePlatform) -> None:
    """Every receiver refuses the first attempt, and asks for the next one an hour later."""
    platform.respond = lambda _, attempt: retry_after(3600) if attempt == 1 else DELIVERED


async def attempted(platform: FakePlatform, number: int) -> None:
    """Wait until so many attempts were started and their results have reached the workflow.

    A minute of skipped time is enough for the latter. The test server may fail a query while a workflow is busy.
    """
    await until(lambda: len(platform.attempts) >= number)
    await platform.env.sleep(60)


async def description(client: Client, receipt: Receipt) -> Any:
    return await client.temporal.get_workflow_handle(receipt.workflow_id).describe()


async def test_retry_now_attempts_a_waiting_delivery(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    receipt = await client.publish(event())
    await attempted(platform, 2)
    assert (await update(client, receipt, "retry_now", "a")).deliveries == 1
    await attempted(platform, 3)
    before, after = platform.times("a")
    assert (after - before).total_seconds() < 120
    async with platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.delivered == 2
    before, after = platform.times("b")
    # Its timer began when its workflow task did, which on a busy machine is some seconds before the attempt's own clock.
    assert (after - before).total_seconds() >= 3540


async def test_a_mass_retry_uses_up_no_attempt(platform: FakePlatform, client: Client) -> None:
    """The schedule of webhooks has 10 attempts; the receiver is down for 15 requested ones."""
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    platform.respond = lambda *_: deferred()
    receipt = await client.publish(event())
    for number in range(1, 17):
        await attempted(platform, number) if number < 3 else await until(lambda: len(platform.attempts) >= number)  # noqa: B023
        await until_idle(client, receipt)
        await update(client, receipt, "retry_now")
    status = await client.status(receipt)
    assert status.counts.exhausted == 0
    platform.respond = lambda *_: DELIVERED
    async with platform.skipping():
        assert (await client.wait(receipt)).counts.delivered == 1


async def test_retry_now_leaves_a_paused_delivery_alone_unless_asked(dev_server: WorkflowEnvironment) -> None:
    """In real time: where nothing but a paused delivery is left, the time-skipping server skips to the workflow's timeout."""
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda _, attempt: retry_after(3600) if attempt == 1 else DELIVERED
    one = event()
    async with platform.running():
        receipt = await client.publish(one)
        async with asyncio.timeout(60):
            while len([item for item in (await client.status(receipt)).unsettled if item.due]) < 2:
                await asyncio.sleep(0.05)
        await update(client, receipt, "pause", "a")
        result = await update(client, receipt, "retry_now")
        assert (result.deliveries, result.paused) == (1, 1)
        await until(lambda: len(platform.times("b")) == 2)
        await until_idle(client, receipt)
        with pytest.raises(DeliveryPaused, match="end_pause"):
            await client.retry(one, "a")
        assert len(platform.times("a")) == 1
        await client.retry(one, "a", end_pause=True)
        assert (await client.wait(receipt, timeout=60)).counts.delivered == 2


async def test_an_update_for_a_subscription_without_a_delivery_is_rejected(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    receipt = await client.publish(event())
    await attempted(platform, 1)
    with pytest.raises(WorkflowUpdateFailedError) as rejected:
        await update(client, receipt, "retry_now", "other")
    assert str(rejected.value.cause) == "NotUnsettled: no unsettled delivery for subscription other"
    await update(client, receipt, "cancel")


async def test_a_paused_delivery_waits_until_resume(dev_server: WorkflowEnvironment) -> None:
    """In real time: the time-skipping server sometimes skips while the activity of the other delivery starts."""
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda _, attempt: retry_after(2) if attempt == 1 else DELIVERED
    async with platform.running():
        receipt = await client.publish(event())
        await until(lambda: len(platform.attempts) == 2)
        assert (await update(client, receipt, "pause", "a")).deliveries == 1
        await until(lambda: len(platform.times("b")) == 2)
        await until_in_history(client, receipt, "activity_task_completed")
        await until_idle(client, receipt)
        status = await client.status(receipt)
        assert [(item.subscription_id, item.paused, item.due) for item in status.unsettled] == [("a", True, None)]
        assert len(platform.times("a")) == 1, "both were due at the same time"
        assert (await update(client, receipt, "resume", "a")).deliveries == 1
        assert (await client.wait(receipt, timeout=60)).counts.delivered == 2


async def test_cancelling_one_subscription_does_not_change_the_others(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"], Channel.EMAIL: ["b"]}
    published = event()
    receipt = await client.publish(published)
    await attempted(platform, platform.subscription_count)
    await update(client, receipt, "cancel", "a")
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.cancelled, status.counts.delivered) == (1, 1)
    assert platform.state(published.key, "a") is DeliveryState.CANCELLED


async def test_cancelling_an_event_settles_its_unsettled_deliveries(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.respond = lambda subscription_id, _: DELIVERED if subscription_id == "c" else deferred(3600)
    receipt = await client.publish(event())
    await attempted(platform, platform.subscription_count)
    await client.cancel(receipt)
    status = await client.wait(receipt, timeout=60)
    assert (status.counts.delivered, status.counts.cancelled, status.counts.unsettled) == (1, 2, 0)
    assert (await description(client, receipt)).status is WorkflowExecutionStatus.CANCELED


async def test_a_cancelled_delivery_settles_though_its_event_is_cancelled_in_the_same_task(
    dev_server: WorkflowEnvironment,
) -> None:
    """Both cancels arrive while no worker runs. The loop starts to settle `a`, and the cancel of the event interrupts that."""
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda *_: deferred(3600)
    published = event()
    # Without a cache there is no sticky queue, on which the next workflow task would wait for the worker that has stopped.
    async with platform.running(max_cached_workflows=0), asyncio.timeout(60):
        receipt = await client.publish(published)
        while len((await client.status(receipt)).unsettled) < 2:
            await asyncio.sleep(0.05)
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    await handle.signal("control", ControlRequest(action=Action.CANCEL, subscription_id="a"))
    await handle.cancel()
    async with platform.running():
        status = await client.wait(receipt, timeout=60)
    assert (status.counts.cancelled, status.counts.unsettled) == (2, 0)
    assert platform.counts(published.key) == status.counts
    assert (await description(client, receipt)).status is WorkflowExecutionStatus.CANCELED


async def test_cancelling_an_event_cancels_its_pages(platform: FakePlatform, client: Client) -> None:
    platform.page_size = 700
    ids = [f"s{number:04}" for number in range(PAGE_SIZE + 400)]
    platform.subscriptions = {Channel.WEBHOOK: ids}
    platform.respond = lambda *_: deferred(3600)
    receipt = await client.publish(event())
    handle = client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    await attempted(platform, len(ids))
    children = [f"{receipt.workflow_id}#page-{number}" for number in (1, 2)]
    await client.cancel(receipt)
    status = await client.wait(receipt, timeout=60)
    assert status.counts.matched == status.counts.cancelled == len(ids)
    assert {delivery.state for delivery in platform.deliveries.values()} == {DeliveryState.CANCELLED}
    for child in children:
        assert (await client.temporal.get_workflow_handle(child).describe()).status is WorkflowExecutionStatus.COMPLETED
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_an_update_for_all_is_forwarded_to_every_page(platform: FakePlatform, client: Client) -> None:
    platform.page_size = 600
    ids = [f"s{number:04}" for number in range(PAGE_SIZE + 200)]
    platform.subscriptions = {Channel.WEBHOOK: ids}
    receipt = await client.publish(event())
    await attempted(platform, len(ids))
    result = await update(client, receipt, "retry_now")
    assert result.forwarded == 2
    status = await client.wait(receipt, timeout=60)
    assert status.counts.delivered == len(ids)
    assert status.settled


async def test_the_status_adds_up_the_pages_and_lists_what_is_unsettled(platform: FakePlatform, client: Client) -> None:
    platform.page_size = 500
    ids = [f"s{number:04}" for number in range(1_500)]
    platform.subscriptions = {Channel.WEBHOOK: ids}
    platform.respond = lambda each, attempt: deferred(3600) if (each, attempt) == ("s0700", 1) else DELIVERED
    receipt = await client.publish(event())
    await attempted(platform, len(ids))
    status = await client.status(receipt)
    assert status.counts.delivered == 1_499
    assert [(item.subscription_id, item.reason) for item in status.unsettled] == [("s0700", "HTTP 503")]
    assert not status.settled
    async with platform.skipping():
        assert (await client.wait(receipt)).counts.delivered == 1_500


async def test_one_event_of_a_batch_is_cancelled_and_the_other_delivered(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    platform.respond = lambda *_: deferred(3600)
    first, second = event(), event()
    receipts = await client.publish_many([first, second])
    await attempted(platform, 2)
    await client.cancel(receipts[0])
    status = await client.wait(receipts[0], timeout=60)
    assert status.counts.cancelled == 1
    platform.respond = lambda *_: DELIVERED
    await update(client, receipts[1], "retry_now")
    assert (await client.wait(receipts[1], timeout=60)).counts.delivered == 1


async def test_one_event_of_a_batch_is_paused_and_resumed_by_the_client(dev_server: WorkflowEnvironment) -> None:
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda *_: retry_after(3600)
    async with platform.running():
        first, second = await client.publish_many([event(), event()])
        await until(lambda: len(platform.attempts) == 4)
        await until_idle(client, first)
        assert (await client.pause(first)).deliveries == 2
        assert (await client.pause(first)).deliveries == 0
        assert [item.paused for item in (await client.status(first)).unsettled] == [True, True]
        assert [item.paused for item in (await client.status(second)).unsettled] == [False, False]
        assert (await client.resume(first, "a")).deliveries == 1
        assert [item.paused for item in (await client.status(first)).unsettled] == [False, True]
        with pytest.raises(DeliveryNotFound):
            await client.pause(first, "unknown")
        await client.cancel(first, "b")
        await until_idle(client, first)
        status = await client.status(first)
        assert (status.counts.cancelled, [item.subscription_id for item in status.unsettled]) == (1, ["a"])
        assert len((await client.status(second)).unsettled) == 2
        await client.cancel(first)
        await client.cancel(second)
        statuses = await client.wait_many([first, second], timeout=60)
        assert [status.counts.cancelled for status in statuses] == [2, 2]
        assert (await client.pause(first)).deliveries == 0
        with pytest.raises(DeliveryNotFound, match="settled"):
            await client.resume(first, "a")
