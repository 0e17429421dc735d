"""From publish to receiver, over every channel, on a real Temporal server."""

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus

from bellwire import Event, EventConflict, EventNotFound, SubscriptionState
from bellwire.deliveries import DeliveryState, delivery_id
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System


async def test_one_event_reaches_an_email_an_sms_and_a_webhook_subscriber(system: System) -> None:
    await system.subscribe({"channel": "email", "to": "ann@example.com"}, "trio.*")
    await system.subscribe({"channel": "sms", "to": "+14155550123"}, "trio.done")
    hook = await system.hook("/trio", "*")
    event = Event(source="/tests", type="trio.done", data={"order": "42"})
    status = await system.client.wait(await system.client.publish(event), timeout=30)
    await system.registry.subscriptions.set_state(hook.id, SubscriptionState.PAUSED)
    assert status.settled
    assert (status.counts.matched, status.counts.delivered) == (3, 3)
    (posted,) = [item for item in system.hooks.received if item.path == "/trio"]
    assert posted.verified
    assert posted.event == event.structured()
    assert posted.headers["webhook-id"] == delivery_id(event.key, hook.id)
    (mail,) = [item for item in system.mailbox.mails if item.to == "ann@example.com"]
    assert "42" in mail.text
    assert [sent.to for sent in system.twilio.messages].count("+14155550123") == 1


async def test_a_receiver_that_recovers_gets_retries_with_the_same_id(system: System) -> None:
    system.hooks.script("/recovers", 503, 503)
    await system.hook("/recovers", "recover.it", retry_schedule=[0.3, 0.3])
    status = await system.client.wait(
        await system.client.publish(Event(source="/tests", type="recover.it")), timeout=30
    )
    received = [item for item in system.hooks.received if item.path == "/recovers"]
    assert status.counts.delivered == 1
    assert [item.status for item in received] == [503, 503, 204]
    assert len({item.headers["webhook-id"] for item in received}) == 1


async def test_retry_after_delays_the_next_attempt(system: System) -> None:
    system.hooks.script("/busy", WebhookResponse(status=429, headers={"Retry-After": "3"}))
    await system.hook("/busy", "busy.now", retry_schedule=[0.5])
    event = Event(source="/tests", type="busy.now")
    await system.client.wait(await system.client.publish(event), timeout=30)
    attempts = await system.registry.attempts.list(event.key)
    assert [(attempt.outcome.retry_after, attempt.delay) for attempt in attempts] == [(3.0, 3.0), (None, None)]


async def test_an_endpoint_that_is_gone_is_disabled_and_gets_nothing_more(system: System) -> None:
    system.hooks.script("/gone", 410, repeat=True)
    subscription = await system.hook("/gone", "gone.it")
    for _ in range(2):
        await system.client.wait(await system.client.publish(Event(source="/tests", type="gone.it")), timeout=30)
    stored = await system.registry.subscriptions.get(subscription.id)
    assert (stored.state, stored.state_reason) == (SubscriptionState.DISABLED, "HTTP 410")
    assert len([item for item in system.hooks.received if item.path == "/gone"]) == 1


async def test_an_address_that_the_mail_server_refuses_is_rejected(system: System) -> None:
    system.mailbox.script("unknown@example.com", "550 5.1.1 no such user", repeat=True)
    await system.subscribe({"channel": "email", "to": "unknown@example.com"}, "refuse.it")
    status = await system.client.wait(await system.client.publish(Event(source="/tests", type="refuse.it")), timeout=30)
    assert status.counts.rejected == 1


async def test_a_mail_that_is_greylisted_arrives_once(system: System) -> None:
    system.mailbox.script("grey@example.com", "451 4.7.1 come back later")
    await system.subscribe({"channel": "email", "to": "grey@example.com"}, "grey.it", retry_schedule=[0.3])
    status = await system.client.wait(await system.client.publish(Event(source="/tests", type="grey.it")), timeout=30)
    assert status.counts.delivered == 1
    assert len([mail for mail in system.mailbox.mails if mail.to == "grey@example.com"]) == 1


async def test_an_sms_whose_response_is_lost_is_sent_once(system: System) -> None:
    system.twilio.script("+14155550777", SmsResponse(accept=True, reset=True))
    await system.subscribe({"channel": "sms", "to": "+14155550777"}, "lost.it", retry_schedule=[0.5, 1])
    status = await system.client.wait(await system.client.publish(Event(source="/tests", type="lost.it")), timeout=40)
    assert status.counts.delivered == 1
    assert len([sent for sent in system.twilio.messages if sent.to == "+14155550777"]) == 1


