"""Events that replace earlier ones: the message of the earlier one is changed, or a new one is posted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from bellwire.contract import REPLACED, Chunk, HoldReason
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.targets import SPECS, Channel
from starter.local.receivers.providers.fake import Answer
from tests.activities.chat.workers import ADDRESSES, ChatWorker, chat_worker
from tests.factories import event

EDITING = [channel for channel in ADDRESSES if SPECS[channel].edits]


@pytest.fixture(params=EDITING, ids=str)
async def chat(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChatWorker]:
    async with chat_worker(request.param, tmp_path) as worker:
        yield worker


def texts(chat: ChatWorker) -> list[str]:
    """Which of the words of a test each message has."""
    return [
        "+".join(word for word in ("FIRST", "SECOND", "THIRD") if word in str(each.content)) for each in chat.messages
    ]


def test_slack_feishu_and_telegram_change_messages() -> None:
    assert {channel for channel in Channel if SPECS[channel].edits} == set(EDITING)
    assert set(EDITING) == {Channel.SLACK, Channel.FEISHU, Channel.TELEGRAM}


async def test_the_earlier_message_is_changed_and_nothing_is_posted(chat: ChatWorker) -> None:
    first = await chat.deliver("1", "FIRST")
    second = await chat.deliver("2", "SECOND", replaces="1")
    assert texts(chat) == ["SECOND"]
    assert chat.messages[0].edits == 1
    assert (second.state, second.outcome.reason.split()[-1]) == (DeliveryState.DELIVERED, "edited")
    assert second.outcome.provider_id == first.outcome.provider_id


async def test_a_chain_changes_one_message(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    await chat.deliver("2", "SECOND", replaces="1")
    await chat.deliver("3", "THIRD", replaces="2")
    assert texts(chat) == ["THIRD"]
    assert chat.messages[0].edits == 2


async def test_an_event_that_replaces_none_is_posted(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    await chat.deliver("2", "SECOND")
    await chat.deliver("3", "THIRD", replaces="never published")
    assert texts(chat) == ["FIRST", "SECOND", "THIRD"]


@pytest.mark.parametrize("why", ["deleted", "too old"])
async def test_a_message_that_cannot_be_changed_any_more_is_followed_by_a_new_one(chat: ChatWorker, why: str) -> None:
    first = await chat.deliver("1", "FIRST")
    if why == "deleted":
        chat.fake.alter(chat.messages[0], recalled=True)
    else:
        chat.fake.too_old.add(chat.messages[0].id)
    second = await chat.deliver("2", "SECOND", replaces="1")
    assert texts(chat) == ["FIRST", "SECOND"]
    assert second.state is DeliveryState.DELIVERED
    assert second.outcome.provider_id not in {None, first.outcome.provider_id}
    await chat.deliver("3", "THIRD", replaces="2")
    assert texts(chat) == ["FIRST", "THIRD"]


async def test_a_lost_answer_is_deferred_since_a_second_change_does_no_harm(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    second = await chat.publish("2", "SECOND", replaces="1")
    chat.fake.script(Answer(accept=True, reset=True))
    lost = await chat.send(second)
    assert (lost.outcome.kind, lost.state) == (OutcomeKind.DEFERRED, DeliveryState.WAITING)
    again = await chat.send(second, attempt=2)
    assert again.state is DeliveryState.DELIVERED
    assert texts(chat) == ["SECOND"]


async def test_a_worker_that_ends_in_the_middle_of_a_change_posts_nothing_twice(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    second = await chat.publish("2", "SECOND", replaces="1")
    chat.fake.script(Answer(accept=True, never=True))
    environment = ActivityEnvironment()
    chunk = Chunk(groups=(chat.group(second),), schedule=SPECS[chat.channel].schedule)
    task = asyncio.ensure_future(environment.run(chat.sender.send, chunk))
    while not chat.messages[0].edits:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert (await chat.send(second)).state is DeliveryState.DELIVERED
    assert texts(chat) == ["SECOND"]


async def test_a_busy_provider_is_asked_again_and_nothing_is_posted_meanwhile(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    second = await chat.publish("2", "SECOND", replaces="1")
    chat.fake.script(Answer(status=503, body=""))
    assert (await chat.send(second)).state is DeliveryState.WAITING
    assert texts(chat) == ["FIRST"]
    await chat.send(second, attempt=2)
    assert texts(chat) == ["SECOND"]


async def test_a_message_at_an_earlier_address_is_left_alone(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    await chat.move()
    await chat.deliver("2", "SECOND", replaces="1")
    assert texts(chat) == ["FIRST", "SECOND"]
    first, second = chat.messages
    assert first.recipient != second.recipient


async def test_a_token_that_died_is_replaced(chat: ChatWorker) -> None:
    if chat.channel is not Channel.FEISHU:
        pytest.skip("the tokens of bots do not expire")
    await chat.deliver("1", "FIRST")
    chat.fake.tokens.revoke()
    await chat.deliver("2", "SECOND", replaces="1")
    assert texts(chat) == ["SECOND"]
    assert len(chat.fake.tokens.issued) == 2


async def test_an_earlier_message_that_waits_is_not_sent_after_the_later_one(chat: ChatWorker) -> None:
    chat.fake.script(Answer(status=503, body=""))
    first = await chat.publish("1", "FIRST")
    await chat.send(first)
    await chat.deliver("2", "SECOND", replaces="1")
    assert (await chat.delivery(first)).reason == REPLACED
    await chat.run(first, attempt=2)
    assert texts(chat) == ["SECOND"]


async def test_a_message_in_flight_is_waited_for_and_then_changed(chat: ChatWorker) -> None:
    first, second = await chat.publish("1", "FIRST"), await chat.publish("2", "SECOND", replaces="1")
    (held,) = (await chat.run(second)).deferred
    assert (held.reason, held.attempts, texts(chat)) == (HoldReason.REPLACED_IN_FLIGHT, 0, [])
    await chat.send(first)
    await chat.send(second)
    assert texts(chat) == ["SECOND"]


async def test_a_chain_changes_the_message_that_is_there(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    second = await chat.publish("2", "SECOND", replaces="1")
    chat.fake.script(Answer(status=503, body=""))
    await chat.send(second)
    await chat.deliver("3", "THIRD", replaces="2")
    await chat.run(second, attempt=2)
    assert texts(chat) == ["THIRD"]


async def test_an_event_of_another_source_is_not_replaced(chat: ChatWorker) -> None:
    await chat.deliver("1", "FIRST")
    other = event(id="2", source="/other", data={"order": "SECOND"}, replaces="1")
    await chat.registry.events.accept([other], "event/2")
    await chat.registry.deliveries.add("event/2", [chat.group(other)])
    await chat.send(other)
    assert texts(chat) == ["FIRST", "SECOND"]
