"""Explanations and simulations over HTTP: of whole deliveries, by page, and never of another tenant's subscriptions."""

import json
from typing import Any

from bellwire import Event
from bellwire.events import uuid7
from starter.gateway.api.problems import ProblemType
from tests.gateway.conftest import Served
from tests.gateway.test_command import run
from tests.gateway.test_resources import all_of


def failing(item: dict[str, Any]) -> str:
    return str(item["first_failing"]["name"])


async def published(served: Served, tenant: str, **fields: Any) -> Event:
    event = Event(source="/explained", type="explained.paid", tenant=tenant, **fields)
    await served.system.client.wait(await served.system.client.publish(event), timeout=30)
    return event


async def test_a_delivered_event_is_explained_step_by_step(served: Served) -> None:
    tenant = f"explained-{uuid7().hex}"
    filters = [{"suffix": {"type": ".paid"}}]
    hook = await served.system.hook(f"/{tenant}", "explained.*", tenant=tenant, filters=filters)
    event = await published(served, tenant)
    for key in (served.admin, await served.key(f"tenant:{tenant}")):
        found = await served.call("GET", f"/v1/events/{event.key}/explain?subscription={hook.id}", key=key)
        assert found.status == 200, found.body
        assert (found.json["matched"], found.json["looked_at"], found.json["next"]) == (1, 1, None)
        (item,) = found.json["items"]
        assert (item["matched"], item["matches_now"], item["first_failing"]) == (True, True, None)
        assert item["delivery"]["state"] == "delivered"
        assert item["workflow_id"] == f"event//explained/{event.id}"
        assert {step["name"]: step["passed"] for step in item["steps"]} == dict.fromkeys(
            ["tenant", "type", "filter", "state", "created", "endpoint", "suppression", "limit", "delivery"],
            True,
        )
        (traced,) = [step for step in item["steps"] if step["name"] == "filter"]
        assert 'type is "explained.paid"' in traced["parts"][0]["reason"]


async def test_an_event_that_nobody_matched_shows_the_closest_subscription_first(served: Served) -> None:
    tenant = f"explained-{uuid7().hex}"
    by_type = await served.system.hook(f"/{tenant}-1", "other.*", tenant=tenant)
    by_filter = await served.system.hook(
        f"/{tenant}-2", "explained.*", tenant=tenant, filters=[{"exact": {"subject": "43"}}]
    )
    paused = await served.system.hook(f"/{tenant}-3", "explained.*", tenant=tenant, state="paused")
    event = await published(served, tenant, subject="42")
    page = (await served.call("GET", f"/v1/events/{event.key}/explain")).json
    assert (page["matched"], page["looked_at"]) == (0, 3)
    assert [(item["subscription"], failing(item)) for item in page["items"]] == [
        (paused.id, "state"),
        (by_filter.id, "filter"),
        (by_type.id, "type"),
    ]
    assert page["items"][0]["steps"] is None
    assert 'subject is "42"' in page["items"][1]["summary"]
    closest = (await served.call("GET", f"/v1/events/{event.key}/explain?limit=1")).json
    assert ([item["subscription"] for item in closest["items"]], closest["looked_at"]) == ([paused.id], 3)


async def test_pages_lead_to_the_next(served: Served) -> None:
    tenant = f"explained-{uuid7().hex}"
    hooks = [await served.system.hook(f"/{tenant}-{number}", "explained.*", tenant=tenant) for number in range(3)]
    event = await published(served, tenant)
    paged = await all_of(served, f"/v1/events/{event.key}/explain?limit=2")
    assert [item["subscription"] for item in paged] == sorted(hook.id for hook in hooks)


async def test_a_tenant_is_told_nothing_of_the_events_and_subscriptions_of_others(served: Served) -> None:
    own, other = (f"explained-{uuid7().hex}" for _ in range(2))
    key = await served.key(f"tenant:{own}")
    mine = await served.system.hook(f"/{own}", "explained.paid", tenant=own)
    theirs = await served.system.hook(f"/{other}", "explained.paid", tenant=other)
    for_all, for_other = await published(served, "*"), await published(served, other)

    async def status(event: Event, subscription: str) -> int:
        path = f"/v1/events/{event.key}/explain?subscription={subscription}"
        return (await served.call("GET", path, key=key)).status

    assert await status(for_all, mine.id) == 200
    # Another tenant's subscription, and its event, are as those that do not exist.
    foreign = await served.call("GET", f"/v1/events/{for_all.key}/explain?subscription={theirs.id}", key=key)
    missing = await served.call("GET", f"/v1/events/{for_all.key}/explain?subscription=none", key=key)
    assert (foreign.status, foreign.json["type"]) == (404, f"/v1/problems/{ProblemType.SUBSCRIPTION_NOT_FOUND}")
    assert foreign.json["detail"].replace(theirs.id, "none") == missing.json["detail"]
    assert await status(for_other, mine.id) == 404
    page = await served.call("GET", f"/v1/events/{for_all.key}/explain", key=key)
    assert [item["subscription"] for item in page.json["items"]] == [mine.id]
    assert page.json["matched"] == 1
    assert not any(secret in page.body.decode() for secret in (theirs.id, other))
    assert (await status(for_all, theirs.id), await status(for_other, theirs.id)) == (404, 404)