async def test_an_event_without_matching_subscriptions_completes_at_once(system: System) -> None:
    status = await system.client.wait(await system.client.publish(Event(source="/tests", type="unmatched")), timeout=30)
    assert status.settled
    assert status.counts.matched == 0


async def test_an_event_for_one_tenant_reaches_no_other(system: System) -> None:
    await system.hook("/mine", "private.it")
    await system.hook("/theirs", "private.it", tenant="other")
    await system.client.wait(
        await system.client.publish(Event(source="/tests", type="private.it", tenant="other")), timeout=30
    )
    assert [item.path for item in system.hooks.received if item.path in {"/mine", "/theirs"}] == ["/theirs"]


async def test_twenty_concurrent_callers_start_one_run(system: System) -> None:
    await system.hook("/once", "once.it")
    event = Event(source="/tests", type="once.it", id="twenty")
    receipts = await asyncio.gather(*(system.client.publish(event) for _ in range(20)))
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert len({receipt.workflow_id for receipt in receipts}) == 1
    await system.client.wait(event, timeout=30)
    assert len([item for item in system.hooks.received if item.path == "/once"]) == 1


async def test_the_same_key_with_other_content_is_an_error(system: System) -> None:
    await system.client.publish(Event(source="/tests", type="same.key", id="k1", data=1))
    with pytest.raises(EventConflict, match="k1"):
        await system.client.publish(Event(source="/tests", type="same.key", id="k1", data=2))


async def test_an_event_published_alone_and_in_a_batch_is_delivered_once(system: System) -> None:
    await system.hook("/both", "both.ways")
    events = [Event(source="/tests", type="both.ways", id=f"both-{number}") for number in range(5)]
    await system.client.wait(await system.client.publish(events[2]), timeout=30)
    receipts = await system.client.publish_many(events)
    assert len({receipt.workflow_id for receipt in receipts}) == 1
    statuses = [await system.client.wait(receipt, timeout=30) for receipt in receipts]
    assert all(status.counts.delivered == 1 for status in statuses)
    assert statuses[2].workflow_id != receipts[2].workflow_id
    assert len([item for item in system.hooks.received if item.path == "/both"]) == 5
    again = await system.client.publish_many(events)
    assert all(receipt.duplicate for receipt in again)


async def test_an_event_of_a_batch_that_is_published_again_alone_is_found_in_the_batch(system: System) -> None:
    await system.hook("/batched", "batched.first")
    events = [Event(source="/tests", type="batched.first", id=f"batched-{number}") for number in range(3)]
    receipts = await system.client.publish_many(events)
    await system.client.wait(receipts[0], timeout=30)
    by_key = await system.client.status(("/tests", "batched-0"))
    assert by_key.workflow_id == receipts[0].workflow_id
    alone = await system.client.publish(events[1])
    assert (await system.client.wait(alone, timeout=30)).workflow_id == receipts[1].workflow_id
    assert len([item for item in system.hooks.received if item.path == "/batched"]) == 3


async def test_one_conflicting_event_of_a_batch_does_not_affect_the_others(system: System) -> None:
    await system.hook("/clash", "clash.it")
    await system.client.wait(
        await system.client.publish(Event(source="/tests", type="clash.it", id="clash-0", data="first")), timeout=30
    )
    receipts = await system.client.publish_many(
        [Event(source="/tests", type="clash.it", id=f"clash-{number}", data="second") for number in range(3)]
    )
    assert (await system.client.wait(receipts[1], timeout=30)).counts.delivered == 1
    with pytest.raises(EventConflict, match="clash-0"):
        await system.client.wait(receipts[0], timeout=30)


async def test_an_unknown_event_is_not_found(system: System) -> None:
    with pytest.raises(EventNotFound):
        await system.client.status(("/tests", "never published"))


async def test_a_settled_delivery_is_redelivered_with_the_same_id(system: System) -> None:
    subscription = await system.hook("/again", "again.it")
    event = Event(source="/tests", type="again.it")
    await system.client.wait(await system.client.publish(event), timeout=30)
    workflow_id = await system.client.retry(event, subscription.id)
    async with asyncio.timeout(30):
        await system.client.temporal.get_workflow_handle(workflow_id).result()
    received = [item for item in system.hooks.received if item.path == "/again"]
    assert len(received) == 2
    assert len({item.headers["webhook-id"] for item in received}) == 1
    assert [attempt.number for attempt in await system.registry.attempts.list(event.key)] == [1, 2]


