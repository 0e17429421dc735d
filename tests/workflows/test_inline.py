"""What is sent within the workflow task, what by activities, and how limited channels go beside the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Receipt
from bellwire.contract import ControlResult, Summary
from bellwire.deliveries import DeliveryState
from bellwire.subscriptions import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, Answer, Platform
from workflows.policies import INLINE_LIMIT, MAX_CONCURRENT_LIMITED


@pytest.fixture
async def platform(time_skipping: WorkflowEnvironment) -> AsyncIterator[Platform]:
    platform = Platform(time_skipping)
    async with platform.working():
        yield platform
        for gate in platform.gates.values():
            gate.set()


@pytest.fixture
def client(platform: Platform) -> Client:
    return Client(platform.env.client)


async def activities(client: Client, receipt: Receipt) -> list[str]:
    """The names of the activities that the run has scheduled; local ones are not among them."""
    history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
    return [
        one.activity_task_scheduled_event_attributes.activity_type.name
        for one in history.events
        if one.HasField("activity_task_scheduled_event_attributes")
    ]


async def happened(client: Client, receipt: Receipt, kind: str, number: int = 1) -> None:
    """Wait until the history of the run has so many events of a kind.

    The test server errs when a cancel meets an activity that ends.
    """
    async with asyncio.timeout(20):
        while True:
            history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
            if sum(one.HasField(f"{kind}_event_attributes") for one in history.events) >= number:  # type: ignore[arg-type]
                return
            await asyncio.sleep(0.02)


async def at_rest(client: Client, receipt: Receipt) -> None:
    """Wait until no workflow task is under way: the test server loses what it is told meanwhile."""
    async with asyncio.timeout(20):
        while True:
            history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
            last = history.events[-1].WhichOneof("attributes") or ""
            if not last.startswith(("workflow_task_scheduled", "workflow_task_started")):
                return
            await asyncio.sleep(0.02)


async def fact(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def tell(client: Client, receipt: Receipt, action: str, *names: str) -> ControlResult:
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    answer: ControlResult = await handle.execute_update(action, *names, result_type=ControlResult)
    return answer


async def delivered(platform: Platform, client: Client, receipt: Receipt, number: int) -> None:
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.matched, status.counts.delivered) == (number, number)


def closed(platform: Platform, *names: str) -> asyncio.Event:
    """One gate before all of these subscriptions."""
    gate = asyncio.Event()
    platform.gates.update(dict.fromkeys(names, gate))
    return gate


def made(platform: Platform, *names: str) -> Counter[str]:
    return Counter(name for name, _, _ in platform.attempts if name in names)


async def test_a_small_publication_needs_no_activity_task(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"], Channel.EMAIL: ["c"]}
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == []
    assert len(platform.attempts) == 3


async def test_a_text_message_goes_by_its_activity_and_the_rest_without(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a"], Channel.SMS: ["s"]}
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_sms"]


@pytest.mark.parametrize(
    ("number", "by_activity"), [(INLINE_LIMIT, []), (INLINE_LIMIT + 1, ["send_email", "send_webhook"])]
)
async def test_a_larger_first_round_goes_by_activities(
    platform: Platform, client: Client, number: int, by_activity: list[str]
) -> None:
    names = [f"s{serial:02}" for serial in range(number)]
    platform.subscribers = {Channel.WEBHOOK: names[1:], Channel.EMAIL: names[:1]}
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, number)
    assert await activities(client, receipt) == by_activity


async def test_what_is_left_goes_by_its_activity(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"], Channel.EMAIL: ["c"]}
    platform.not_at_once = {Channel.WEBHOOK}
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == ["send_webhook"]
    assert Counter(name for name, _, _ in platform.attempts) == {"a": 1, "b": 1, "c": 1}


async def test_later_rounds_go_by_activities(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"]}
    platform.answer = lambda name, attempt: (60.0, "HTTP 503") if (name, attempt) == ("a", 1) else DELIVERED
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_webhook"]
    assert [(group.subscription_ids, group.attempt) for group in platform.chunks[-1].groups] == [(("a",), 2)]


async def test_a_limited_channel_gets_one_delivery_per_activity_while_others_are_tried_again(
    platform: Platform, client: Client
) -> None:
    texts = ["s1", "s2", "s3"]
    platform.subscribers = {Channel.SMS: texts, Channel.WEBHOOK: ["a"]}
    platform.limited_channels = (Channel.SMS,)
    gate = closed(platform, *texts)
    platform.answer = lambda name, attempt: (0.2, "HTTP 503", True) if name == "a" and attempt < 4 else DELIVERED
    receipt = await client.publish(event())
    await fact(lambda: made(platform, "a")["a"] == 4)
    assert made(platform, *texts) == dict.fromkeys(texts, 1), "they are still under way"
    gate.set()
    await delivered(platform, client, receipt, 4)
    assert Counter(await activities(client, receipt)) == {"send_sms": 3, "send_webhook": 3}
    by_activity = [chunk.groups for chunk in platform.chunks if chunk.groups[0].channel is Channel.SMS]
    assert [len(group.subscription_ids) for (group,) in by_activity] == [1, 1, 1]


async def test_a_webhook_is_not_limited_by_the_limit_of_another_channel_nor_sent_at_once_if_it_has_its_own(
    platform: Platform, client: Client
) -> None:
    platform.subscribers = {Channel.EMAIL: ["m"], Channel.WEBHOOK: ["a", "b"]}
    platform.limited_channels = (Channel.WEBHOOK,)
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 3)
    assert await activities(client, receipt) == ["send_webhook"] * 2


async def test_what_a_limited_channel_defers_is_tried_again_one_by_one(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)
    platform.answer = lambda name, attempt: (30.0, "Twilio 500") if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await delivered(platform, client, receipt, 2)
    assert await activities(client, receipt) == ["send_sms"] * 4


async def test_a_limited_channel_has_a_bounded_number_of_activities_pending(platform: Platform, client: Client) -> None:
    texts = [f"s{serial:03}" for serial in range(MAX_CONCURRENT_LIMITED + 5)]
    platform.subscribers = {Channel.SMS: texts}
    platform.limited_channels = (Channel.SMS,)
    gate = closed(platform, *texts)
    receipt = await client.publish(event())
    async with asyncio.timeout(20):
        while len(await activities(client, receipt)) < MAX_CONCURRENT_LIMITED:
            await asyncio.sleep(0.05)
    # Told something, the run would send more if it could.
    await tell(client, receipt, "retry_now")
    assert len(await activities(client, receipt)) == MAX_CONCURRENT_LIMITED
    gate.set()
    await delivered(platform, client, receipt, len(texts))
    assert len(await activities(client, receipt)) == len(texts)
    assert max(made(platform, *texts).values()) == 1


async def test_cancelling_an_event_waits_for_what_is_in_flight_over_a_limited_channel(
    platform: Platform, client: Client
) -> None:
    platform.subscribers = {Channel.SMS: ["s1", "s2"], Channel.WEBHOOK: ["a"]}
    platform.limited_channels = (Channel.SMS,)
    platform.answer = lambda name, _: DELIVERED if name == "s1" else (3600.0, "HTTP 503", True)
    gate = closed(platform, "s1")
    receipt = await client.publish(event())
    await happened(client, receipt, "activity_task_completed")
    await fact(lambda: made(platform, "s1", "s2", "a").total() == 3)
    await client.cancel(receipt)
    await happened(client, receipt, "activity_task_cancel_requested")
    gate.set()
    status = await client.wait(receipt, timeout=20)
    assert (status.counts.delivered, status.counts.cancelled, status.counts.unsettled) == (1, 2, 0)
    described = await client.temporal.get_workflow_handle(receipt.workflow_id).describe()
    assert described.status is WorkflowExecutionStatus.CANCELED


async def test_what_is_cancelled_in_flight_settles_when_it_lands_though_others_are_in_flight(
    platform: Platform, client: Client
) -> None:
    platform.subscribers = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)
    platform.answer = lambda name, _: DELIVERED if name == "s2" else (3600.0, "Twilio 500", True)
    first, second = closed(platform, "s1"), closed(platform, "s2")
    published = event()
    receipt = await client.publish(published)
    await fact(lambda: made(platform, "s1", "s2").total() == 2)
    assert (await tell(client, receipt, "cancel", "s1")).deliveries == 1
    first.set()
    await fact(lambda: platform.states[published.key, "s1"] is DeliveryState.CANCELLED)
    second.set()
    async with platform.skipping():
        status = await client.wait(receipt)
    assert (status.counts.delivered, status.counts.cancelled) == (1, 1)


async def test_what_is_paused_in_flight_over_a_limited_channel_rests_until_resume(
    platform: Platform, client: Client
) -> None:
    platform.subscribers = {Channel.SMS: ["s1", "s2"]}
    platform.limited_channels = (Channel.SMS,)

    def answer(_: str, attempt: int) -> Answer:
        return (0.3, "Twilio 500", True) if attempt == 1 else DELIVERED

    platform.answer = answer
    gate = closed(platform, "s1", "s2")
    receipt = await client.publish(event())
    await fact(lambda: made(platform, "s1", "s2").total() == 2)
    assert (await tell(client, receipt, "pause", "s1")).deliveries == 1
    gate.set()
    await happened(client, receipt, "activity_task_completed", 3)
    assert made(platform, "s1", "s2") == {"s1": 1, "s2": 2}, "both were due"
    await at_rest(client, receipt)
    assert (await tell(client, receipt, "resume", "s1")).deliveries == 1
    await delivered(platform, client, receipt, 2)


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "while-another-channel-waits"])
async def test_a_limited_activity_that_fails_for_good_fails_the_run(
    platform: Platform, client: Client, others: int
) -> None:
    platform.subscribers = {Channel.SMS: ["s1"], Channel.WEBHOOK: ["a"] * others}
    platform.limited_channels = (Channel.SMS,)

    def answer(name: str, _: int) -> Answer:
        if name == "s1":
            raise ApplicationError("a bug", non_retryable=True)
        return (3600.0, "HTTP 503", True)

    platform.answer = answer
    receipt = await client.publish(event())
    handle = client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 10)
    assert isinstance(raised.value.cause, ActivityError)
    assert str(raised.value.cause.cause) == "a bug"
