"""Subscriptions over HTTP: their whole life, with versions, and what is refused."""

from typing import Any

from bellwire.events import uuid7
from tests.gateway.conftest import Response, Served


async def subscribed(served: Served, path: str, kind: str, **fields: Any) -> Response:
    target = {"channel": "webhook", "url": served.system.hooks.url(path)}
    response = await served.call(
        "POST", "/v1/subscriptions", {"tenant": "acme", "types": [kind], "target": target, **fields}
    )
    assert response.status == 201, response.body
    return response


async def test_a_created_subscription_receives_signed_events(served: Served) -> None:
    created = await subscribed(served, "/http-created", "http.created")
    assert created.headers["location"] == f"/v1/subscriptions/{created.json['id']}"
    served.system.hooks.expect("/http-created", created.json["secret"])
    event = {"specversion": "1.0", "id": str(uuid7()), "source": "/http", "type": "http.created", "tenant": "acme"}
    headers = {"content-type": "application/cloudevents+json", "prefer": "wait=30"}
    published = await served.call("POST", "/v1/events", event, headers=headers)
    assert published.json["counts"]["delivered"] == 1, published.body
    shown = await served.call("GET", created.headers["location"])
    assert "secret" not in shown.json
    assert shown.json["version"] == 1


async def test_an_update_needs_the_present_version_if_it_names_one(served: Served) -> None:
    created = await subscribed(served, "/http-updated", "http.updated")
    path, etag = created.headers["location"], created.headers["etag"]
    updated = await served.call("PATCH", path, {"types": ["http.other"], "locale": "de"}, headers={"if-match": etag})
    assert (updated.status, updated.json["types"], updated.json["version"]) == (200, ["http.other"], 2), updated.body
    assert updated.headers["etag"] != etag
    late = await served.call("PATCH", path, {"locale": "fr"}, headers={"if-match": etag})
    assert (late.status, late.json["type"]) == (412, "/v1/problems/precondition-failed")
    for bad, field in (({"types": []}, "types"), ({"tenant": "rival"}, "tenant"), ({"colour": "red"}, "colour")):
        refused = await served.call("PATCH", path, bad)
        assert refused.status == 400, bad
        assert [error["field"] for error in refused.json["errors"]] == [field]


async def test_pause_resume_rotate_and_health(served: Served) -> None:
    path = (await subscribed(served, "/http-paused", "http.paused")).headers["location"]
    paused = await served.call("POST", f"{path}/pause", {"reason": "maintenance"})
    assert (paused.json["state"], paused.json["state_reason"]) == ("paused", "maintenance")
    assert (await served.call("POST", f"{path}/resume")).json["state"] == "active"
    rotated = await served.call("POST", f"{path}/rotate-secret", {"overlap": 60})
    assert rotated.json["secret"].startswith("whsec_")
    health = await served.call("GET", f"{path}/health")
    assert (health.json["state"], health.json["failures"], health.json["throttled_until"]) == ("active", 0, None)


async def test_a_test_send_tells_what_the_receiver_responded(served: Served) -> None:
    path = (await subscribed(served, "/http-tested", "http.tested")).headers["location"]
    assert (await served.call("POST", f"{path}/test")).json["outcome"] == "delivered"
    served.system.hooks.script("/http-tested", 500)
    refused = await served.call("POST", f"{path}/test", {"event": {"type": "http.tested", "data": {"n": 1}}})
    assert (refused.json["outcome"], refused.json["reason"]) == ("deferred", "HTTP 500")


async def test_a_deleted_subscription_is_gone(served: Served) -> None:
    path = (await subscribed(served, "/http-deleted", "http.deleted")).headers["location"]
    assert (await served.call("DELETE", path)).status == 204
    assert (await served.call("GET", path)).json["type"] == "/v1/problems/subscription-not-found"


async def test_what_is_no_subscription_is_refused_by_field(served: Served) -> None:
    url = served.system.hooks.url("/x")
    cases = [
        ({"types": ["a"], "target": {"channel": "webhook", "url": "ftp://x"}}, "target.webhook.url"),
        ({"types": ["a"], "target": {"channel": "pigeon"}}, "target"),
        ({"types": [], "target": {"channel": "webhook", "url": url}}, "types"),
        ({"types": ["a"], "target": {"channel": "webhook", "url": url}, "filter": []}, "filter"),
    ]
    for value, field in cases:
        refused = await served.call("POST", "/v1/subscriptions", {"tenant": "acme", **value})
        assert refused.status == 400, value
        assert any(error["field"].startswith(field.split(".")[0]) for error in refused.json["errors"]), refused.body


async def test_the_key_of_a_tenant_creates_its_own_subscriptions_only(served: Served) -> None:
    key = await served.key("tenant:tenant-a")
    value = {"types": ["a"], "target": {"channel": "webhook", "url": served.system.hooks.url("/a")}}
    own = await served.call("POST", "/v1/subscriptions", value, key=key)
    assert (own.status, own.json["tenant"]) == (201, "tenant-a")
    other = await served.call("POST", "/v1/subscriptions", {**value, "tenant": "tenant-b"}, key=key)
    assert (other.status, other.json["errors"][0]["field"]) == (400, "tenant")
