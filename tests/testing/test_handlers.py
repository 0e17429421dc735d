"""Handlers of a service in `bellwire.testing`: real functions, on a clock that skips."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from bellwire import Event, Handlers, Reject, Retry
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.handlers import current_delivery
from bellwire.testing import BellwireEnvironment, bellwire_environment


@pytest.fixture
async def bellwire(time_skipping: WorkflowEnvironment) -> AsyncIterator[BellwireEnvironment]:
    async with bellwire_environment(time_skipping) as environment:
        yield environment


def registered(user: str) -> Event:
    return Event(source="/accounts", type="user.registered", data={"user": user})


async def test_a_handler_that_fails_for_a_day_is_called_again_until_it_succeeds(bellwire: BellwireEnvironment) -> None:
    handlers, called = Handlers(service="accounts"), list[tuple[object, int]]()

    @handlers.on("user.*", retry_schedule=["6h"] * 4)
    async def send_welcome(event: Event) -> None:
        called.append((event.data, current_delivery().attempt))
        if len(called) < 5:
            raise ConnectionError("the mail server is down")

    async with bellwire.running(handlers):
        start = await bellwire.now()
        status = await bellwire.client.wait(await bellwire.client.publish(registered("ann")))
        assert status.counts.delivered == 1
    assert called == [({"user": "ann"}, number) for number in range(1, 6)]
    assert [(each.outcome, each.reason) for each in bellwire.attempts] == [
        *[(OutcomeKind.DEFERRED, "ConnectionError: the mail server is down")] * 4,
        (OutcomeKind.DELIVERED, "handled"),
    ]
    assert bellwire.attempts[-1].at - start > timedelta(hours=24)


async def test_functions_that_are_not_async_retry_and_reject(bellwire: BellwireEnvironment) -> None:
    handlers = Handlers(service="accounts", application="tests")

    @handlers.on("user.registered")
    def check(event: Event) -> None:
        if current_delivery().attempt == 1:
            raise Retry("later", after="1h")
        raise Reject("no such user")

    async with bellwire.running(handlers):
        status = await bellwire.client.wait(await bellwire.client.publish(registered("ben")))
    assert status.failed[0].reason == "no such user"
    (delivery,) = bellwire.deliveries
    assert (delivery.state, delivery.attempts) == (DeliveryState.REJECTED, 2)
    first, second = bellwire.attempts
    assert timedelta(hours=1) <= second.at - first.at < timedelta(hours=2)


async def test_events_wait_while_the_service_does_not_run(bellwire: BellwireEnvironment) -> None:
    handlers, called = Handlers(service="accounts"), list[str]()

    @handlers.on("user.registered")
    async def note(event: Event) -> None:
        called.append(event.id)

    async with bellwire.running(handlers):
        pass
    event = registered("cid")
    receipt = await bellwire.client.publish(event)
    await bellwire.until(lambda: len(bellwire.deliveries) == 1)
    assert called == []
    async with bellwire.running(handlers):
        assert (await bellwire.client.wait(receipt)).counts.delivered == 1
    assert called == [event.id]


async def test_a_new_handler_gets_what_happened_since_then_once(bellwire: BellwireEnvironment) -> None:
    handlers, called = Handlers(service="accounts"), list[object]()

    @handlers.on("user.*", since="1h")
    async def note(event: Event) -> None:
        called.append(event.data)

    await bellwire.client.wait(await bellwire.client.publish(registered("old")))
    await bellwire.skip(timedelta(hours=2))
    past = [registered("ann"), registered("ben")]
    await bellwire.client.wait_many([await bellwire.client.publish(each) for each in past])
    for _ in range(2):
        async with bellwire.running(handlers):
            await bellwire.until(lambda: len(called) >= 2)
            await bellwire.client.wait(await bellwire.client.publish(registered("new")))
    names = [data["user"] for data in called if isinstance(data, dict)]
    assert (set(names[:2]), names[2:]) == ({"ann", "ben"}, ["new", "new"])
    assert {each.state for each in bellwire.deliveries} == {DeliveryState.DELIVERED}


async def test_a_handler_without_since_gets_nothing_that_happened_before(bellwire: BellwireEnvironment) -> None:
    handlers, called = Handlers(service="accounts"), list[object]()

    @handlers.on("user.*")
    async def note(event: Event) -> None:
        called.append(event.data)

    await bellwire.client.wait(await bellwire.client.publish(registered("old")))
    async with bellwire.running(handlers):
        await bellwire.client.wait(await bellwire.client.publish(registered("new")))
    assert called == [{"user": "new"}]
