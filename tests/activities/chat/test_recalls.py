"""Messages that were delivered are taken back at each provider that can."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from temporalio.testing import ActivityEnvironment

from bellwire.contract import RECALLED, RecallChunk, RecallChunkResult, RecalledDelivery, RecallResult
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.events import Event
from bellwire.targets import SPECS, Channel
from starter.local.receivers.providers.fake import Answer
from tests.activities.chat.workers import ADDRESSES, NAME, ChatWorker, chat_worker

TAKEN_BACK, BUSY = RecallResult.TAKEN_BACK, RecallResult.BUSY
#: Providers whose tokens expire.
TOKENED = {Channel.WECOM, Channel.DINGTALK, Channel.FEISHU}
#: What each says of a message that is too old.
REFUSALS = {
    Channel.SLACK: (RecallResult.REFUSED, "Slack cant_delete_message"),
    Channel.TELEGRAM: (RecallResult.TOO_LATE, ""),
    Channel.FEISHU: (RecallResult.TOO_LATE, ""),
    Channel.WECOM: (RecallResult.REFUSED, "WeCom 40058"),
    Channel.DINGTALK: (RecallResult.REFUSED, "DingTalk 88"),
}


@pytest.fixture(params=ADDRESSES, ids=str)
async def chat(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChatWorker]:
    async with chat_worker(request.param, tmp_path) as worker:
        yield worker


async def sent(chat: ChatWorker, event_id: str = "1", *, replaces: str | None = None) -> Event:
    published = await chat.publish(event_id, event_id, replaces=replaces)
    await chat.send(published)
    assert len(chat.messages) == 1
    return published


async def recall(chat: ChatWorker, published: Event) -> RecalledDelivery:
    """Run the activity once."""
    (activity,) = chat.sender.activities[1:]
    request = RecallChunk(event_key=published.key, channel=chat.channel, subscription_ids=(NAME,))
    output = cast(RecallChunkResult, await ActivityEnvironment().run(activity, request))
    (answer,) = output.deliveries
    return answer


def test_every_channel_that_takes_messages_back_is_tested() -> None:
    assert set(ADDRESSES) == {channel for channel, spec in SPECS.items() if spec.recalls}


async def test_a_message_is_taken_back_and_the_delivery_says_so(chat: ChatWorker) -> None:
    published = await sent(chat)
    before = await chat.delivery(published)
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert chat.messages[0].recalled
    after = await chat.delivery(published)
    assert (after.state, after.reason, after.provider_id) == (before.state, RECALLED, before.provider_id)


async def test_a_second_recall_changes_nothing(chat: ChatWorker) -> None:
    published = await sent(chat)
    await recall(chat, published)
    requests = chat.fake.requests
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert chat.fake.requests == requests


async def test_a_message_that_is_gone_counts_as_taken_back(chat: ChatWorker) -> None:
    published = await sent(chat)
    chat.fake.alter(chat.messages[0], recalled=True)
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert (await chat.delivery(published)).reason == RECALLED


async def test_a_worker_that_ends_in_the_middle_is_repeated(chat: ChatWorker) -> None:
    published = await sent(chat)
    chat.fake.script(Answer(accept=True, never=True))
    task = asyncio.create_task(recall(chat, published))
    while not chat.messages[0].recalled:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert (await chat.delivery(published)).reason != RECALLED
    assert (await recall(chat, published)).result is TAKEN_BACK


async def test_a_token_that_died_is_replaced(chat: ChatWorker) -> None:
    if chat.channel not in TOKENED:
        pytest.skip("the tokens of bots do not expire")
    published = await sent(chat)
    chat.fake.tokens.revoke()
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert len(chat.fake.tokens.issued) == 2


@pytest.mark.parametrize("answer", [Answer(status=503, body=""), Answer(accept=True, reset=True)])
async def test_a_provider_that_is_busy_or_does_not_answer_is_asked_again(chat: ChatWorker, answer: Answer) -> None:
    published = await sent(chat)
    chat.fake.script(answer)
    # A DELETE whose connection is lost is sent again by the client itself.
    assert (await recall(chat, published)).result in {BUSY, TAKEN_BACK if chat.channel is Channel.FEISHU else BUSY}
    assert (await recall(chat, published)).result is TAKEN_BACK


async def test_a_message_that_is_too_old_is_left(chat: ChatWorker) -> None:
    published = await sent(chat)
    chat.fake.too_old.add(chat.messages[0].id)
    answer = await recall(chat, published)
    assert (answer.result, answer.detail) == REFUSALS[chat.channel]
    assert (await chat.delivery(published)).reason != RECALLED


async def test_a_refusal_after_a_day_is_too_late(chat: ChatWorker) -> None:
    if chat.channel not in {Channel.WECOM, Channel.DINGTALK}:
        pytest.skip("the refusal says whether it is too late")
    published = await sent(chat)
    chat.fake.too_old.add(chat.messages[0].id)
    old = (await chat.delivery(published)).model_copy(update={"updated_at": datetime.now(UTC) - timedelta(hours=25)})
    subscription = await chat.registry.subscriptions.get(NAME)
    assert chat.recall is not None
    assert (await chat.recall(subscription.target, old)).result is RecallResult.TOO_LATE


async def test_what_was_not_delivered_is_not_taken_back(chat: ChatWorker) -> None:
    published = await chat.publish("1", "x")
    assert (await recall(chat, published)).result is BUSY
    chat.fake.script(Answer(status=500, body=""))
    await chat.send(published)
    lost = (await chat.registry.attempts.list(published.key))[-1].outcome.kind is OutcomeKind.UNKNOWN
    assert (await recall(chat, published)).result is BUSY
    await chat.registry.deliveries.settle([chat.group(published)], reason="cancelled")
    answer = await recall(chat, published)
    assert answer.result is (RecallResult.UNKNOWN if lost else RecallResult.NOT_DELIVERED)
    assert (await chat.delivery(published)).reason == "cancelled"


async def test_a_message_of_an_attempt_that_ended_after_a_cancel_is_taken_back(chat: ChatWorker) -> None:
    if chat.channel is not Channel.SLACK:
        pytest.skip("it is the same for all")
    published = await chat.publish("1", "x")
    chat.fake.script(Answer(accept=True, delay=1))
    task = asyncio.create_task(chat.send(published))
    await chat.fake.arrived(1)
    await chat.registry.deliveries.settle([chat.group(published)], reason="cancelled")
    await task
    assert (await chat.delivery(published)).state is DeliveryState.CANCELLED
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert chat.messages[0].recalled


async def test_all_messages_of_a_delivery_that_was_redelivered_are_taken_back(chat: ChatWorker) -> None:
    published = await sent(chat)
    await chat.registry.deliveries.settle([chat.group(published)], reason="cancelled")
    await chat.registry.deliveries.redeliver("redeliver/1", [chat.group(published, attempt=2)])
    assert (await recall(chat, published)).result is BUSY
    await chat.send(published, attempt=2)
    assert (await recall(chat, published)).result is TAKEN_BACK
    assert [message.recalled for message in chat.messages] == [True, True]
    await chat.registry.deliveries.settle([chat.group(published)], reason="")
    await chat.registry.deliveries.redeliver("redeliver/2", [chat.group(published, attempt=3)])
    assert (await recall(chat, published)).result is BUSY


async def test_a_deleted_delivery_is_not_delivered(chat: ChatWorker) -> None:
    published = await sent(chat)
    request = RecallChunk(event_key=published.key, channel=chat.channel, subscription_ids=("other", NAME))
    output = await ActivityEnvironment().run(chat.sender.activities[1], request)
    assert [each.result for each in output.deliveries] == [RecallResult.NOT_DELIVERED, TAKEN_BACK]


async def test_the_message_at_an_earlier_address_is_taken_back(chat: ChatWorker) -> None:
    published = await sent(chat)
    await chat.move()
    answer = await recall(chat, published)
    if chat.channel is Channel.TELEGRAM:  # its numbers are those of a chat
        assert (answer.result, chat.messages[0].recalled) == (RecallResult.REFUSED, False)
    else:
        assert (answer.result, chat.messages[0].recalled) == (TAKEN_BACK, True)


async def test_a_message_that_was_taken_back_is_followed_by_a_new_one(chat: ChatWorker) -> None:
    if not SPECS[chat.channel].edits:
        pytest.skip("the channel does not change messages")
    first = await sent(chat)
    await recall(chat, first)
    second = await chat.deliver("2", "2", replaces="1")
    assert second.state is DeliveryState.DELIVERED
    assert [message.recalled for message in chat.messages] == [True, False]
