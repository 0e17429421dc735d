"""What operators and publishers can tell a running event."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Receipt
from bellwire.contract import PAGE_SIZE, Action, ControlRequest, ControlResult, Summary
from bellwire.deliveries import DeliveryState
from bellwire.subscriptions import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, Platform


@pytest.fixture
async def platform(time_skipping: WorkflowEnvironment) -> AsyncIterator[Platform]:
    platform = Platform(time_skipping)
    platform.answer = lambda _, attempt: (3600.0, "HTTP 503", True) if attempt == 1 else DELIVERED
    async with platform.working():
        yield platform


@pytest.fixture
def client(platform: Platform) -> Client:
    return Client(platform.env.client)


async def at_rest(platform: Platform, attempts: int) -> None:
    """Wait until so many attempts were made and what they came to has reached its run: a minute passes, in no time.

    The test server errs now and then when it is queried while a run is busy, so tests ask once all is quiet.
    """
    async with asyncio.timeout(20):
        while len(platform.attempts) < attempts:
            await asyncio.sleep(0.02)
        await platform.env.sleep(60)


async def tell(client: Client, receipt: Receipt, action: str, *names: str) -> ControlResult:
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    answer: ControlResult = await handle.execute_update(action, *names, result_type=ControlResult)
    return answer


async def description(client: Client, receipt: Receipt) -> Any:
    return await client.temporal.get_workflow_handle(receipt.workflow_id).describe()


async def test_retry_now_ends_a_wait(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"]}
    receipt = await client.publish(event())
    await at_rest(platform, attempts=2)
    assert (await tell(client, receipt, "retry_now", "a")).deliveries == 1
    await at_rest(platform, attempts=3)
    before, after = platform.times("a")
    assert (after - before).total_seconds() < 120
    async with platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.delivered == 2
    before, after = platform.times("b")
    # A run counts from the start of its workflow task.
    assert (after - before).total_seconds() >= 3599


async def test_a_verb_for_a_subscription_that_is_not_here_is_refused(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a"]}
    receipt = await client.publish(event())
    await at_rest(platform, attempts=1)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await tell(client, receipt, "retry_now", "stranger")
    assert "stranger" in str(refused.value.cause)
    await tell(client, receipt, "cancel")


async def test_a_paused_delivery_rests_until_resume(dev_server: WorkflowEnvironment) -> None:
    """In real time: the time-skipping server now and then jumps on while the activity of the other delivery starts."""
    platform, client = Platform(dev_server), Client(dev_server.client)
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"]}
    platform.answer = lambda _, attempt: (2.0, "HTTP 503", True) if attempt == 1 else DELIVERED
    async with platform.working(), asyncio.timeout(30):
        receipt = await client.publish(event())
        while len(platform.attempts) < platform.audience:
            await asyncio.sleep(0.02)
        assert (await tell(client, receipt, "pause", "a")).deliveries == 1
        while len(platform.times("b")) < 2:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        status = await client.status(receipt)
        assert [(item.subscription_id, item.paused, item.due) for item in status.unsettled] == [("a", True, None)]
        assert len(platform.times("a")) == 1, "both were due at the same time"
        assert (await tell(client, receipt, "resume", "a")).deliveries == 1
        assert (await client.wait(receipt)).counts.delivered == 2


async def test_cancelling_one_subscription_leaves_the_others(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a"], Channel.EMAIL: ["b"]}
    receipt = await client.publish(event())
    await at_rest(platform, attempts=platform.audience)
    await tell(client, receipt, "cancel", "a")
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.cancelled, status.counts.delivered) == (1, 1)
    assert platform.states[event_key(receipt), "a"] is DeliveryState.CANCELLED


def event_key(receipt: Receipt) -> str:
    return event(source=receipt.source, id=receipt.event_id).key


async def test_cancelling_an_event_settles_what_was_not_sent(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.answer = lambda name, _: DELIVERED if name == "c" else (3600.0, "HTTP 503")
    receipt = await client.publish(event())
    await at_rest(platform, attempts=platform.audience)
    await client.cancel(receipt)
    status = await client.wait(receipt, timeout=20)
    assert (status.counts.delivered, status.counts.cancelled, status.counts.unsettled) == (1, 2, 0)
    assert (await description(client, receipt)).status is WorkflowExecutionStatus.CANCELED


async def test_a_cancelled_delivery_settles_though_its_event_is_cancelled_in_the_same_task(
    dev_server: WorkflowEnvironment,
) -> None:
    """Both cancels arrive while no worker runs. The loop starts to settle `a`, and the cancel of the event interrupts that."""
    platform, client = Platform(dev_server), Client(dev_server.client)
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"]}
    platform.answer = lambda *_: (3600.0, "HTTP 503")
    published = event()
    # Without a cache there is no sticky queue, on which the next workflow task would wait for the worker that has stopped.
    async with platform.working(max_cached_workflows=0), asyncio.timeout(30):
        receipt = await client.publish(published)
        while len((await client.status(receipt)).unsettled) < 2:
            await asyncio.sleep(0.05)
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    await handle.signal("control", ControlRequest(action=Action.CANCEL, subscription_id="a"))
    await handle.cancel()
    async with platform.working():
        status = await client.wait(receipt, timeout=30)
    assert (status.counts.cancelled, status.counts.unsettled) == (2, 0)
    assert platform.states_of(published.key) == {DeliveryState.CANCELLED: 2}
    assert (await description(client, receipt)).status is WorkflowExecutionStatus.CANCELED


async def test_cancelling_an_event_cancels_its_tree(platform: Platform, client: Client) -> None:
    platform.page_size = 700
    names = [f"s{number:04}" for number in range(PAGE_SIZE + 400)]
    platform.subscribers = {Channel.WEBHOOK: names}
    platform.answer = lambda *_: (3600.0, "HTTP 503")
    receipt = await client.publish(event())
    handle = client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    await at_rest(platform, attempts=len(names))
    children = [f"{receipt.workflow_id}/page-{number}" for number in (1, 2)]
    await client.cancel(receipt)
    status = await client.wait(receipt, timeout=20)
    assert status.counts.matched == status.counts.cancelled == len(names)
    assert set(platform.states.values()) == {DeliveryState.CANCELLED}
    for child in children:
        assert (await client.temporal.get_workflow_handle(child).describe()).status is WorkflowExecutionStatus.COMPLETED
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_a_verb_for_all_reaches_every_page(platform: Platform, client: Client) -> None:
    platform.page_size = 600
    names = [f"s{number:04}" for number in range(PAGE_SIZE + 200)]
    platform.subscribers = {Channel.WEBHOOK: names}
    receipt = await client.publish(event())
    await at_rest(platform, attempts=len(names))
    answer = await tell(client, receipt, "retry_now")
    assert answer.forwarded == 2
    status = await client.wait(receipt, timeout=20)
    assert status.counts.delivered == len(names)
    assert status.settled


async def test_the_status_sums_over_pages_and_says_what_waits(platform: Platform, client: Client) -> None:
    platform.page_size = 500
    names = [f"s{number:04}" for number in range(1_500)]
    platform.subscribers = {Channel.WEBHOOK: names}
    platform.answer = lambda name, attempt: (3600.0, "HTTP 503") if name == "s0700" and attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await at_rest(platform, attempts=len(names))
    status = await client.status(receipt)
    assert status.counts.delivered == 1_499
    assert [(item.subscription_id, item.reason) for item in status.unsettled] == [("s0700", "HTTP 503")]
    assert not status.settled
    async with platform.skipping():
        assert (await client.wait(receipt)).counts.delivered == 1_500


async def test_one_event_of_a_batch_is_cancelled_and_the_rest_delivered(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a"]}
    platform.answer = lambda *_: (3600.0, "HTTP 503")
    first, second = event(), event()
    receipts = await client.publish_many([first, second])
    await at_rest(platform, attempts=2)
    await client.cancel(receipts[0])
    status = await client.wait(receipts[0], timeout=20)
    assert status.counts.cancelled == 1
    platform.answer = lambda *_: DELIVERED
    await tell(client, receipts[1], "retry_now")
    assert (await client.wait(receipts[1], timeout=20)).counts.delivered == 1
