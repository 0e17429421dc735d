"""Events that are published for later: listed, cancelled before they start, and delivered when they are due."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from bellwire import Client, Event
from starter.checkout import CHECKOUT
from starter.local.processes import environment_without
from starter.operations.delivery.scheduled import list_scheduled
from tests.acceptance.conftest import System

#: Seconds for what takes a second or two on an idle machine.
PATIENCE = 120


async def starter(system: System, *arguments: str) -> Any:
    """Run a command, and return what it prints as JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", *arguments, "--json"),
        env={**environment_without("BELLWIRE_", "TEMPORAL_"), **system.variables, "PYTHONPATH": str(CHECKOUT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def listed(system: System, kind: str) -> list[str]:
    return [each.id for each in await list_scheduled(system.client, type=kind)]


async def until_listed(system: System, number: int, kind: str) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while len(found := await listed(system, kind)) != number:
            await asyncio.sleep(0.1)
    return found


async def test_an_event_is_delivered_at_its_time_to_the_subscriptions_of_that_time(system: System) -> None:
    kind = "later.delivered"
    event = Event(source="/later", type=kind, data={"n": 1})
    deliver_at = datetime.now(UTC) + timedelta(seconds=6)
    receipt = await system.client.publish(event, deliver_at=deliver_at)
    status = await system.client.status(event)
    assert (status.scheduled, status.settled) == (True, False)
    assert status.deliver_at is not None
    assert abs(status.deliver_at - deliver_at) < timedelta(seconds=2)
    await system.hook("/later-new", kind)
    status = await system.client.wait(receipt, timeout=PATIENCE)
    assert (status.counts.delivered, status.scheduled) == (1, False)
    (stored,) = await system.registry.events.with_id(event.id)
    # It is accepted when it starts; the clocks of server and test are those of one machine.
    assert stored.accepted_at >= deliver_at - timedelta(seconds=1)


async def test_a_scheduled_event_is_listed_shown_and_cancelled_by_commands(system: System) -> None:
    kind = "later.cancelled"
    await system.hook("/later-cancelled", kind)
    published = await starter(
        system,
        *("publish", "--type", kind, "--source", "/later", "--id", "it's later", "--tenant", "acme", "--delay", "200d"),
    )
    assert datetime.fromisoformat(published["deliver_at"]) > datetime.now(UTC) + timedelta(days=199)
    await until_listed(system, 1, kind)
    (scheduled,) = await starter(system, "events", "scheduled", "--type", kind, "--tenant", "acme")
    assert (scheduled["id"], scheduled["source"], scheduled["tenant"]) == ("it's later", "/later", "acme")
    shown = await starter(system, "events", "show", "it's later")
    assert shown == scheduled
    await starter(system, "events", "cancel", "it's later")
    await until_listed(system, 0, kind)
    status = await system.client.wait(("/later", "it's later"), timeout=PATIENCE)
    assert (status.cancelled, status.settled, status.counts.matched) == (True, True, 0)
    (entry, *_) = [
        each for each in await system.registry.audit_log.list(tenant="acme") if each.action == "event.cancelled"
    ]
    assert entry.resource == Event(source="/later", type=kind, id="it's later").key
    assert not [each for each in system.hooks.received if each.path == "/later-cancelled"]


async def test_an_event_that_waits_is_delivered_once_also_if_it_is_published_at_once_with_others(
    system: System,
) -> None:
    """What the guide says: a run of several events does not see the one that another client has published for later."""
    kind = "later.grouped"
    await system.hook("/later-grouped", kind)
    events = [Event(source="/later", type=kind, data={"n": number}) for number in range(2)]
    later = await system.client.publish(events[0], delay=8)
    grouped = await Client(system.client.temporal).publish_many(events)
    assert not any(receipt.duplicate for receipt in grouped)
    statuses = await system.client.wait_many(grouped, timeout=PATIENCE)
    assert [status.counts.delivered for status in statuses] == [1, 1]
    await asyncio.wait_for(system.client.temporal.get_workflow_handle(later.workflow_id).result(), PATIENCE)
    (stored,) = await system.registry.events.with_id(events[0].id)
    assert later.deliver_at is not None
    assert stored.accepted_at < later.deliver_at
    deliveries = await system.registry.deliveries.list(event_key=events[0].key)
    assert [delivery.attempts for delivery in deliveries] == [1]
