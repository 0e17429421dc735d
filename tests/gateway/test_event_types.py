"""Event types over HTTP, and what publishing makes of them."""

from typing import Any

import pytest

from bellwire import Client, Event
from bellwire.catalog import Catalog
from bellwire.errors import EventInvalid
from bellwire.events import uuid7
from tests.gateway.conftest import Served
from tests.gateway.test_publishing import event, publish

PRICED = {
    "type": "object",
    "required": ["order"],
    "properties": {
        "order": {"type": "string"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}},
    },
}


async def added(served: Served, **fields: Any) -> str:
    """A type of its own, with this schema."""
    name = f"catalog.{uuid7().hex}"
    response = await served.call("POST", "/v1/event-types", {"type": name, "schema": PRICED, **fields})
    assert response.status == 201, response.body
    return name


async def test_a_type_is_added_read_changed_and_deleted(served: Served) -> None:
    name = await added(served, description="Priced.", examples=[{"order": "42"}], retry_schedule=[5, 60])
    path = f"/v1/event-types/{name}"
    found = (await served.call("GET", path, key=await served.key("tenant:acme"))).json
    assert (found["type"], found["description"], found["retry_schedule"]) == (name, "Priced.", [5, 60])
    assert [(one["version"], one["schema"], one["examples"]) for one in found["versions"]] == [
        (1, PRICED, [{"order": "42"}])
    ]
    changed = await served.call("PATCH", path, {"deprecated": "use another"})
    assert (changed.status, changed.json["deprecated"], changed.json["description"]) == (200, "use another", "Priced.")
    assert (await served.call("GET", f"{path}/versions/1/schema")).json == PRICED
    assert (await served.call("GET", f"{path}/versions/1")).json["schema"] == PRICED
    assert (await served.call("GET", f"{path}/versions/2")).status == 404
    assert (await served.call("DELETE", path)).status == 204
    for method in ("GET", "DELETE"):
        missing = await served.call(method, path)
        assert (missing.status, missing.json["type"]) == (404, "/v1/problems/not-found")
    for method, body in (("PATCH", {"owner": "shop"}), ("POST", None)):
        where = path if method == "PATCH" else f"{path}/versions"
        assert (await served.call(method, where, body or {"schema": {}})).status == 404


async def test_a_new_version_must_be_compatible_unless_it_is_forced(served: Served) -> None:
    name = await added(served)
    path = f"/v1/event-types/{name}/versions"
    same = await served.call("POST", path, {"schema": PRICED})
    assert (same.status, len(same.json["versions"])) == (200, 1)
    wider = {**PRICED, "properties": {**PRICED["properties"], "note": {"type": "string"}}}  # type: ignore[dict-item]
    assert [one["version"] for one in (await served.call("POST", path, {"schema": wider})).json["versions"]] == [1, 2]
    broken = await served.call("POST", path, {"schema": {**wider, "required": ["order", "note"]}})
    assert (broken.status, broken.json["type"]) == (409, "/v1/problems/schema-incompatible")
    assert [error["field"] for error in broken.json["errors"]] == ["schema.properties.note"]
    forced = await served.call("POST", path, {"schema": {**wider, "required": ["order", "note"]}, "force": True})
    assert (forced.status, len(forced.json["versions"])) == (201, 3)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "a b"}, "type"),
        ({"type": "order.paid", "schema": {"$ref": "https://example.com/"}}, "schema.$ref"),
        ({"type": "order.paid", "schema": {"pattern": "(?=x)"}}, "schema.pattern"),
        ({"type": "order.paid", "schema": PRICED, "examples": [{"order": 1}]}, "examples[0].order"),
        ({"type": "order.paid", "schema": "text"}, "schema"),
        ({"type": "order.paid", "retry_schedule": [0]}, "retry_schedule.0"),
        ({"type": "order.paid", "shema": {}}, "shema"),
        ({}, "type"),
    ],
)
async def test_bad_types_are_refused_by_field(served: Served, body: dict[str, Any], field: str) -> None:
    response = await served.call("POST", "/v1/event-types", body)
    assert (response.status, [error["field"] for error in response.json["errors"]]) == (400, [field])


async def test_only_admin_changes_the_catalog_and_the_audit_log_has_it(served: Served) -> None:
    name = await added(served)
    for scope in ("publish", "tenant:acme"):
        key = await served.key(scope)
        assert (await served.call("POST", "/v1/event-types", {"type": name}, key=key)).status == 403
        assert (await served.call("DELETE", f"/v1/event-types/{name}", key=key)).status == 403
    await served.call("PATCH", f"/v1/event-types/{name}", {"owner": "shop"})
    await served.call("POST", f"/v1/event-types/{name}/versions", {"schema": {"type": "string"}, "force": True})
    await served.call("DELETE", f"/v1/event-types/{name}")
    entries = (await served.call("GET", "/v1/audit-log?limit=50")).json["items"]
    assert sorted(entry["action"] for entry in entries if entry["resource"] == name) == [
        "event_type.changed",
        "event_type.forced",
        "event_type.removed",
        "event_type.stored",
    ]


async def test_publishing_checks_the_data_and_points_into_it(served: Served) -> None:
    name = await added(served)
    bad = event(type=name, data={"order": "42", "items": [{}, {}, {}, {"price": "9.50"}]})
    response = await publish(served, bad)
    assert (response.status, response.json["type"]) == (400, "/v1/problems/invalid")
    assert response.json["errors"] == [{"field": "data.items[3].price", "message": 'is not of type "number"'}]
    good = event(type=name, data={"order": "42"})
    first, second = (await publish(served, [bad, good])).json
    assert [error["field"] for error in first["problem"]["errors"]] == ["data.items[3].price"]
    assert second["id"] == good["id"]
    pinned = event(type=name, data={"order": "42"}, dataschema=f"/v1/event-types/{name}/versions/9")
    assert (await publish(served, pinned)).json["errors"][0]["field"] == "dataschema"
    assert (await publish(served, event(type=f"{name}.unknown", data=[]))).status == 202


async def test_both_clients_raise_the_same_error(served: Served) -> None:
    name = await added(served)
    wrong = Event(source="/shop", type=name, data={"order": 1})
    message = r'^data\.order: is not of type "string"$'
    async with await Client.connect(url=served.url, key=served.admin) as client:
        for call in (client.publish(wrong), client.publish_many([wrong])):
            with pytest.raises(EventInvalid, match=message):
                await call
    listed = (await served.call("GET", f"/v1/event-types/{name}")).json
    direct = Client(served.system.client.temporal, catalog=Catalog.of([listed]))
    with pytest.raises(EventInvalid, match=message):
        await direct.publish(wrong)
    receipt = await direct.publish(Event(source="/shop", type=name, data={"order": "1"}))
    assert (await direct.wait(receipt, timeout=30)).settled


async def test_the_catalog_is_listed_in_pages(served: Served, session_types: list[str]) -> None:
    path, found = "/v1/event-types?limit=2", list[str]()
    while path:
        page = await served.call("GET", path)
        found += [item["type"] for item in page.json["items"]]
        path = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
    assert found == sorted(set(found))
    assert set(session_types) <= set(found)


@pytest.fixture
async def session_types(served: Served) -> list[str]:
    return [await added(served) for _ in range(3)]
