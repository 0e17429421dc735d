"""What is sent within the workflow task and what by activities, and how rate-limited channels run beside the others."""

import asyncio
from collections import Counter

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from bellwire import Client, Receipt
from bellwire.contract import Summary
from bellwire.deliveries import DeliveryState
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, Response, deferred, retry_after
from tests.workflows.waiting import until, until_idle, until_in_history, update
from workflows.policies import INLINE_LIMIT, MAX_CONCURRENT_LIMITED


async def activities(client: Client, receipt: Receipt) -> list[str]:
    """The names of the activities that the workflow has scheduled, without local activities."""
    history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
    return [
        each.activity_task_scheduled_event_attributes.activity_type.name
        for each in history.events
        if each.HasField("activity_task_scheduled_event_attributes")
    ]


async def assert_delivered(platform: FakePlatform, client: Client, receipt: Receipt, number: int) -> None:
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.matched, status.counts.delivered) == (number, number)


def close_gate(platform: FakePlatform, *subscription_ids: str) -> asyncio.Event:
    """Hold the attempts for these subscriptions until the gate is set."""
    gate = asyncio.Event()
    platform.gates.update(dict.fromkeys(subscription_ids, gate))
    return gate


def attempts(platform: FakePlatform, *subscription_ids: str) -> Counter[str]:
    """How many attempts were started, by subscription."""
    return Counter(each for each, _, _ in platform.attempts if each in subscription_ids)


