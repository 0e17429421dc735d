"""POST /v1/events: the modes of CloudEvents, what is acknowledged, and what is refused."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bellwire.events import uuid7
from tests.gateway.conftest import Response, Served

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def event(**fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid7()),
        "source": "/shop",
        "type": "gateway.tested",
        "tenant": "acme",
        **fields,
    }


async def publish(served: Served, value: Any, **headers: str) -> Response:
    content_type = BATCH if isinstance(value, list) else STRUCTURED
    data = json.dumps(value).encode()
    return await served.call("POST", "/v1/events", data=data, headers={"content-type": content_type, **headers})


async def test_an_event_in_structured_mode_is_delivered(served: Served) -> None:
    subscription = await served.system.hook("/structured", "gateway.structured", tenant="acme")
    published = event(type="gateway.structured", data={"order": "42"})
    response = await publish(served, published, prefer="wait=30")
    assert response.status == 200, response.body
    assert response.headers["preference-applied"] == "wait=30"
    assert response.json["settled"] is True
    assert response.json["counts"]["delivered"] == 1
    assert (response.json["source"], response.json["id"]) == ("/shop", published["id"])
    assert response.json["duplicate"] is False
    assert subscription.id


async def test_binary_mode_decodes_attributes_and_data(served: Served) -> None:
    event_id = str(uuid7())
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/shop",
        "ce-type": "gateway.tested",
        "ce-subject": "Euro%20%E2%82%AC",
        "ce-label": '"quoted \\"text\\""',
        "content-type": "application/json; charset=iso-8859-1",
    }
    response = await served.call("POST", "/v1/events", data='{"name": "José"}'.encode("latin-1"), headers=headers)
    assert response.status == 202, response.body
    await served.system.client.wait(("/shop", event_id), timeout=30)
    (stored,) = await served.system.registry.events.with_id(event_id)
    assert stored.event.subject == "Euro €"
    assert stored.event.extensions == {"label": 'quoted "text"'}
    assert stored.event.data == {"name": "José"}


async def test_a_repeated_event_is_a_duplicate_and_other_content_a_conflict(served: Served) -> None:
    published = event(data={"n": 1})
    first = await publish(served, published, prefer="wait=30")
    again = await publish(served, published)
    assert (first.json["duplicate"], again.status, again.json["duplicate"]) == (False, 202, True)
    other = await publish(served, {**published, "data": {"n": 2}})
    assert other.status == 409
    assert other.json["type"] == "/v1/problems/event-conflict"


async def test_a_bad_item_of_a_batch_does_not_fail_the_others(served: Served) -> None:
    good, late = event(), event()
    response = await publish(served, [good, {"specversion": "1.0", "type": "x"}, "text", late])
    assert response.status == 202, response.body
    first, bad, text, last = response.json
    assert (first["id"], last["id"]) == (good["id"], late["id"])
    assert [error["field"] for error in bad["problem"]["errors"]] == ["id", "source"]
    assert text["problem"]["status"] == 400
    for each in (good, late):
        status = await served.system.client.wait((each["source"], each["id"]), timeout=30)
        assert status.settled


async def test_many_callers_at_a_time_each_get_their_own_receipt(served: Served) -> None:
    await served.system.hook("/many", "gateway.many", tenant="acme")
    events = [event(type="gateway.many") for _ in range(200)]
    responses = await asyncio.gather(*(publish(served, each) for each in events))
    assert {response.status for response in responses} == {202}
    assert [response.json["id"] for response in responses] == [each["id"] for each in events]
    assert len({response.json["workflow_id"] for response in responses}) < 150


@pytest.mark.parametrize(
    ("headers", "data", "status", "field"),
    [
        ({"content-type": STRUCTURED}, b"{", 400, "body"),
        ({"content-type": STRUCTURED}, b"[]", 400, "body"),
        ({"content-type": STRUCTURED}, b'{"specversion":"1.0","source":"/s","type":"t"}', 400, "id"),
        ({"content-type": STRUCTURED}, b'{"specversion":"1.0","id":"1","source":"a b","type":"t"}', 400, "source"),
        ({"content-type": STRUCTURED}, b'{"specversion":"0.3","id":"1","source":"/s","type":"t"}', 400, "specversion"),
        ({"content-type": STRUCTURED}, b'{"id":"\xff"}', 400, "body"),
        (
            {"content-type": STRUCTURED},
            b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":NaN}',
            400,
            "body",
        ),
        ({"content-type": BATCH}, b"{}", 400, "body"),
        ({"content-type": BATCH}, b"[]", 400, "body"),
        ({"content-type": "text/plain"}, b"hello", 415, None),
        ({"content-type": "application/cloudevents+avro"}, b"", 415, None),
        ({"ce-id": "1"}, b"", 400, "specversion"),
        (
            {"ce-specversion": "1.0", "ce-id": "%C0%A0", "ce-source": "/s", "ce-type": "t"},
            b"",
            400,
            "id",
        ),
    ],
)
async def test_what_is_no_event_is_refused_with_the_field(
    served: Served, headers: dict[str, str], data: bytes, status: int, field: str | None
) -> None:
    response = await served.call("POST", "/v1/events", data=data, headers=headers)
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    if field:
        assert field in [error["field"] for error in problem["errors"]]


async def test_only_keys_that_may_publish_do(served: Served) -> None:
    for scope, status in (("publish", 202), ("admin", 202), ("tenant:acme", 403)):
        key = await served.key(scope)
        response = await publish(served, event(), authorization=f"Bearer {key}")
        assert response.status == status, scope
    for key in ("", "bw_mistyped", served.admin[:-1] + ("0" if served.admin[-1] != "0" else "1")):
        response = await publish(served, event(), authorization=f"Bearer {key}")
        assert (response.status, response.headers["www-authenticate"]) == (401, 'Bearer realm="bellwire"')
    response = await served.call("POST", "/v1/events", data=b"{}", key=None, headers={"content-type": STRUCTURED})
    assert response.status == 401


async def test_precheck_counts_who_would_match_and_publishes_nothing(served: Served) -> None:
    for number in range(3):
        await served.system.hook(f"/precheck-{number}", "gateway.prechecked")
    key = await served.key("publish")
    found = await served.call("POST", "/v1/events/precheck", {"type": "gateway.prechecked"}, key=key)
    assert (found.status, found.json) == (200, {"matched": 3})
    assert (await served.call("POST", "/v1/events/precheck", {"type": "gateway.nobody"})).json == {"matched": 0}
    bad = await served.call("POST", "/v1/events/precheck", {"subject": "x"})
    assert (bad.status, [error["field"] for error in bad.json["errors"]]) == (400, ["type"])
    assert await served.system.registry.events.list(type="gateway.prechecked") == []


async def test_an_event_for_later_is_followed_and_cancelled_before_it_starts(served: Served) -> None:
    published = event(type="gateway.later")
    response = await served.call("POST", "/v1/events?delay=3d", published, headers={"content-type": STRUCTURED})
    assert response.status == 202, response.body
    assert response.json["deliver_at"] > published.get("time", "")
    path, query = response.headers["location"], f"?source=/shop&id={published['id']}"
    status = await served.call("GET", f"{path}/status{query}")
    assert (status.json["scheduled"], status.json["settled"]) == (True, False)
    again = await publish(served, published)
    assert (again.json["duplicate"], "deliver_at" in again.json) == (True, False)
    other, together = (await publish(served, [event(type="gateway.later"), published])).json
    assert (other["duplicate"], together["duplicate"]) == (False, True)
    assert together["workflow_id"] == response.json["workflow_id"]
    assert (await served.call("POST", f"{path}/cancel")).status == 404
    cancelled = await served.call("POST", f"{path}/cancel{query}")
    assert cancelled.status == 200
    # A worker ends it a moment later.
    async with asyncio.timeout(30):
        while not (status := await served.call("GET", f"{path}/status{query}")).json["settled"]:
            await asyncio.sleep(0.1)
    assert status.json["cancelled"] is True


async def test_a_batch_for_later_has_one_time(served: Served) -> None:
    time = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    data = json.dumps([event(), event()]).encode()
    response = await served.call("POST", f"/v1/events?deliver_at={time}", data=data, headers={"content-type": BATCH})
    assert response.status == 202, response.body
    assert [item["deliver_at"][:19] for item in response.json] == [time[:19], time[:19]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("delay=-5s", "delay"),
        ("delay=366d", "delay"),
        ("delay=", "delay"),
        ("delay=1h&delay=2h", "delay"),
        ("deliver_at=tomorrow", "deliver_at"),
        ("deliver_at=2020-01-01T00:00:00Z", "deliver_at"),
        ("delay=1h&deliver_at=2020-01-01T00:00:00Z", "delay"),
    ],
)
async def test_a_time_that_is_not_valid_is_refused_by_its_name(served: Served, query: str, field: str) -> None:
    response = await served.call("POST", f"/v1/events?{query}", event(), headers={"content-type": STRUCTURED})
    assert (response.status, response.json["errors"][0]["field"]) == (400, field), response.body
