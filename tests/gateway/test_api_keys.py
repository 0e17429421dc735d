"""API keys over HTTP, and what every POST of a resource has: idempotency keys, and a line in the audit log."""

import asyncio

from bellwire.events import uuid7
from starter.gateway.api.callers import TRUST_SECONDS
from tests.gateway.conftest import Served


async def test_a_key_is_shown_once_works_and_is_refused_within_seconds_once_revoked(served: Served) -> None:
    created = await served.call("POST", "/v1/api-keys", {"scope": "tenant:acme", "description": "billing"})
    assert created.status == 201, created.body
    key_id, key = created.json["id"], created.json["key"]
    shown = await served.call("GET", f"/v1/api-keys/{key_id}")
    assert (shown.json["scope"], shown.json["description"], "key" in shown.json) == ("tenant:acme", "billing", False)
    assert key.encode() not in shown.body
    assert (await served.call("GET", "/v1/channels", key=key)).status == 200
    assert (await served.call("GET", "/v1/api-keys", key=key)).status == 403
    assert (await served.call("POST", f"/v1/api-keys/{key_id}/revoke")).json["revoked_at"]
    async with asyncio.timeout(TRUST_SECONDS + 2):
        while (await served.call("GET", "/v1/channels", key=key)).status != 401:
            await asyncio.sleep(0.1)


async def test_a_rotated_key_works_beside_its_successor(served: Served) -> None:
    old = (await served.call("POST", "/v1/api-keys", {"scope": "publish"})).json
    new = (await served.call("POST", f"/v1/api-keys/{old['id']}/rotate", {"overlap": 3600})).json
    for key in (old["key"], new["key"]):
        assert (await served.call("GET", "/v1/channels", key=key)).status == 200
    assert (await served.call("GET", f"/v1/api-keys/{old['id']}")).json["expires_at"]


async def test_a_bad_scope_and_an_unknown_field_are_refused_by_name(served: Served) -> None:
    bad = await served.call("POST", "/v1/api-keys", {"scope": "root"})
    assert (bad.status, [error["field"] for error in bad.json["errors"]]) == (400, ["scope"])
    unknown = await served.call("POST", "/v1/api-keys", {"scope": "admin", "expires": 1})
    assert (unknown.status, [error["field"] for error in unknown.json["errors"]]) == (400, ["expires"])
    missing = await served.call("GET", "/v1/api-keys/key_none")
    assert (missing.status, missing.json["type"]) == (404, "/v1/problems/not-found")


async def test_lists_have_pages_with_links(served: Served) -> None:
    for _ in range(3):
        await served.call("POST", "/v1/api-keys", {"scope": "publish"})
    path, found = "/v1/api-keys?limit=2", []
    while path:
        page = await served.call("GET", path)
        found += [item["id"] for item in page.json["items"]]
        path = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
    assert len(found) == len(set(found)) >= 4
    assert found == sorted(found)
    bad = await served.call("GET", "/v1/api-keys?cursor=%FF")
    assert (bad.status, bad.json["errors"][0]["field"]) == (400, "cursor")


async def test_a_request_with_a_known_idempotency_key_is_not_executed_again(served: Served) -> None:
    new, headers = {"scope": "tenant:acme"}, {"idempotency-key": str(uuid7())}
    key_id = (await served.call("POST", "/v1/api-keys", new)).json["id"]
    first = await served.call("POST", f"/v1/api-keys/{key_id}/revoke", headers=headers)
    again = await served.call("POST", f"/v1/api-keys/{key_id}/revoke", headers=headers)
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (200, first.body, "true")
    other = await served.call("POST", f"/v1/api-keys/{key_id}/rotate", headers=headers)
    assert (other.status, other.json["type"]) == (422, "/v1/problems/idempotency-key-reused")
    for bad in ("", "x" * 256, "two words"):
        refused = await served.call("POST", "/v1/api-keys", new, headers={"idempotency-key": bad})
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_many_requests_with_one_idempotency_key_create_one_key_whose_text_is_not_stored(served: Served) -> None:
    headers, description = {"idempotency-key": str(uuid7())}, str(uuid7())
    new = {"scope": "publish", "description": description}
    responses = await asyncio.gather(*(served.call("POST", "/v1/api-keys", new, headers=headers) for _ in range(8)))
    assert sorted(response.status for response in responses) == [201] + [409] * 7
    keys = await served.system.registry.api_keys.list(limit=1000)
    assert [key.description for key in keys].count(description) == 1
    later = await served.call("POST", "/v1/api-keys", new, headers=headers)
    assert (later.status, "secret" in later.json["detail"]) == (409, True)


async def test_changes_are_in_the_audit_log_with_who_and_from_where(served: Served) -> None:
    key_id = (await served.call("POST", "/v1/api-keys", {"scope": "publish"})).json["id"]
    await served.call("POST", f"/v1/api-keys/{key_id}/revoke")
    (entry,) = await served.system.registry.audit_log.list(resource=key_id)
    (admin,) = [key for key in await served.system.registry.api_keys.list(limit=1) if key.scope.is_admin]
    assert (entry.action, entry.actor, entry.origin) == ("api_key.revoked", admin.id, "127.0.0.1")
