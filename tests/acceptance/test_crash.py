"""A worker is killed in the middle of a round, and another worker finishes the round."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from bellwire import Event
from bellwire.deliveries import DeliveryState
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import running_system, start_worker

HOOKS, MAILS, TEXTS = 150, 60, 60


@pytest.mark.slow
async def test_a_killed_worker_loses_nothing_and_no_sms_is_sent_twice(tmp_path: Path) -> None:
    async with running_system(tmp_path, BELLWIRE_SEND_CONCURRENCY="5") as system:
        for number in range(HOOKS):
            system.hooks.script(f"/crash/{number}", WebhookResponse(delay=0.05))
            await system.hook(f"/crash/{number}", "crash.now")
        for number in range(MAILS):
            await system.subscribe({"channel": "email", "to": f"u{number}@example.com"}, "crash.now")
        for number in range(TEXTS):
            system.twilio.script(f"+1415555{number:04}", SmsResponse(delay=0.05))
            await system.subscribe({"channel": "sms", "to": f"+1415555{number:04}"}, "crash.now")

        event = Event(source="/tests", type="crash.now", data={"text": "brace"})
        receipt = await system.client.publish(event)
        async with asyncio.timeout(30):
            while len(system.twilio.messages) < TEXTS // 3 or len(system.hooks.received) < HOOKS // 10:
                await asyncio.sleep(0.01)
        os.kill(system.stack.processes[1].pid, signal.SIGKILL)
        assert len(system.twilio.messages) < TEXTS, "the kill came too late to prove anything"
        rows = await system.registry.deliveries.list(event_key=event.key, state=DeliveryState.DELIVERED, limit=500)
        recorded = {row.id for row in rows}
        assert recorded, "the kill came too early to prove anything"

        other = await start_worker(system, tmp_path, "other")
        try:
            status = await system.client.wait(receipt, timeout=90)
        finally:
            await other.stop(grace=10)

        total = HOOKS + MAILS + TEXTS
        assert (status.counts.matched, status.counts.delivered) == (total, total)
        texted = Counter(sent.to for sent in system.twilio.messages)
        assert texted == {f"+1415555{number:04}": 1 for number in range(TEXTS)}
        posted = Counter(item.headers["webhook-id"] for item in system.hooks.received)
        mailed = Counter(mail.message_id.strip("<>").partition("@")[0] for mail in system.mailbox.mails)
        assert (len(posted), len(mailed)) == (HOOKS, MAILS)
        repeated = {name for name, times in (posted + mailed).items() if times > 1}
        assert not repeated & recorded, "a recorded delivery was sent again"
        assert max((posted + mailed).values()) <= 2
        rows = await system.registry.deliveries.list(event_key=event.key, limit=500)
        assert Counter(row.state for row in rows) == {DeliveryState.DELIVERED: total}


@pytest.mark.slow
async def test_a_worker_that_stops_finishes_the_attempts_in_flight(tmp_path: Path) -> None:
    async with running_system(tmp_path, BELLWIRE_SEND_CONCURRENCY="10") as system:
        for number in range(30):
            system.hooks.script(f"/rolling/{number}", WebhookResponse(delay=0.5))
            await system.hook(f"/rolling/{number}", "rolling.now")
        receipt = await system.client.publish(Event(source="/tests", type="rolling.now"))
        await system.hooks.arrived(5)
        other = await start_worker(system, tmp_path, "other")
        try:
            os.kill(system.stack.processes[1].pid, signal.SIGTERM)
            status = await system.client.wait(receipt, timeout=60)
        finally:
            await other.stop(grace=10)
        assert status.counts.delivered == 30
        assert len({item.headers["webhook-id"] for item in system.hooks.received}) == len(system.hooks.received) == 30
