"""Calls of handlers within workflows, on a server that skips time. Subscription ids are service_handler."""

from bellwire import Client, Event, Handlers, Reject, Retry
from bellwire.handlers import current_delivery
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, deferred


async def test_a_handler_that_fails_for_days_is_called_by_its_schedule(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.HANDLER: ["days_work"]}
    attempts: list[int] = []
    handlers = Handlers(service="days")

    @handlers.on("*")
    def work(event: Event) -> None:
        attempts.append(current_delivery().attempt)
        if len(attempts) < 10:
            raise ConnectionError("database")

    async with handlers.running(client), platform.skipping():
        status = await client.wait(await client.publish(event()))
    assert status.counts.delivered == 1
    assert attempts == list(range(1, 11))


async def test_each_outcome_counts_and_a_webhook_beside_them_goes_on(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {
        Channel.HANDLER: ["mixed_good", "mixed_bad", "mixed_asking", "mixed_hopeless"],
        Channel.WEBHOOK: ["w"],
    }
    platform.respond = lambda _, attempt: deferred(3600) if attempt == 1 else DELIVERED
    handlers, asked = Handlers(service="mixed"), list[int]()

    @handlers.on("*")
    async def good(event: Event) -> None: ...

    @handlers.on("*")
    async def bad(event: Event) -> None:
        raise Reject("no")

    @handlers.on("*")
    async def asking(event: Event) -> None:
        asked.append(current_delivery().attempt)
        if len(asked) == 1:
            raise Retry("later", after="2d")

    @handlers.on("*")
    async def hopeless(event: Event) -> None:
        raise RuntimeError("always")

    async with handlers.running(client), platform.skipping():
        status = await client.wait(await client.publish(event()))
    assert (status.counts.delivered, status.counts.rejected, status.counts.exhausted) == (3, 1, 1)
    assert asked == [1, 2]
    assert {(each.subscription_id, each.reason) for each in status.failed} == {
        ("mixed_bad", "no"),
        ("mixed_hopeless", "RuntimeError: always"),
    }


async def test_a_call_that_a_process_does_not_know_waits_without_an_attempt(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.HANDLER: ["rolling_new"]}
    old, new, attempts = Handlers(service="rolling"), Handlers(service="rolling"), list[int]()

    @old.on("*", name="old")
    async def nothing(event: Event) -> None: ...

    @new.on("*", name="new")
    async def work(event: Event) -> None:
        attempts.append(current_delivery().attempt)

    async with old.running(client), platform.skipping():
        receipt = await client.publish(event())
        while not (unsettled := (await client.status(receipt)).unsettled) or not unsettled[0].reason:
            pass
    assert unsettled[0].reason == "the running process does not have the handler"
    async with new.running(client), platform.skipping():
        status = await client.wait(receipt)
    assert status.counts.delivered == 1
    assert attempts == [1]


async def test_pause_and_cancel_reach_calls_that_wait_for_a_service(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.HANDLER: ["gone_a", "gone_b"]}
    receipt = await client.publish(event())
    while len((await client.status(receipt)).unsettled) < 2:
        pass
    await client.pause(receipt, "gone_a")
    await client.cancel(receipt, "gone_b")
    await client.cancel(receipt)
    status = await client.wait(receipt, timeout=30)
    assert status.counts.cancelled == 2