async def test_a_delivery_whose_run_was_terminated_is_redelivered_by_another_run(system: System) -> None:
    system.hooks.script("/abandoned", 503)
    subscription = await system.hook("/abandoned", "abandon.it", retry_schedule=[3600])
    event = Event(source="/tests", type="abandon.it")
    receipt = await system.client.publish(event)
    async with asyncio.timeout(30):
        while not any(item.due for item in (await system.client.status(event)).unsettled):
            await asyncio.sleep(0.05)
    await system.client.temporal.get_workflow_handle(receipt.workflow_id).terminate("by mistake")
    workflow_id = await system.client.retry(event, subscription.id)
    async with asyncio.timeout(30):
        await system.client.temporal.get_workflow_handle(workflow_id).result()
    assert [item.status for item in system.hooks.received if item.path == "/abandoned"] == [503, 204]
    (delivery,) = await system.registry.deliveries.list(event_key=event.key)
    assert (delivery.state, delivery.workflow_id) == (DeliveryState.DELIVERED, workflow_id)


async def test_a_waiting_delivery_is_retried_now(system: System) -> None:
    system.hooks.script("/hurry", 503)
    subscription = await system.hook("/hurry", "hurry.up", retry_schedule=[3600])
    event = Event(source="/tests", type="hurry.up")
    await system.client.publish(event)
    async with asyncio.timeout(30):
        while not any(item.due for item in (await system.client.status(event)).unsettled):
            await asyncio.sleep(0.05)
    await system.client.retry(event, subscription.id)
    assert (await system.client.wait(event, timeout=30)).counts.delivered == 1


async def test_cancelling_an_event_cancels_waiting_deliveries(system: System) -> None:
    system.hooks.script("/halt", 503, repeat=True)
    subscription = await system.hook("/halt", "halt.it", retry_schedule=[3600])
    event = Event(source="/tests", type="halt.it")
    receipt = await system.client.publish(event)
    async with asyncio.timeout(30):
        while not any(item.due for item in (await system.client.status(event)).unsettled):
            await asyncio.sleep(0.05)
    await system.client.cancel(event)
    status = await system.client.wait(event, timeout=30)
    assert status.counts.cancelled == 1
    description = await system.client.temporal.get_workflow_handle(receipt.workflow_id).describe()
    assert description.status is WorkflowExecutionStatus.CANCELED
    (delivery,) = await system.registry.deliveries.list(event_key=event.key)
    assert (delivery.subscription_id, delivery.state) == (subscription.id, DeliveryState.CANCELLED)


async def test_operators_find_unsettled_events(system: System) -> None:
    system.hooks.script("/find", 503, repeat=True)
    subscription = await system.hook("/find", "find.me", tenant="acme", retry_schedule=[3600])
    event = Event(source="/tests", type="find.me", tenant="acme")
    receipt = await system.client.publish(event)
    queries = [
        "BellwireUnsettled > 0",
        f"BellwireWaiting = '{subscription.id}'",
        f"BellwireEventId = '{event.id}' AND BellwireUnsettled = 1",
        "BellwireTenant = 'acme' AND BellwireEventType = 'find.me'",
    ]
    for query in queries:
        async with asyncio.timeout(30):
            while receipt.workflow_id not in [run.id async for run in system.client.temporal.list_workflows(query)]:
                await asyncio.sleep(0.1)
    await system.client.cancel(event)
    await system.client.wait(event, timeout=30)


async def test_ids_of_every_script_are_published_and_delivered(system: System) -> None:
    await system.hook("/scripts", "scripts.*")
    ids = [
        *(f"\u0437\u0430\u043a\u0430\u0437-{number}" for number in range(100)),
        "\U0001f600" * 256,
        '"' * 256,
        "\\" * 256,
    ]
    events = [Event(source="/tests", type="scripts.it", id=name) for name in ids]
    many = await system.client.publish_many(events[:100])
    alone = [await system.client.publish(event) for event in events[100:]]
    assert [(await system.client.wait(each, timeout=60)).counts.delivered for each in [*many, *alone]] == [1] * len(ids)
    assert {item.event["id"] for item in system.hooks.received_at("/scripts")} == set(ids)
    assert not any(receipt.duplicate for receipt in [*many, *alone])
    assert (await system.client.publish(events[100])).duplicate
