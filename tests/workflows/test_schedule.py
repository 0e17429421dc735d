"""Deliveries that are refused, over days that take no time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest
from temporalio.testing import WorkflowEnvironment

from bellwire import Client
from bellwire.subscriptions import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, Answer, Platform, by_schedule
from workflows.policies import JITTER, SCHEDULES, SLACK_FRACTION, SLACK_SECONDS


@pytest.fixture
async def platform(time_skipping: WorkflowEnvironment) -> AsyncIterator[Platform]:
    platform = Platform(time_skipping)
    async with platform.working():
        yield platform


@pytest.fixture
def client(platform: Platform) -> Client:
    return Client(platform.env.client)


def waits(platform: Platform, subscription_id: str) -> list[float]:
    return [(later - earlier).total_seconds() for earlier, later in pairwise(platform.times(subscription_id))]


def assert_as_scheduled(measured: list[float], schedule: tuple[float, ...]) -> None:
    assert len(measured) == len(schedule)
    for wait, planned in zip(measured, schedule, strict=True):
        longest = planned * (1 + JITTER) + max(SLACK_SECONDS, SLACK_FRACTION * planned) + 1
        assert planned <= wait <= longest


async def test_a_webhook_down_for_three_days_is_delivered_on_the_last_attempt(
    platform: Platform, client: Client
) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["down"]}
    platform.answer = lambda _, attempt: DELIVERED if attempt == 10 else by_schedule()
    receipt = await client.publish(event())
    async with platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.delivered == 1
    assert_as_scheduled(waits(platform, "down"), SCHEDULES[Channel.WEBHOOK])
    first, *_, last = platform.times("down")
    assert last - first >= timedelta(hours=75, minutes=35)


async def test_a_receiver_that_never_answers_well_is_exhausted(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.SMS: ["deaf"]}
    platform.answer = lambda *_: by_schedule("Twilio 500")
    async with platform.skipping():
        status = await client.wait(await client.publish(event()))
    assert status.counts.exhausted == 1
    assert status.counts.unsettled == 0
    assert_as_scheduled(waits(platform, "deaf"), SCHEDULES[Channel.SMS])


async def test_receivers_of_one_event_follow_schedules_of_their_own(platform: Platform, client: Client) -> None:
    schedules: dict[str, tuple[float, ...]] = {"fast": (10, 20, 40), "slow": (3600, 7200), "mail": (60, 300)}
    platform.subscribers = {Channel.WEBHOOK: ["fast", "slow", "fine"], Channel.EMAIL: ["mail"]}

    def answer(name: str, attempt: int) -> Answer:
        schedule = schedules.get(name, ())
        return (schedule[attempt - 1], "later") if attempt <= len(schedule) else DELIVERED

    platform.answer = answer
    async with platform.skipping():
        status = await client.wait(await client.publish(event()))
    assert status.counts.delivered == 4
    for name, schedule in schedules.items():
        assert_as_scheduled(waits(platform, name), schedule)
    assert len(platform.times("fine")) == 1


async def test_a_stated_time_is_kept_to_the_second(platform: Platform, client: Client) -> None:
    platform.subscribers = {Channel.WEBHOOK: ["busy"]}
    platform.answer = lambda _, attempt: (7_777.0, "HTTP 429", True) if attempt == 1 else DELIVERED
    async with platform.skipping():
        await client.wait(await client.publish(event()))
    (wait,) = waits(platform, "busy")
    assert 7_777 <= wait < 7_779


async def test_deliveries_due_at_nearly_the_same_time_share_an_activity(platform: Platform, client: Client) -> None:
    names = [f"s{number:03}" for number in range(100)]
    platform.subscribers = {Channel.WEBHOOK: names}
    platform.answer = lambda _, attempt: (600.0, "HTTP 503", True) if attempt == 1 else DELIVERED
    async with platform.skipping():
        await client.wait(await client.publish(event()))
    assert len(platform.chunks) == 2
    assert len(platform.attempts) == 200
