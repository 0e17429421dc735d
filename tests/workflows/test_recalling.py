"""Recalls: what is not sent is cancelled, attempts in flight end, and a provider that is busy is asked again for a while."""

import asyncio

import pytest

from bellwire import Client, DeliveryNotFound, NotRecallable, WaitTimeout
from bellwire.contract import QUEUE, RECALL, RECALLED, RecallInput, RecallResult, recall_workflow_id
from bellwire.deliveries import DeliveryState
from bellwire.events import Event
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, retry_after
from tests.workflows.waiting import until
from workflows.policies import RECALL_DELAYS

TAKEN_BACK = RecallResult.TAKEN_BACK


async def sent(platform: FakePlatform, client: Client) -> Event:
    platform.subscriptions = {Channel.SLACK: ["a", "b", "c"]}
    published = event()
    await client.wait(await client.publish(published))
    return published


async def test_a_busy_provider_is_asked_again(platform: FakePlatform, client: Client) -> None:
    published = await sent(platform, client)
    platform.busy_recalls = len(RECALL_DELAYS)
    recalled = await client.recall(published)
    assert recalled.results == {TAKEN_BACK: 3}
    assert {each.reason for each in platform.deliveries.values()} == {RECALLED}


async def test_a_provider_that_stays_busy_is_asked_a_few_times_only(platform: FakePlatform, client: Client) -> None:
    published = await sent(platform, client)
    platform.busy_recalls = 1_000
    recalled = await client.recall(published)
    assert (recalled.results, recalled.unfinished) == ({RecallResult.BUSY: 3}, 3)
    assert platform.busy_recalls == 1_000 - 1 - len(RECALL_DELAYS)


async def test_what_waits_is_cancelled_and_what_is_in_flight_is_taken_back(
    platform: FakePlatform, client: Client
) -> None:
    # Each over a channel of its own: the fake attempts those of one activity in turn.
    platform.subscriptions = {Channel.SLACK: ["flying"], Channel.TELEGRAM: ["waiting"], Channel.WEBHOOK: ["hook"]}
    platform.gates["flying"] = asyncio.Event()
    platform.not_inline = {Channel.SLACK}
    platform.respond = lambda name, _: retry_after(3600) if name == "waiting" else DELIVERED
    published = event()
    await client.publish(published)
    await until(lambda: len(platform.attempts) == 3)
    recalling = asyncio.create_task(client.recall(published))
    await until(lambda: platform.state(published.key, "hook") is DeliveryState.DELIVERED)
    with pytest.raises(WaitTimeout, match="it goes on"):
        await client.recall(published, timeout=0.2)
    platform.gates["flying"].set()
    recalled = await recalling
    assert {each.subscription_id: each.result for each in recalled.deliveries} == {
        "flying": TAKEN_BACK,
        "waiting": RecallResult.NOT_DELIVERED,
        "hook": RecallResult.UNSUPPORTED,
    }
    assert platform.state(published.key, "waiting") is DeliveryState.CANCELLED


async def test_one_subscription_is_recalled_and_the_others_go_on(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.SLACK: ["a", "b"]}
    platform.respond = lambda name, _: retry_after(3600) if name == "b" else DELIVERED
    published = event()
    await client.publish(published)
    await until(
        lambda: (
            {each.state for each in platform.deliveries.values()} >= {DeliveryState.DELIVERED, DeliveryState.WAITING}
        )
    )
    assert (await client.recall(published, "a")).results == {TAKEN_BACK: 1}
    assert platform.state(published.key, "b") is DeliveryState.WAITING
    with pytest.raises(DeliveryNotFound, match="no delivery for subscription other"):
        await client.recall(published, "other")


async def test_an_event_without_a_channel_that_can_is_refused_and_goes_on(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.EMAIL: ["e"], Channel.WEBHOOK: ["w"]}
    platform.respond = lambda name, _: retry_after(3600) if name == "w" else DELIVERED
    published = event()
    await client.publish(published)
    await until(lambda: len(platform.attempts) == 2)
    with pytest.raises(NotRecallable, match=r"\(email, webhook\); cancel the event"):
        await client.recall(published)
    assert platform.state(published.key, "w") is DeliveryState.WAITING


async def test_a_recall_that_runs_is_joined(platform: FakePlatform, client: Client) -> None:
    published = await sent(platform, client)
    platform.busy_recalls = 1
    first, second = await asyncio.gather(client.recall(published), client.recall(published))
    assert first == second
    assert platform.busy_recalls == -1


async def test_pages_continue_as_new_with_what_was_done(platform: FakePlatform, client: Client) -> None:
    published = await sent(platform, client)
    request = RecallInput(
        source=published.source,
        id=published.id,
        event_key=published.key,
        workflow_id="gone",
        after="dlv_",
        done=(await client.recall(published)),
    )
    recalled = await client.temporal.execute_workflow(
        RECALL,
        request,
        id=recall_workflow_id(published.key, None),
        task_queue=QUEUE,
        result_type=type(request.done),
    )
    assert recalled.results == {TAKEN_BACK: 6}