async def test_a_tenant_is_told_why_it_did_not_match_an_event_for_all(served: Served) -> None:
    own = f"explained-{uuid7().hex}"
    key = await served.key(f"tenant:{own}")
    mine = await served.system.hook(f"/{own}", "explained.*", tenant=own, filters=[{"exact": {"subject": "43"}}])
    event = await published(served, "*", subject="42")
    found = await served.call("GET", f"/v1/events/{event.key}/explain?subscription={mine.id}", key=key)
    assert found.status == 200, found.body
    (item,) = found.json["items"]
    assert (item["matched"], failing(item), found.json["matched"]) == (False, "filter", 0)
    page = (await served.call("GET", f"/v1/events/{event.key}/explain", key=key)).json
    assert [each["subscription"] for each in page["items"]] == [mine.id]
    # The event itself is still shown only to those that it was delivered to.
    assert (await served.call("GET", f"/v1/events/{event.key}", key=key)).status == 404


async def test_developers_explain_and_try_from_a_terminal(served: Served) -> None:
    tenant = f"explained-{uuid7().hex}"
    key = await served.key(f"tenant:{tenant}")
    filters = [{"exact": {"subject": "43"}}]
    hook = await served.system.hook(f"/{tenant}", "explained.*", tenant=tenant, filters=filters)
    event = await published(served, tenant, subject="42")
    steps = await run(served, "explain", event.key, "--subscription", hook.id, key=key)
    assert steps.status == 0, steps.errors
    reason = 'The filter does not match: subject is "42", not "43".'
    assert f"✗ filter       {reason}\n" in steps.output
    assert steps.output.startswith(f"Not matched. {reason}\n")
    table = await run(served, "explain", event.key, key=key)
    assert (hook.id in table.output, table.errors) == (True, "0 matched; looked at 1 subscription\n")
    tried = await run(served, "simulate", "--type", "explained.*", "--filter", json.dumps(filters[0]), key=key)
    assert (event.key in tried.output, tried.status) == (True, 0)
    assert tried.errors.startswith("0 of ")
    shown = await run(served, "simulate", "--type", "explained.*", "--json", key=key)
    assert shown.json["matched"] >= 1
    every = await run(served, "simulate", "--json", key=key)
    assert (every.status, every.json["matched"]) == (0, every.json["looked_at"])
    refused = await run(served, "simulate", "--type", "explained.*x", key=key)
    assert (refused.status, "types" in refused.errors) == (2, True)


async def test_an_admin_learns_that_an_event_is_for_another_tenant(served: Served) -> None:
    own, other = (f"explained-{uuid7().hex}" for _ in range(2))
    theirs = await served.system.hook(f"/{other}", "explained.paid", tenant=other)
    event = await published(served, own)
    found = await served.call("GET", f"/v1/events/{event.key}/explain?subscription={theirs.id}")
    (item,) = found.json["items"]
    assert failing(item) == "tenant"
    assert item["summary"] == f"Not matched. The event is for {own}; the subscription belongs to {other}."


async def test_a_key_that_publishes_is_not_told_who_subscribes(served: Served) -> None:
    event = await published(served, "acme")
    key = await served.key("publish")
    assert (await served.call("GET", f"/v1/events/{event.key}/explain", key=key)).status == 403
    body = {"types": ["explained.*"]}
    assert (await served.call("POST", "/v1/subscriptions/simulate", body, key=key)).status == 403


async def test_types_and_filters_are_tried_on_the_last_events_of_the_tenant(served: Served) -> None:
    tenant = f"explained-{uuid7().hex}"
    key = await served.key(f"tenant:{tenant}")
    events = [await published(served, tenant, subject=str(number)) for number in range(3)]
    await published(served, "acme", subject="1")
    body = {"types": ["explained.*"], "filters": [{"exact": {"subject": "1"}}], "last": 10}
    found = await served.call("POST", "/v1/subscriptions/simulate", body, key=key)
    assert found.status == 200, found.body
    result = found.json
    own = [each for each in (*result["matches"], *result["others"]) if each["key"] in {event.key for event in events}]
    # Events for all tenants, which other tests publish, are tried too.
    assert result["looked_at"] >= 3
    assert [each["key"] for each in result["matches"]] == [events[1].key]
    assert (result["matched"], result["tenant"]) == (1, tenant)
    assert [each["key"] for each in own] == [events[1].key, events[2].key, events[0].key]
    assert 'subject is "2"' in own[1]["steps"][1]["text"]
    by_admin = await served.call("POST", "/v1/subscriptions/simulate", {**body, "tenant": tenant})
    assert by_admin.json["matched"] == 1
    # Nothing was stored.
    assert (await served.call("GET", "/v1/subscriptions", key=key)).json["items"] == []


async def test_a_simulation_for_another_tenant_or_with_a_bad_filter_is_refused(served: Served) -> None:
    key = await served.key("tenant:simulated")
    body = {"types": ["explained.*"]}
    for change, field in (
        ({"tenant": "acme"}, "tenant"),
        ({"filters": [{"nothing": {}}]}, "filters.0"),
        ({"last": 1001}, "last"),
        ({"target": {}}, "target"),
    ):
        refused = await served.call("POST", "/v1/subscriptions/simulate", {**body, **change}, key=key)
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, field), refused.body
