"""Replays over HTTP, and subscriptions with a past."""

import asyncio
import re
from typing import Any

import pytest

from bellwire import Event
from bellwire.deliveries import delivery_id
from bellwire.events import uuid7
from docs.generator.http_api import openapi
from starter.operations.subscribers.past import read_past
from tests.gateway.conftest import Served


async def published(served: Served, kind: str, number: int) -> list[Event]:
    events = [Event(source="/replays", type=kind, tenant="acme", id=f"{kind}-{each}") for each in range(number)]
    for receipt in await served.system.client.publish_many(events):
        await served.system.client.wait(receipt, timeout=30)
    return events


async def ended(served: Served, replay_id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            shown: dict[str, Any] = (await served.call("GET", f"/v1/replays/{replay_id}")).json
            if shown["state"] in {"completed", "cancelled"}:
                return shown
            await asyncio.sleep(0.05)


async def delivered_by(served: Served, *replays: str) -> int:
    """How many deliveries of these replays were delivered."""
    return sum([(await served.call("GET", replay)).json["outcomes"].get("delivered", 0) for replay in replays])


@pytest.mark.parametrize(
    "past",
    [
        "1h",
        "1h30m",
        "1d 2h",
        "0.5s",
        "1999-12-31T23:59:59Z",
        "2024-02-29T08:00:00.123456789+05:30",
        "2026-01-01t00:00:00-08:00",
        "2016-12-31T23:59:60z",
    ],
)
def test_the_document_allows_the_times_that_are_taken(past: str) -> None:
    read_past(past, field="since")
    schemas = openapi()["components"]["schemas"]
    given = schemas["ReplayInput"]["properties"]
    (new, _) = schemas["NewSubscription"]["properties"]["since"]["anyOf"]
    for pattern in (given["since"]["pattern"], given["until"]["pattern"], new["pattern"]):
        assert re.search(pattern, past)
        assert not any(re.search(pattern, each) for each in ("soon", "1", "", "2026-13-01T00:00:00Z", "2026-01-01"))


async def test_a_subscription_with_a_past_gets_what_happened_before_it(served: Served) -> None:
    kind = f"since.{uuid7().hex}"
    events = await published(served, kind, 3)
    target = {"channel": "poll"}
    body = {"types": [kind], "target": target, "tenant": "acme", "since": "1h"}
    created = await served.call("POST", "/v1/subscriptions", body)
    assert created.status == 201
    shown = await ended(served, created.json["replay"])
    assert (shown["total"], shown["done"], shown["outcomes"]) == (3, 3, {"delivered": 3})
    polled = await served.call("GET", f"/v1/subscriptions/{created.json['id']}/poll")
    assert polled.status == 200
    assert all(each.id in polled.body.decode() for each in events)
    for since, message in (
        ("soon", "neither a duration nor"),
        ("2999-01-01T00:00:00Z", "in the future"),
        (7, "a text"),
    ):
        refused = await served.call("POST", "/v1/subscriptions", {**body, "since": since})
        assert refused.status == 400
        assert (refused.json["errors"][0]["field"], message in refused.body.decode()) == ("since", True), since


async def test_a_replay_is_counted_started_paused_resumed_and_cancelled(served: Served) -> None:
    kind = f"replayed.{uuid7().hex}"
    events = await published(served, kind, 4)
    subscription = await served.system.hook(f"/{kind}", kind, tenant="acme")
    path = f"/v1/subscriptions/{subscription.id}/replays"
    counted = await served.call("POST", path, {"since": "1h", "dry_run": True})
    assert (counted.status, counted.json["id"], counted.json["total"]) == (200, None, 4)
    started = await served.call("POST", path, {"since": "1h", "rate": 0.01})
    assert (started.status, started.json["state"], started.json["kind"]) == (201, "running", "events")
    one = started.headers["location"]
    await served.system.hooks.arrived(1, f"/{kind}", timeout=30)
    assert (await served.call("POST", f"{one}/pause")).json["state"] == "paused"
    assert (await served.call("POST", f"{one}/pause")).json["state"] == "paused"
    assert (await served.call("POST", f"{one}/resume")).json["state"] == "running"
    assert (await served.call("POST", f"{one}/cancel")).json["state"] == "cancelled"
    again = await served.call("POST", f"{one}/resume")
    assert (again.status, "is cancelled" in again.json["detail"]) == (409, True)
    rest = await served.call("POST", path, {"since": "1h"})
    assert (await ended(served, rest.json["id"]))["state"] == "completed"
    # What the cancelled replay had begun is its own, even if the second one has selected it, too.
    async with asyncio.timeout(30):
        while await delivered_by(served, one, f"/v1/replays/{rest.json['id']}") < len(events):
            await asyncio.sleep(0.05)
    ids = [each.headers["webhook-id"] for each in served.system.hooks.received_at(f"/{kind}")]
    assert sorted(ids) == sorted(delivery_id(each.key, subscription.id) for each in events)
    delivery = await served.call("POST", path, {"delivery": ids[0]})
    assert (await ended(served, delivery.json["id"]))["done"] == 1
    assert [each.headers["webhook-id"] for each in served.system.hooks.received_at(f"/{kind}")][-1] == ids[0]
    listed = (await served.call("GET", path)).json["items"]
    assert [each["id"] for each in listed] == [delivery.json["id"], rest.json["id"], started.json["id"]]
    for body, field in (
        ({"failed": True, "delivery": ids[0]}, "delivery"),
        ({"since": "1h", "until": "2h"}, "until"),
        ({"types": ["order*"]}, "types"),
    ):
        refused = await served.call("POST", path, body)
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, field), body
