"""Purging, erasing and deleting during deliveries: nothing is lost, and every run completes."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bellwire import Event
from bellwire.contract import Group
from bellwire.deliveries import DeliveryState
from bellwire.receipts import Receipt
from bellwire.targets import Channel
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System

CHECKOUT = Path(__file__).parents[2]


async def starter(system: System, *arguments: str) -> Any:
    """The JSON that a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "starter", *arguments, "--json"),
        cwd=CHECKOUT,
        env={**os.environ, **system.variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def deferred(system: System, *receipts: Receipt) -> None:
    """Wait until each of the events has a delivery that waits for its next attempt."""
    async with asyncio.timeout(30):
        for receipt in receipts:
            while not any(item.due for item in (await system.client.status(receipt)).unsettled):
                await asyncio.sleep(0.05)


async def retry_now(system: System, receipt: Receipt) -> None:
    await system.client.temporal.get_workflow_handle(receipt.workflow_id).execute_update("retry_now", None)


@pytest.mark.slow
async def test_events_are_purged_while_others_are_delivered(system: System) -> None:
    system.hooks.script("/purge-waits", 503)
    await system.hook("/purge-waits", "purge.waits", retry_schedule=[3600])
    for number in range(3):
        await system.hook(f"/purge-{number}", "purge.it")
    waits = Event(source="/tests", type="purge.waits")
    waiting = await system.client.publish(waits)
    await deferred(system, waiting)
    old = [Event(source="/tests", type="purge.it") for _ in range(60)]
    for receipt in await system.client.publish_many(old):
        await system.client.wait(receipt, timeout=30)
    before = datetime.now(UTC)

    async def publish_and_wait() -> list[int]:
        new = [Event(source="/tests", type="purge.it") for _ in range(60)]
        receipts = await asyncio.gather(*map(system.client.publish, new))
        statuses = [await system.client.wait(receipt, timeout=60) for receipt in receipts]
        return [status.counts.delivered for status in statuses]

    purged, delivered = await asyncio.gather(system.registry.retention.purge(before), publish_and_wait())
    assert purged.events >= 60
    assert purged.kept >= 1
    assert delivered == [3] * 60
    known = await system.registry.events.by_keys([event.key for event in (*old, waits)])
    assert list(known) == [waits.key], "the waiting event is kept, the old ones are deleted"
    await retry_now(system, waiting)
    assert (await system.client.wait(waits, timeout=30)).counts.delivered == 1
    posted = [item for item in system.hooks.received if item.path.startswith("/purge-") and item.status == 204]
    assert len(posted) == 120 * 3 + 1


@pytest.mark.slow
async def test_an_event_whose_run_is_open_is_kept_although_it_is_settled(system: System) -> None:
    """Its run may find more subscriptions, or does not know yet that the deliveries are settled."""
    system.hooks.script("/purge-open", 503)
    subscription = await system.hook("/purge-open", "purge.open", retry_schedule=[3600])
    event = Event(source="/tests", type="purge.open")
    receipt = await system.client.publish(event)
    await deferred(system, receipt)
    group = Group(event_key=event.key, channel=Channel.WEBHOOK, subscription_ids=(subscription.id,))
    await system.registry.deliveries.settle([group], reason="by the test")
    assert (await starter(system, "purge", "--older-than", "0s", "--force"))["kept"] >= 1
    assert await system.registry.events.by_keys([event.key])
    await retry_now(system, receipt)
    assert (await system.client.wait(event, timeout=30)).counts.cancelled == 1
    async with asyncio.timeout(30):  # Temporal's list of open runs is updated a little later
        while await system.registry.events.by_keys([event.key]):
            await starter(system, "purge", "--older-than", "0s", "--force")


async def test_a_recipient_is_erased_while_mails_to_it_wait(system: System) -> None:
    erin, frank = "erin@example.com", "frank@example.com"
    for address in (erin, frank):
        system.mailbox.script(address, "451 4.7.1 later", repeat=True)
    await system.subscribe({"channel": "email", "to": erin}, "erase.one", retry_schedule=[3600], id="erins")
    await system.subscribe({"channel": "email", "to": [erin, frank]}, "erase.*", retry_schedule=[3600], id="theirs")
    hers = Event(source="/tests", type="erase.one", data={"order": "42"})
    theirs = [Event(source="/tests", type="erase.both", data={"order": "43"}) for _ in range(2)]
    alone = await system.client.publish(hers)
    together = await system.client.publish_many(theirs)
    await deferred(system, alone, *together)
    erased = await starter(system, "erase", erin.upper(), "--grace", "1s")
    assert (erased["emptied"], erased["shared"], erased["cancelled"]) == (["erins"], ["theirs"], 1)
    assert erased["workflow_ids"] == [alone.workflow_id]
    for address in (erin, frank):
        system.mailbox.script(address)
    for receipt in (alone, together[0]):
        await retry_now(system, receipt)
    counts = (await system.client.wait(alone, timeout=30)).counts
    assert (counts.delivered, counts.cancelled) == (1, 1)
    assert [(await system.client.wait(one, timeout=30)).counts.delivered for one in together] == [1, 1]
    assert [mail for mail in system.mailbox.mails if mail.to == erin] == []
    assert len([mail for mail in system.mailbox.mails if mail.to == frank]) == 3


async def test_a_number_is_erased_while_an_sms_to_it_is_sent(system: System) -> None:
    subscription = await system.subscribe({"channel": "sms", "to": "+14155550888"}, "forget.text")
    events = [Event(source="/tests", type="forget.text", data={"order": f"{number}"}) for number in range(40)]
    receipts = await system.client.publish_many(events)
    async with asyncio.timeout(30):
        while not any(sent.to == "+14155550888" for sent in system.twilio.messages):
            await asyncio.sleep(0.01)
    erased = await system.registry.retention.erase(Channel.SMS, "+14155550888", wait=lambda: asyncio.sleep(2))
    assert erased.emptied == [subscription.id]
    for receipt in receipts:
        assert (await system.client.wait(receipt, timeout=60)).settled
    assert all(
        found.state.settled
        for found in await system.registry.deliveries.list(subscription_id=subscription.id, limit=1000)
    )
    for event in events:
        for attempt in await system.registry.attempts.list(event.key):
            assert (attempt.outcome.provider_id, attempt.outcome.response) == (None, None)


async def test_a_subscription_is_deleted_while_its_deliveries_wait_and_are_attempted(system: System) -> None:
    system.hooks.script("/delete-waits", WebhookResponse(status=503), repeat=True)
    waits = await system.hook("/delete-waits", "delete.*", retry_schedule=[3600])
    stays = await system.hook("/delete-stays", "delete.*")
    events = [Event(source="/tests", type="delete.it") for _ in range(20)]
    receipts = await system.client.publish_many(events)
    await deferred(system, *receipts)

    async def publish_more() -> list[Receipt]:
        return [await system.client.publish(Event(source="/tests", type="delete.more")) for _ in range(20)]

    deleted, more = await asyncio.gather(system.registry.retention.delete(waits.id, cancel=True), publish_more())
    assert deleted.gone
    assert deleted.unsettled >= 20
    await retry_now(system, receipts[0])
    for receipt in receipts:
        status = await system.client.wait(receipt, timeout=60)
        assert (status.settled, status.counts.delivered, status.counts.cancelled) == (True, 1, 1)
    for receipt in more:
        async with asyncio.timeout(60):
            while (status := await system.client.status(receipt)).counts.matched == 0 or not status.settled:
                for item in status.unsettled:
                    if item.due:
                        await retry_now(system, receipt)
                await asyncio.sleep(0.1)
        assert status.counts.delivered == 1
    found = await system.registry.deliveries.list(subscription_id=stays.id, limit=1000)
    assert [one.state for one in found] == [DeliveryState.DELIVERED] * 40
    assert await system.registry.deliveries.list(subscription_id=waits.id) == []
