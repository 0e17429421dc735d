"""Events with more matching subscriptions than one run delivers."""

from collections import Counter

import pytest

from bellwire import Event
from bellwire.contract import Summary
from bellwire.deliveries import DeliveryState
from tests.acceptance.conftest import System

SUBSCRIBERS = 1_200


@pytest.mark.slow
async def test_1200_subscribers_get_an_event_although_three_percent_fail_first(system: System) -> None:
    failing = {f"/fan/{number}" for number in range(0, SUBSCRIBERS, 33)}
    for number in range(SUBSCRIBERS):
        path = f"/fan/{number}"
        if path in failing:
            system.hooks.script(path, 503)
        await system.hook(path, "fan.out", retry_schedule=[0.5])
    event = Event(source="/tests", type="fan.out", data={"text": "to all"})
    receipt = await system.client.publish(event)
    status = await system.client.wait(receipt, timeout=90)
    assert (status.counts.matched, status.counts.delivered) == (SUBSCRIBERS, SUBSCRIBERS)

    arrived = Counter(item.path for item in system.hooks.received if item.path.startswith("/fan/"))
    assert len(arrived) == SUBSCRIBERS
    assert {path for path, times in arrived.items() if times > 1} == failing
    accepted = [item for item in system.hooks.received if item.path.startswith("/fan/") and item.status == 204]
    assert len({item.headers["webhook-id"] for item in accepted}) == SUBSCRIBERS
    assert all(item.verified for item in accepted)

    run = system.client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    pages = [item.id async for item in system.client.temporal.list_workflows("WorkflowType = 'Dispatch'")]
    assert {f"{receipt.workflow_id}#page-{number}" for number in (1, 2)} <= set(pages)
    assert (await run.result()).counts[event.key].delivered == SUBSCRIBERS
    delivered, after = 0, ""
    while page := await system.registry.deliveries.list(event_key=event.key, after=after, limit=500):
        delivered += sum(item.state is DeliveryState.DELIVERED for item in page)
        after = page[-1].id
    assert delivered == SUBSCRIBERS
