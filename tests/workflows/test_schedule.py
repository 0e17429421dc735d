"""Deliveries that are deferred for days, on a server that skips time."""

from datetime import timedelta
from itertools import pairwise

from bellwire import Client, Receipt
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, Response, deferred, retry_after
from workflows.policies import JITTER, SCHEDULES, SLACK_FRACTION, SLACK_SECONDS

#: The server's clock also runs while a busy machine takes its time; this is far more than it takes.
BUSY_SECONDS = 60


async def timers(client: Client, receipt: Receipt) -> list[float]:
    """The durations of the timers that the workflow has started, in seconds."""
    history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
    return [
        each.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
        for each in history.events
        if each.HasField("timer_started_event_attributes")
    ]


def assert_timers_follow(timers: list[float], schedule: tuple[float, ...]) -> None:
    assert len(timers) == len(schedule)
    assert all(delay <= timer <= delay * (1 + JITTER) for timer, delay in zip(timers, schedule, strict=True))


def assert_attempts_follow(platform: FakePlatform, subscription_id: str, schedule: tuple[float, ...]) -> None:
    measured = [(later - earlier).total_seconds() for earlier, later in pairwise(platform.times(subscription_id))]
    assert len(measured) == len(schedule)
    for seconds, delay in zip(measured, schedule, strict=True):
        latest = delay * (1 + JITTER) + max(SLACK_SECONDS, SLACK_FRACTION * delay) + BUSY_SECONDS
        assert delay <= seconds <= latest


async def test_a_webhook_that_is_down_for_three_days_is_delivered_on_the_last_attempt(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["down"]}
    platform.respond = lambda _, attempt: DELIVERED if attempt == 10 else deferred()
    receipt = await client.publish(event())
    async with platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.delivered == 1
    assert_timers_follow(await timers(client, receipt), SCHEDULES[Channel.WEBHOOK])
    assert_attempts_follow(platform, "down", SCHEDULES[Channel.WEBHOOK])
    first, *_, last = platform.times("down")
    assert last - first >= timedelta(hours=75, minutes=35)


async def test_a_delivery_whose_schedule_ends_is_exhausted(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.SMS: ["down"]}
    platform.respond = lambda *_: deferred(reason="Twilio 500")
    receipt = await client.publish(event())
    async with platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.exhausted == 1
    assert status.counts.unsettled == 0
    assert_timers_follow(await timers(client, receipt), SCHEDULES[Channel.SMS])
    assert_attempts_follow(platform, "down", SCHEDULES[Channel.SMS])


async def test_deliveries_of_one_event_follow_different_schedules(platform: FakePlatform, client: Client) -> None:
    schedules: dict[str, tuple[float, ...]] = {"fast": (10, 20, 40), "slow": (3600, 7200), "mail": (60, 300)}
    platform.subscriptions = {Channel.WEBHOOK: ["fast", "slow", "up"], Channel.EMAIL: ["mail"]}

    def respond(subscription_id: str, attempt: int) -> Response:
        schedule = schedules.get(subscription_id, ())
        return deferred(schedule[attempt - 1]) if attempt <= len(schedule) else DELIVERED

    platform.respond = respond
    async with platform.skipping():
        status = await client.wait(await client.publish(event()))
    assert status.counts.delivered == 4
    for subscription_id, schedule in schedules.items():
        assert_attempts_follow(platform, subscription_id, schedule)
    assert len(platform.times("up")) == 1


async def test_retry_after_is_followed_to_the_second(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["busy"]}
    platform.respond = lambda _, attempt: retry_after(7_777, "HTTP 429") if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    async with platform.skipping():
        await client.wait(receipt)
    assert await timers(client, receipt) == [7_777]
    assert_attempts_follow(platform, "busy", (7_777,))


async def test_deliveries_due_at_nearly_the_same_time_share_an_activity(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: [f"s{number:03}" for number in range(100)]}
    platform.respond = lambda _, attempt: retry_after(600) if attempt == 1 else DELIVERED
    async with platform.skipping():
        await client.wait(await client.publish(event()))
    assert len(platform.chunks) == 2
    assert len(platform.attempts) == 200