async def test_a_small_publication_needs_no_activity_task(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"], Channel.EMAIL: ["c"]}
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == []
    assert len(platform.attempts) == 3


async def test_an_sms_is_sent_by_its_activity_and_the_rest_inline(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"], Channel.SMS: ["s"]}
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_sms"]


@pytest.mark.parametrize(
    ("number", "by_activity"), [(INLINE_LIMIT, []), (INLINE_LIMIT + 1, ["send_email", "send_webhook"])]
)
async def test_a_first_round_over_the_inline_limit_is_sent_by_activities(
    platform: FakePlatform, client: Client, number: int, by_activity: list[str]
) -> None:
    ids = [f"s{serial:02}" for serial in range(number)]
    platform.subscriptions = {Channel.WEBHOOK: ids[1:], Channel.EMAIL: ids[:1]}
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, number)
    assert await activities(client, receipt) == by_activity


async def test_what_an_inline_send_returns_as_remaining_is_sent_by_an_activity(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"], Channel.EMAIL: ["c"]}
    platform.not_inline = {Channel.WEBHOOK}
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == ["send_webhook"]
    assert attempts(platform, "a", "b", "c") == {"a": 1, "b": 1, "c": 1}


async def test_later_rounds_are_sent_by_activities(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda each, attempt: deferred(60) if (each, attempt) == ("a", 1) else DELIVERED
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_webhook"]
    assert [(group.subscription_ids, group.attempt) for group in platform.chunks[-1].groups] == [(("a",), 2)]


async def test_a_limited_channel_sends_one_delivery_per_activity_beside_the_retries_of_other_channels(
    platform: FakePlatform, client: Client
) -> None:
    sms = ["s1", "s2", "s3"]
    platform.subscriptions = {Channel.SMS: sms, Channel.WEBHOOK: ["a"]}
    platform.limited_channels = (Channel.SMS,)
    gate = close_gate(platform, *sms)
    platform.respond = lambda each, attempt: retry_after(0.2) if each == "a" and attempt < 4 else DELIVERED
    receipt = await client.publish(event())
    await until(lambda: attempts(platform, "a")["a"] == 4)
    assert attempts(platform, *sms) == dict.fromkeys(sms, 1), "they are still in flight"
    gate.set()
    await assert_delivered(platform, client, receipt, 4)
    assert Counter(await activities(client, receipt)) == {"send_sms": 3, "send_webhook": 3}
    by_activity = [chunk.groups for chunk in platform.chunks if chunk.groups[0].channel is Channel.SMS]
    assert [len(group.subscription_ids) for (group,) in by_activity] == [1, 1, 1]


async def test_a_limited_channel_is_not_sent_inline_and_does_not_limit_other_channels(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.EMAIL: ["m"], Channel.WEBHOOK: ["a", "b"]}
    platform.limited_channels = (Channel.WEBHOOK,)
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == ["send_webhook"] * 2


async def test_a_limited_channel_retries_one_delivery_per_activity(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)
    platform.respond = lambda _, attempt: deferred(30, "Twilio 500") if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await assert_delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_sms"] * 4


async def test_a_limited_channel_has_a_bounded_number_of_pending_activities(
    platform: FakePlatform, client: Client
) -> None:
    sms = [f"s{serial:03}" for serial in range(MAX_CONCURRENT_LIMITED + 5)]
    platform.subscriptions = {Channel.SMS: sms}
    platform.limited_channels = (Channel.SMS,)
    gate = close_gate(platform, *sms)
    receipt = await client.publish(event())
    await until_in_history(client, receipt, "activity_task_scheduled", MAX_CONCURRENT_LIMITED)
    # An update wakes the loop, which would send more if it could.
    await update(client, receipt, "retry_now")
    assert len(await activities(client, receipt)) == MAX_CONCURRENT_LIMITED
    gate.set()
    await assert_delivered(platform, client, receipt, len(sms))
    assert len(await activities(client, receipt)) == len(sms)
    assert max(attempts(platform, *sms).values()) == 1


async def test_cancelling_an_event_waits_for_attempts_in_flight_over_a_limited_channel(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.SMS: ["s1", "s2"], Channel.WEBHOOK: ["a"]}
    platform.limited_channels = (Channel.SMS,)
    platform.respond = lambda each, _: DELIVERED if each == "s1" else retry_after(3600)
    gate = close_gate(platform, "s1")
    receipt = await client.publish(event())
    await until_in_history(client, receipt, "activity_task_completed")
    await until(lambda: attempts(platform, "s1", "s2", "a").total() == 3)
    await client.cancel(receipt)
    await until_in_history(client, receipt, "activity_task_cancel_requested")
    gate.set()
    status = await client.wait(receipt, timeout=60)
    assert (status.counts.delivered, status.counts.cancelled, status.counts.unsettled) == (1, 2, 0)
    described = await client.temporal.get_workflow_handle(receipt.workflow_id).describe()
    assert described.status is WorkflowExecutionStatus.CANCELED


async def test_a_delivery_cancelled_in_flight_settles_when_its_attempt_ends_though_others_are_in_flight(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)
    platform.respond = lambda each, _: DELIVERED if each == "s2" else retry_after(3600, "Twilio 500")
    first, second = close_gate(platform, "s1"), close_gate(platform, "s2")
    published = event()
    receipt = await client.publish(published)
    await until(lambda: attempts(platform, "s1", "s2").total() == 2)
    assert (await update(client, receipt, "cancel", "s1")).deliveries == 1
    first.set()
    await until(lambda: platform.state(published.key, "s1") is DeliveryState.CANCELLED)
    second.set()
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.delivered, status.counts.cancelled) == (1, 1)


async def test_a_delivery_paused_in_flight_over_a_limited_channel_waits_until_resume(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)
    platform.respond = lambda _, attempt: retry_after(0.3, "Twilio 500") if attempt == 1 else DELIVERED
    gate = close_gate(platform, "s1", "s2")
    receipt = await client.publish(event())
    await until(lambda: attempts(platform, "s1", "s2").total() == 2)
    assert (await update(client, receipt, "pause", "s1")).deliveries == 1
    gate.set()
    await until_in_history(client, receipt, "activity_task_completed", 3)
    assert attempts(platform, "s1", "s2") == {"s1": 1, "s2": 2}, "both were due"
    await until_idle(client, receipt)
    assert (await update(client, receipt, "resume", "s1")).deliveries == 1
    await assert_delivered(platform, client, receipt, 2)


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "while-another-channel-waits"])
async def test_a_limited_activity_that_fails_without_retry_fails_the_workflow(
    platform: FakePlatform, client: Client, others: int
) -> None:
    platform.subscriptions = {Channel.SMS: ["s1"], Channel.WEBHOOK: ["a"] * others}
    platform.limited_channels = (Channel.SMS,)

    def respond(subscription_id: str, _: int) -> Response:
        if subscription_id == "s1":
            raise ApplicationError("a bug", non_retryable=True)
        return retry_after(3600)

    platform.respond = respond
    receipt = await client.publish(event())
    handle = client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 30)
    assert isinstance(raised.value.cause, ActivityError)
    assert str(raised.value.cause.cause) == "a bug"
