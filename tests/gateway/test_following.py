"""Events and deliveries over HTTP: what is listed, shown, waited for, cancelled and redelivered, and for whom."""

import asyncio
from typing import Any

from bellwire import Event, Receipt
from tests.gateway.conftest import Served


async def published(served: Served, **fields: Any) -> tuple[Event, Receipt]:
    event = Event.model_validate({"source": "/shop", "type": "gateway.followed", "data": {"n": 1}, **fields})
    return event, await served.system.client.publish(event)


async def test_an_event_is_shown_with_deliveries_and_attempts(served: Served) -> None:
    subscription = await served.system.hook("/shown", "gateway.shown")
    event, receipt = await published(served, type="gateway.shown")
    await served.system.client.wait(receipt, timeout=30)
    shown = await served.call("GET", f"/v1/events/{event.key}")
    assert shown.status == 200, shown.body
    assert shown.json["event"] == event.structured()
    assert (shown.json["settled"], shown.json["counts"]["delivered"], shown.json["deliveries"]) == (True, 1, None)
    whole = await served.call("GET", f"/v1/events/{event.key}?include=deliveries&include=attempts")
    (delivery,) = whole.json["deliveries"]
    assert (delivery["subscription"], delivery["state"]) == (subscription.id, "delivered")
    (attempt,) = delivery["attempt_log"]
    assert (attempt["number"], attempt["outcome"]) == (1, "delivered")
    alone = await served.call("GET", f"/v1/deliveries/{delivery['id']}")
    assert alone.json["attempt_log"] == delivery["attempt_log"]


async def test_lists_have_pages_in_order(served: Served) -> None:
    await served.system.hook("/listed", "gateway.listed")
    events = []
    for number in range(5):
        event, receipt = await published(served, type="gateway.listed", id=f"listed-{number}")
        await served.system.client.wait(receipt, timeout=30)
        events.append(event.key)
    path, found = "/v1/events?type=gateway.listed&limit=2", []
    while path:
        page = await served.call("GET", path)
        found += [item["key"] for item in page.json["items"]]
        path = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
    assert found == events[::-1]
    deliveries = await served.call("GET", f"/v1/deliveries?event={events[0]}&state=delivered")
    assert [item["event"] for item in deliveries.json["items"]] == [events[0]]
    bad = await served.call("GET", "/v1/deliveries?state=lost")
    assert (bad.status, bad.json["errors"][0]["field"]) == (400, "state")


async def test_status_waits_until_the_event_has_settled(served: Served) -> None:
    await served.system.hook("/waited", "gateway.waited")
    event, _ = await published(served, type="gateway.waited")
    path = f"/v1/events/{event.key}/status?source=/shop&id={event.id}"
    status = await served.call("GET", path, headers={"prefer": "wait=30"})
    assert status.status == 200, status.body
    assert (status.json["settled"], status.json["counts"]["delivered"]) == (True, 1)
    too_long = await served.call("GET", path, headers={"prefer": "wait=61"})
    assert too_long.status == 400


async def test_an_event_is_cancelled_and_its_delivery_redelivered(served: Served) -> None:
    served.system.hooks.script("/refusing", 500, repeat=True)
    await served.system.hook("/refusing", "gateway.cancelled")
    event, receipt = await published(served, type="gateway.cancelled")
    async with asyncio.timeout(30):
        while not (await served.system.client.status(receipt)).unsettled:
            await asyncio.sleep(0.1)
    cancelled = await served.call("POST", f"/v1/events/{event.key}/cancel")
    assert cancelled.status == 200, cancelled.body
    await served.system.client.wait(receipt, timeout=30)
    (delivery,) = (await served.call("GET", f"/v1/deliveries?event={event.key}")).json["items"]
    assert delivery["state"] == "cancelled"
    redelivery = await served.call("POST", f"/v1/deliveries/{delivery['id']}/redeliver")
    assert (redelivery.status, "workflow_id" in redelivery.json) == (202, True)


async def test_what_does_not_exist_is_a_problem(served: Served) -> None:
    for method, path in (
        ("GET", "/v1/events/nothing"),
        ("GET", "/v1/events/nothing/status"),
        ("POST", "/v1/events/nothing/cancel"),
        ("POST", "/v1/events/nothing/recall"),
        ("GET", "/v1/deliveries/nothing"),
        ("GET", "/v1/deliveries/dlv_aaaaaaaaaaaaaaaaaaaaaaaaaa_sub"),
        ("POST", "/v1/deliveries/nothing/redeliver"),
        ("GET", "/v1/nothing"),
    ):
        response = await served.call(method, path)
        assert (response.status, response.headers["content-type"]) == (404, "application/problem+json"), path
    wrong = await served.call("DELETE", "/v1/events")
    assert (wrong.status, wrong.json["type"]) == (405, "/v1/problems/method-not-allowed")
