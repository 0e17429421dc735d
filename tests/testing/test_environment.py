"""`bellwire.testing`: what services' own tests use."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from bellwire import EmailTarget, Event, Subscription, WaitTimeout, WebhookTarget
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.errors import EventConflict
from bellwire.testing import BellwireEnvironment, bellwire_environment, deferred, rejected

SHOP, OTHER = "https://shop.example/hooks", "https://other.example/hooks"
DAY = timedelta(days=1)


@pytest.fixture
async def bellwire(time_skipping: WorkflowEnvironment) -> AsyncIterator[BellwireEnvironment]:
    async with bellwire_environment(time_skipping) as environment:
        yield environment


def webhook(url: str = SHOP, **fields: object) -> Subscription:
    return Subscription.model_validate({"types": ["order.*"], "target": {"channel": "webhook", "url": url}, **fields})


def paid(**fields: object) -> Event:
    return Event.parse({"specversion": "1.0", "source": "/shop", "type": "order.paid", **fields})


async def test_three_days_of_retries_take_a_moment() -> None:
    """The example of the documentation, with a server of its own."""
    async with bellwire_environment() as bellwire:
        await bellwire.subscribe(Subscription(types=("order.paid",), target=WebhookTarget(url=SHOP)))
        bellwire.respond(SHOP, deferred("HTTP 503"), times=9)
        start = await bellwire.now()
        receipt = await bellwire.client.publish(Event(source="/shop", type="order.paid"))
        status = await bellwire.client.wait(receipt)
        assert status.counts.delivered == 1
        (delivery,) = bellwire.deliveries
        assert (delivery.attempts, delivery.state) == (10, DeliveryState.DELIVERED)
        assert bellwire.attempts[-1].at - start > timedelta(hours=75)
        assert [each.outcome for each in bellwire.attempts] == [OutcomeKind.DEFERRED] * 9 + [OutcomeKind.DELIVERED]


async def test_only_subscriptions_that_want_the_event_get_it(bellwire: BellwireEnvironment) -> None:
    wanted = await bellwire.subscribe(webhook(filters=[{"exact": {"subject": "42"}}]))
    await bellwire.subscribe(webhook(OTHER, tenant="acme"))
    await bellwire.subscribe(webhook(OTHER, types=["invoice.*"]))
    events = [paid(subject="42"), paid(subject="43")]
    statuses = await bellwire.client.wait_many(await bellwire.client.publish_many(events))
    assert [status.counts.matched for status in statuses] == [1, 0]
    (attempt,) = bellwire.attempts
    assert (attempt.event, attempt.subscription, attempt.channel, attempt.number) == (events[0], wanted, "webhook", 1)
    assert (attempt.outcome, attempt.reason) == (OutcomeKind.DELIVERED, "HTTP 200")


async def test_a_new_subscription_gets_what_happened_since_then(bellwire: BellwireEnvironment) -> None:
    events = [paid(subject="1"), paid(subject="2")]
    for each in events:
        await bellwire.client.wait(await bellwire.client.publish(each))
        await bellwire.skip(DAY)
    bellwire.respond("recent", deferred("HTTP 503"), times=1)
    await bellwire.subscribe(webhook(id="recent"), since=DAY * 1.5)
    await bellwire.subscribe(webhook(OTHER, id="all"), since=await bellwire.now() - 3 * DAY)
    await bellwire.until(lambda: len(bellwire.attempts) == 3)
    assert [each.event for each in bellwire.attempts if each.subscription.id == "all"] == events
    assert [each.event for each in bellwire.attempts if each.subscription.id == "recent"] == events[1:]
    await bellwire.skip(timedelta(hours=1))
    await bellwire.until(lambda: len(bellwire.attempts) > 3)
    assert bellwire.attempts[3].number == 2, "what failed is retried"


async def test_a_subscription_keeps_its_own_schedule_and_the_longer_of_both_delays_counts(
    bellwire: BellwireEnvironment,
) -> None:
    await bellwire.subscribe(webhook(retry_schedule=[60, 60]))
    bellwire.respond(SHOP, deferred(retry_after=timedelta(hours=1)), deferred(retry_after=1), deferred("HTTP 500"))
    status = await bellwire.client.wait(await bellwire.client.publish(paid()))
    assert status.counts.exhausted == 1
    first, second, third = bellwire.attempts
    assert timedelta(hours=1) <= second.at - first.at < timedelta(hours=1, seconds=10)
    assert timedelta(seconds=60) <= third.at - second.at < timedelta(seconds=80)
    assert status.failed[0].reason == "HTTP 500"


async def test_scripts_are_used_in_order_and_by_address_or_subscription(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook(id="one"))
    await bellwire.subscribe(webhook(OTHER, id="two"))
    mail = EmailTarget.model_validate({"channel": "email", "to": ["ann@shop.example", "ben@shop.example"]})
    await bellwire.subscribe(Subscription(id="three", types=("order.*",), target=mail))
    bellwire.respond("one", deferred("HTTP 500"))
    bellwire.respond("two", deferred("HTTP 429"), times=2)
    bellwire.respond(OTHER, rejected("HTTP 410"))
    bellwire.respond("ben@shop.example", deferred("SMTP 451"), deferred("SMTP 452"))
    receipt = await bellwire.client.publish(paid())
    await bellwire.client.wait(receipt)
    reasons = {
        each: [attempt.reason for attempt in bellwire.attempts if attempt.subscription.id == each]
        for each in ("one", "two", "three")
    }
    assert reasons == {
        "one": ["HTTP 500"] * 10,
        "two": ["HTTP 429", "HTTP 429", "HTTP 410"],
        "three": ["SMTP 451", "SMTP 452", "HTTP 200"],
    }
    assert {each.subscription.id: each.state for each in bellwire.deliveries} == {
        "one": DeliveryState.EXHAUSTED,
        "two": DeliveryState.REJECTED,
        "three": DeliveryState.DELIVERED,
    }


async def test_time_passes_only_when_it_is_told_to(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook(retry_schedule=[3600]))
    bellwire.respond(SHOP, deferred(), times=1)
    receipt = await bellwire.client.publish(paid())
    await bellwire.until(lambda: len(bellwire.attempts) == 1)
    assert (await bellwire.client.status(receipt)).unsettled[0].reason == "HTTP 503"
    await bellwire.skip(timedelta(minutes=50))
    assert (await bellwire.client.status(receipt)).counts.unsettled == 1
    assert len(bellwire.attempts) == 1
    await bellwire.skip(timedelta(minutes=20))
    await bellwire.until(lambda: bellwire.deliveries[0].state is DeliveryState.DELIVERED)
    assert len(bellwire.attempts) == 2


async def test_an_event_for_later_is_delivered_then(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook())
    start = await bellwire.now()
    receipt = await bellwire.client.publish(paid(), delay="2d")
    await bellwire.skip(DAY)
    assert bellwire.attempts == []
    assert (await bellwire.client.status(receipt)).scheduled
    assert (await bellwire.client.wait(receipt)).counts.delivered == 1
    assert 2 * DAY <= bellwire.attempts[0].at - start < 2 * DAY + timedelta(minutes=1)


async def test_concurrent_waits_share_the_clock(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook())
    bellwire.respond(SHOP, deferred(), times=6)
    receipts = [await bellwire.client.publish(paid()) for _ in range(3)]
    statuses = await asyncio.gather(*(bellwire.client.wait(receipt) for receipt in receipts))
    assert [status.counts.delivered for status in statuses] == [1, 1, 1]
    before = await bellwire.now()
    await bellwire.skip(DAY)
    assert DAY <= await bellwire.now() - before < DAY + timedelta(minutes=1)


async def test_operators_may_cancel_pause_and_retry(bellwire: BellwireEnvironment) -> None:
    subscription = await bellwire.subscribe(webhook())
    bellwire.respond(SHOP, deferred(), times=1)
    receipt = await bellwire.client.publish(paid())
    await bellwire.until(lambda: len(bellwire.attempts) == 1)
    await bellwire.client.pause(receipt)
    await bellwire.skip(DAY)
    assert len(bellwire.attempts) == 1
    await bellwire.client.retry(receipt, subscription.id, end_pause=True)
    assert (await bellwire.client.wait(receipt)).counts.delivered == 1
    await bellwire.client.retry(receipt, subscription.id)
    await bellwire.until(lambda: len(bellwire.attempts) == 3)


async def test_publishing_twice_is_a_duplicate_or_a_conflict(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook())
    event = paid()
    assert not (await bellwire.client.publish(event)).duplicate
    assert (await bellwire.client.publish(event)).duplicate
    with pytest.raises(EventConflict):
        await bellwire.client.publish(paid(id=event.id, data={"other": True}))
    await bellwire.client.wait(event)
    assert len(bellwire.deliveries) == 1


async def test_a_wait_that_is_too_short_says_so_and_a_deleted_subscription_gets_nothing(
    bellwire: BellwireEnvironment,
) -> None:
    subscription = await bellwire.subscribe(webhook())
    bellwire.respond(SHOP, deferred())
    receipt = await bellwire.client.publish(paid())
    await bellwire.until(lambda: len(bellwire.attempts) == 1)
    with pytest.raises(WaitTimeout):
        await bellwire.client.wait(receipt, timeout=0)
    await bellwire.unsubscribe(subscription.id)
    status = await bellwire.client.wait(receipt)
    assert (status.counts.cancelled, bellwire.deliveries) == (1, [])
    assert len(bellwire.attempts) < 10


async def test_the_state_of_a_tenant_is_known(bellwire: BellwireEnvironment) -> None:
    await bellwire.subscribe(webhook(tenant="acme"))
    known, unknown = await bellwire.client.wait_many(
        await bellwire.client.publish_many([paid(tenant="acme"), paid(tenant="acmee")])
    )
    assert (known.unknown_tenant, unknown.unknown_tenant) == (False, True)


async def test_a_server_has_one_environment_at_a_time(
    bellwire: BellwireEnvironment, time_skipping: WorkflowEnvironment
) -> None:
    with pytest.raises(RuntimeError, match="already has an environment"):
        async with bellwire_environment(time_skipping):
            pass


@pytest.mark.parametrize("times", [0, -1])
async def test_a_script_without_responses_is_refused(bellwire: BellwireEnvironment, times: int) -> None:
    with pytest.raises(ValueError, match="times: must be at least 1"):
        bellwire.respond(SHOP, deferred(), times=times)
    with pytest.raises(ValueError, match="responses: give at least one"):
        bellwire.respond(SHOP)
