"""Isolation: the key of a tenant can never see, guess or touch what is another tenant's, nor learn whether it exists."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest

from bellwire import Event
from bellwire.events import uuid7
from bellwire.replays import replay_since
from starter.gateway.api.paging import cursor_of
from starter.operations.subscribers.suppressions import suppress
from tests.gateway.conftest import Response, Served
from tests.gateway.test_malformed import of_channel, valid_bodies

#: Who may use each operation. `own`: a tenant sees its own and gets 404 for the rest; `list`: a list of its own; `any`: nothing
#: in it belongs to a tenant; `body`: as `own`, for a subscription that the body names; `admin` and `publish`: keys of tenants get
#: 403.
OPERATIONS = {
    "GET /v1/api-keys": "admin",
    "POST /v1/api-keys": "admin",
    "GET /v1/api-keys/{key_id}": "admin",
    "POST /v1/api-keys/{key_id}/revoke": "admin",
    "POST /v1/api-keys/{key_id}/rotate": "admin",
    "GET /v1/audit-log": "admin",
    "GET /v1/channels": "any",
    "GET /v1/channels/{name}/schema": "any",
    "GET /v1/deliveries": "list",
    "GET /v1/deliveries/{delivery_id}": "own",
    "POST /v1/deliveries/{delivery_id}/redeliver": "own",
    "DELETE /v1/event-types/{type}": "admin",
    "GET /v1/event-types": "any",
    "GET /v1/event-types/{type}": "any",
    "GET /v1/event-types/{type}/versions/{version}": "any",
    "GET /v1/event-types/{type}/versions/{version}/schema": "any",
    "PATCH /v1/event-types/{type}": "admin",
    "POST /v1/event-types": "admin",
    "POST /v1/event-types/{type}/versions": "admin",
    "GET /v1/events": "list",
    "POST /v1/events": "publish",
    "GET /v1/events/{key}": "own",
    "GET /v1/events/{key}/explain": "own",
    "POST /v1/events/{key}/cancel": "publish",
    "POST /v1/events/{key}/recall": "publish",
    "GET /v1/events/{key}/status": "publish",
    "POST /v1/events/precheck": "publish",
    "GET /v1/limits": "admin",
    "PUT /v1/limits/{channel}": "admin",
    "DELETE /v1/limits/{channel}": "admin",
    "GET /v1/suppressions": "list",
    "POST /v1/suppressions": "body",
    "POST /v1/suppressions/lift": "body",
    "GET /v1/templates": "any",
    "POST /v1/templates/preview": "body",
    "GET /v1/tenants": "admin",
    "GET /v1/tenants/{tenant}": "own",
    "GET /v1/subscriptions": "list",
    "POST /v1/subscriptions": "any",
    "POST /v1/subscriptions/simulate": "any",
    "GET /v1/subscriptions/{subscription_id}": "own",
    "PATCH /v1/subscriptions/{subscription_id}": "own",
    "POST /v1/subscriptions/{subscription_id}/pause": "own",
    "POST /v1/subscriptions/{subscription_id}/resume": "own",
    "POST /v1/subscriptions/{subscription_id}/test": "own",
    "POST /v1/subscriptions/{subscription_id}/rotate-secret": "own",
    "GET /v1/subscriptions/{subscription_id}/health": "own",
    "GET /v1/subscriptions/{subscription_id}/poll": "own",
    "POST /v1/subscriptions/{subscription_id}/replays": "own",
    "GET /v1/subscriptions/{subscription_id}/replays": "own",
    "GET /v1/replays/{replay_id}": "own",
    "POST /v1/replays/{replay_id}/pause": "own",
    "POST /v1/replays/{replay_id}/resume": "own",
    "POST /v1/replays/{replay_id}/cancel": "own",
    "DELETE /v1/subscriptions/{subscription_id}": "own",
}

#: Bodies of the operations whose body names a subscription.
BODIES = {
    "POST /v1/suppressions": {"address": "ann@example.com"},
    "POST /v1/suppressions/lift": {"address": "ann@example.com"},
    "POST /v1/templates/preview": {"name": "default"},
}


class Owned(NamedTuple):
    """What one tenant has."""

    tenant: str
    key: str
    parameters: dict[str, str]

    @property
    def secrets(self) -> list[str]:
        """Texts that no response to another tenant may have."""
        return list(self.parameters.values())


@pytest.fixture
async def owners(served: Served) -> tuple[Owned, Owned]:
    """Two tenants, each with a subscription, an event, a delivery and a key."""
    owners = []
    for name in ("owner", "rival"):
        tenant = f"{name}-{uuid7().hex}"
        kind = f"isolation.{tenant}"
        templates = {"webhook.json": '{"type": {{ type }}}'}
        subscription = await served.system.hook(f"/{tenant}", kind, tenant=tenant, templates=templates)
        polled = await served.system.subscribe({"channel": "poll"}, f"{kind}.polled", tenant=tenant)
        replay_id = await running_replay(served, tenant)
        event = Event.model_validate({"source": "/isolation", "type": kind, "tenant": tenant, "id": str(uuid7())})
        await served.system.client.wait(await served.system.client.publish(event), timeout=30)
        await suppress(served.system.registry, f"{tenant}@example.com", subscription_id=subscription.id)
        parameters = {
            "tenant": tenant,
            "key": event.key,
            "delivery_id": f"dlv_{event.key}_{subscription.id}",
            "subscription_id": subscription.id,
            "poll_id": polled.id,
            "replay_id": replay_id,
        }
        owners.append(Owned(tenant, await served.key(f"tenant:{tenant}"), parameters))
    return owners[0], owners[1]


async def running_replay(served: Served, tenant: str) -> str:
    """The id of a replay that takes two minutes."""
    kind = f"replayed.{tenant}"
    events = [Event(source="/isolation", type=kind, tenant=tenant, id=str(uuid7())) for _ in range(2)]
    for receipt in await served.system.client.publish_many(events):
        await served.system.client.wait(receipt, timeout=30)
    subscription = await served.system.hook(f"/replayed-{tenant}", kind, tenant=tenant)
    replay = replay_since(subscription, datetime.now(UTC) - timedelta(hours=1), rate=0.01)
    await served.system.registry.replays.add(replay)
    return replay.id


async def operations(served: Served) -> list[tuple[str, str, dict[str, Any]]]:
    document = (await served.call("GET", "/v1/openapi.json", key=None)).json
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_operation_is_classified(served: Served) -> None:
    assert sorted(f"{method} {path}" for method, path, _ in await operations(served)) == sorted(OPERATIONS)


async def test_every_operation_needs_a_key(served: Served) -> None:
    for method, path, _ in await operations(served):
        for key in (None, "bw_nothing"):
            response = await served.call(method, path, key=key)
            assert response.status == 401, f"{method} {path}"


async def test_a_key_of_a_tenant_sees_its_own_and_learns_nothing_of_others(
    served: Served, owners: tuple[Owned, Owned]
) -> None:
    owner, rival = owners
    # Deleting comes last.
    for method, path, _ in sorted(await operations(served), key=lambda operation: operation[0] == "DELETE"):
        kind = OPERATIONS[f"{method} {path}"]
        body: Any = {} if method in {"POST", "PATCH", "PUT"} else None
        called = partial(_called, served, method, path, body)
        if kind in {"admin", "publish"}:
            response = await served.call(method, path, body, key=rival.key)
            assert response.status == 403, f"{method} {path}"
        elif kind == "list":
            mine = await called(rival.parameters, rival.key)
            assert mine.status == 200, f"{method} {path}"
            assert mine.json["items"], f"{method} {path}"
            assert not any(secret.encode() in mine.body for secret in owner.secrets), f"{method} {path}"
            for parameter in ("event", "subscription", "tenant", "type"):
                value = {"event": owner.parameters["key"], "subscription": owner.parameters["subscription_id"]}
                asked = value.get(parameter, f"isolation.{owner.tenant}" if parameter == "type" else owner.tenant)
                filtered = await served.call(method, f"{path}?{parameter}={asked}", key=rival.key)
                assert not any(secret.encode() in filtered.body for secret in owner.secrets), f"{path}?{parameter}"
        elif kind == "body":
            body = BODIES[f"{method} {path}"]
            names = (owner.parameters["subscription_id"], _unknown(owner.parameters["subscription_id"]))
            foreign, missing = [
                await served.call(method, path, {**body, "subscription": name}, key=rival.key) for name in names
            ]
            assert (foreign.status, missing.status) == (404, 404), f"{method} {path}"
            assert _shape(foreign, {"": names[0]}) == _shape(missing, {"": names[1]}), f"{method} {path}"
            own = {**body, "subscription": rival.parameters["subscription_id"]}
            assert (await served.call(method, path, own, key=rival.key)).status < 300, f"{method} {path}"
        elif kind == "own":
            foreign = await called(owner.parameters, rival.key)
            unknown = {name: _unknown(value) for name, value in owner.parameters.items()}
            missing = await called(unknown, rival.key)
            assert (foreign.status, missing.status) == (404, 404), f"{method} {path}"
            assert _shape(foreign, owner.parameters) == _shape(missing, unknown), f"{method} {path}"
            assert (await called(rival.parameters, rival.key)).status < 300, f"{method} {path}"


async def _called(
    served: Served,
    method: str,
    path: str,
    body: Any,
    parameters: dict[str, str],
    key: str,
    headers: dict[str, str] | None = None,
) -> Response:
    for name, value in of_channel(path, parameters).items():
        path = path.replace(f"{{{name}}}", value)
    return await served.call(method, path, body, key=key, headers=headers)


def _unknown(value: str) -> str:
    """Another value of the same form."""
    return value.translate(str.maketrans("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxya")).replace(
        "emw_", "dlv_"
    )


def _shape(response: Response, parameters: dict[str, str]) -> dict[str, Any]:
    """A problem without the ids that the request named."""
    problem = response.json
    problem.pop("request_id")
    for value in parameters.values():
        problem["detail"] = problem["detail"].replace(value, "…").replace(value[:40], "…")
        for error in problem.get("errors", ()):
            error["message"] = error["message"].replace(value, "…")
    return dict(problem)


#: Fields by which a body could name what is another tenant's.
NAMING = {"id": "subscription_id", "subscription": "subscription_id", "tenant": "tenant"}
#: Header fields whose response could depend on what exists.
HEADERS = ({"if-match": '"v1"'}, {"if-match": '"v9"'}, {"prefer": "wait=1"}, {"idempotency-key": "of-the-owner"})


async def test_a_body_that_names_what_is_anothers_is_as_one_that_names_nothing(
    served: Served, owners: tuple[Owned, Owned]
) -> None:
    owner, rival = owners
    unknown = {name: _unknown(value) for name, value in owner.parameters.items()}
    named = 0
    for operation, bodies in valid_bodies().items():
        method, _, path = operation.partition(" ")
        if OPERATIONS[operation] in {"admin", "publish"}:
            continue
        own = {name: value for name, value in bodies[0].items() if name not in {"tenant", "id"}}
        if OPERATIONS[operation] == "body":
            own["subscription"] = rival.parameters["subscription_id"]
        for field, parameter in NAMING.items():
            responses = [
                await _called(served, method, path, {**own, field: values[parameter]}, rival.parameters, rival.key)
                for values in (owner.parameters, unknown)
            ]
            assert responses[0].status == responses[1].status >= 400, f"{operation} {field}: {responses}"
            shapes = [
                _shape(response, values)
                for response, values in zip(responses, (owner.parameters, unknown), strict=True)
            ]
            assert shapes[0] == shapes[1], f"{operation} {field}"
            named += 1
    assert named >= 24


async def test_a_tenant_does_not_choose_ids_which_are_unique_across_tenants(
    served: Served, owners: tuple[Owned, Owned]
) -> None:
    body = {"types": ["isolation.none"], "target": {"channel": "webhook", "url": served.system.hooks.url("/none")}}
    for taken in (owners[0].parameters["subscription_id"], "not-taken"):
        refused = await served.call("POST", "/v1/subscriptions", {**body, "id": taken}, key=owners[1].key)
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, "id"), taken
        assert taken not in refused.body.decode()
    assert (await served.call("POST", "/v1/subscriptions", body, key=owners[1].key)).status == 201
    chosen = {**body, "id": f"sub-{uuid7().hex}", "tenant": owners[1].tenant}
    assert (await served.call("POST", "/v1/subscriptions", chosen)).status == 201


async def test_conditions_and_preferences_tell_nothing_of_others(served: Served, owners: tuple[Owned, Owned]) -> None:
    owner, rival = owners
    unknown = {name: _unknown(value) for name, value in owner.parameters.items()}
    # The owner's own use of the key, for another request.
    body = {"address": "ann@example.com", "subscription": owner.parameters["subscription_id"]}
    await served.call("POST", "/v1/suppressions", body, key=owner.key, headers={"idempotency-key": "of-the-owner"})
    for method, path, _ in await operations(served):
        if OPERATIONS[f"{method} {path}"] != "own":
            continue
        changed = {"locale": "de"} if method == "PATCH" else None
        for headers in HEADERS:
            shapes = []
            for values in (owner.parameters, unknown):
                # A key is for one request.
                sent = {name: f"{value}-{uuid7()}" if "idem" in name else value for name, value in headers.items()}
                response = await _called(served, method, path, changed, values, rival.key, headers=sent)
                assert response.status == 404, f"{method} {path} {headers}"
                shapes.append(_shape(response, values))
            assert shapes[0] == shapes[1], f"{method} {path} {headers}"
    used = await served.call(
        "POST",
        "/v1/suppressions",
        {"address": "ann@example.com", "subscription": rival.parameters["subscription_id"]},
        key=rival.key,
        headers={"idempotency-key": "of-the-owner"},
    )
    assert (used.status, used.headers.get("idempotency-replayed")) == (201, None)


async def test_a_cursor_made_of_anothers_id_gives_what_one_of_an_unknown_id_gives(
    served: Served, owners: tuple[Owned, Owned]
) -> None:
    owner, rival = owners
    for path, parameter in (("/v1/events", "key"), ("/v1/deliveries", "delivery_id")):
        pages = []
        for value in (owner.parameters[parameter], _unknown(owner.parameters[parameter])):
            page = await served.call("GET", f"{path}?cursor={cursor_of(value)}", key=rival.key)
            pages.append((page.status, page.body))
        assert pages[0] == pages[1], path
        own = await served.call("GET", f"{path}?limit=1", key=rival.key)
        following = await served.call("GET", f"{path}?limit=1&cursor={own.json['next']}", key=rival.key)
        assert following.status == 200, path


async def test_an_event_for_all_tenants_shows_each_only_its_own_deliveries(
    served: Served, owners: tuple[Owned, Owned]
) -> None:
    for each in owners:
        await served.system.hook(f"/all-{each.tenant}", "isolation.all", tenant=each.tenant)
    event = Event(source="/isolation", type="isolation.all", tenant="*")
    await served.system.client.wait(await served.system.client.publish(event), timeout=30)
    for each in owners:
        shown = (await served.call("GET", f"/v1/events/{event.key}?include=deliveries", key=each.key)).json
        (listed,) = [
            found
            for found in (await served.call("GET", "/v1/events?type=isolation.all", key=each.key)).json["items"]
            if found["key"] == event.key
        ]
        assert (shown["counts"]["matched"], listed["counts"]["matched"], len(shown["deliveries"])) == (1, 1, 1)
    assert (await served.call("GET", f"/v1/events/{event.key}")).json["counts"]["matched"] == 2


async def test_lists_of_an_admin_have_both(served: Served, owners: tuple[Owned, Owned]) -> None:
    pages = await asyncio.gather(*(served.call("GET", f"/v1/events?tenant={each.tenant}") for each in owners))
    assert [page.json["items"][0]["key"] for page in pages] == [each.parameters["key"] for each in owners]
