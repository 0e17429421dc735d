"""Tenants, suppressions, templates and limits over HTTP; filters and pages of lists."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bellwire import Event
from bellwire.events import uuid7
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.gateway.api.problems import ProblemType
from tests.acceptance.conftest import running_gateway
from tests.gateway.conftest import Served


async def all_of(served: Served, path: str, key: str = "") -> list[Any]:
    """The items of all pages, as their `Link` fields lead."""
    found = []
    while path:
        page = await served.call("GET", path, key=key)
        assert page.status == 200, page.body
        found += page.json["items"]
        path = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
    return found


async def test_a_tenant_has_counts_of_its_subscriptions_and_deliveries(served: Served) -> None:
    paused = await served.system.hook("/counted-2", "counted.never", tenant="counted")
    await served.system.hook("/counted", "counted.event", tenant="counted")
    await served.call("POST", f"/v1/subscriptions/{paused.id}/pause")
    event = Event(source="/counted", type="counted.event", tenant="counted")
    await served.system.client.wait(await served.system.client.publish(event), timeout=30)
    found = (await served.call("GET", "/v1/tenants/counted")).json
    assert found["subscriptions"] == {"active": 1, "paused": 1}
    assert found["deliveries"] == {"delivered": 1}
    assert found["counts_complete"] is True
    assert "counted" in [tenant["id"] for tenant in await all_of(served, "/v1/tenants?limit=1")]
    missing = await served.call("GET", "/v1/tenants/nobody")
    assert (missing.status, missing.json["type"]) == (404, f"/v1/problems/{ProblemType.NOT_FOUND}")


async def test_suppressions_are_added_listed_by_page_and_lifted(served: Served) -> None:
    addresses = [f"page{number}@suppressed.example" for number in range(5)]
    for address in addresses:
        added = await served.call("POST", "/v1/suppressions", {"address": address})
        assert (added.status, added.json["reason"], added.json["subscription"]) == (201, "operator", None), added.body
    listed = [each["address"] for each in await all_of(served, "/v1/suppressions?limit=2")]
    assert [each for each in listed if each in addresses] == addresses[::-1]
    one = await all_of(served, f"/v1/suppressions?address={quote('PAGE1@suppressed.example')}")
    assert [each["address"] for each in one] == ["page1@suppressed.example"]
    assert (await served.call("POST", "/v1/suppressions/lift", {"address": addresses[0]})).status == 200
    again = await served.call("POST", "/v1/suppressions/lift", {"address": addresses[0]})
    assert (again.status, again.json["errors"][0]["field"]) == (404, "address")


async def test_suppressions_of_one_time_are_on_one_page_each(served: Served) -> None:
    subscription = await served.system.hook("/suppressions", "suppressed.never", tenant="same-time")
    addresses = {f"{number}@same-time.example" for number in range(5)}
    for address in addresses:
        await served.system.registry.suppressions.add(
            Suppression(
                channel=Channel.EMAIL,
                address=address,
                reason=SuppressionReason.BOUNCED,
                subscription_id=subscription.id,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    key = await served.key("tenant:same-time")
    found = await all_of(served, "/v1/suppressions?limit=2", key)
    assert len(found) == 5
    assert {each["address"] for each in found} == addresses
    bad = await served.call("GET", "/v1/suppressions?cursor=bm9uZQ")
    assert (bad.status, bad.json["errors"][0]["field"]) == (400, "cursor")


async def test_a_tenant_suppresses_for_its_subscriptions_only(served: Served) -> None:
    subscription = await served.system.hook("/own", "suppressed.own", tenant="own-only")
    key = await served.key("tenant:own-only")
    refused = await served.call("POST", "/v1/suppressions", {"address": "ann@own.example"}, key=key)
    assert (refused.status, refused.json["errors"][0]["field"]) == (400, "subscription")
    body = {"address": "ann@own.example", "subscription": subscription.id}
    assert (await served.call("POST", "/v1/suppressions", body, key=key)).status == 201
    await served.call("POST", "/v1/suppressions", {"address": "ann@own.example"})
    # Lifting its own leaves the one of the operator.
    assert (await served.call("POST", "/v1/suppressions/lift", body, key=key)).status == 200
    left = await all_of(served, "/v1/suppressions?address=ann@own.example")
    assert [each["subscription"] for each in left] == [None]
    (entry, *_) = await served.system.registry.audit_log.list(resource=subscription.id, tenant="own-only")
    assert entry.action == "suppression.lifted"


async def test_people_of_other_channels_are_suppressed_with_or_without_the_default_account(served: Served) -> None:
    body = {"address": "U0HTTP", "channel": "slack"}
    added = await served.call("POST", "/v1/suppressions", body)
    assert (added.status, added.json["address"]) == (201, "default/U0HTTP")
    for query in ("channel=slack&address=U0HTTP", "address=default/U0HTTP"):
        assert [each["address"] for each in await all_of(served, f"/v1/suppressions?{query}")] == ["default/U0HTTP"]
    wrong = await served.call("GET", "/v1/suppressions?channel=slack&address=u0http")
    assert (wrong.status, wrong.json["errors"][0]["field"]) == (400, "address")
    lifted = await served.call("POST", "/v1/suppressions/lift", {**body, "address": "default/U0HTTP"})
    assert lifted.json == {"channel": "slack", "address": "default/U0HTTP"}


async def test_a_bad_address_is_refused_by_field(served: Served) -> None:
    for body, field in (({"address": "ann@"}, "address"), ({"address": "https://x", "channel": "webhook"}, "channel")):
        refused = await served.call("POST", "/v1/suppressions", body)
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, field)


async def test_a_template_is_previewed_with_data_and_as_a_subscription_gets_it(served: Served) -> None:
    names = [each["name"] for each in (await served.call("GET", "/v1/templates")).json["items"]]
    assert "default" in names
    preview = await served.call("POST", "/v1/templates/preview", {"name": "order.paid", "data": {"order": "4711"}})
    assert preview.status == 200, preview.body
    assert "4711" in preview.json["texts"]["email.text"]
    assert preview.json["segments"]["count"] >= 1
    own = await served.system.subscribe(
        {"channel": "email", "to": "ann@example.com"},
        "previewed",
        tenant="acme",
        templates={"email.subject": "Hello {{ data.name }}", "email.text": "Order"},
    )
    body = {"name": "previewed", "data": {"name": "Ann"}, "subscription": own.id}
    assert (await served.call("POST", "/v1/templates/preview", body)).json["texts"]["email.subject"] == "Hello Ann"


async def test_a_limit_is_set_listed_and_cleared_and_audited(served: Served) -> None:
    limited = await served.call("PUT", "/v1/limits/sms", {"per_second": 5})
    assert (limited.status, limited.json["registry"]) == (200, 5), limited.body
    found = {each["channel"]: each["registry"] for each in (await served.call("GET", "/v1/limits")).json["items"]}
    assert (found["sms"], found["email"]) == (5, None)
    assert (await served.call("DELETE", "/v1/limits/sms")).json["registry"] is None
    actions = [entry.action for entry in await served.system.registry.audit_log.list(resource="sms", limit=2)]
    assert actions == ["limit.cleared", "limit.set"]
    for bad in (0, -1, "many"):
        refused = await served.call("PUT", "/v1/limits/sms", {"per_second": bad})
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, "per_second")
    assert (await served.call("PUT", "/v1/limits/pigeon", {"per_second": 1})).json["errors"][0]["field"] == "channel"


async def test_events_and_deliveries_are_listed_by_type_and_time(served: Served) -> None:
    await served.system.hook("/listed", "listed.one", "listed.two", tenant="listed")
    for kind in ("listed.one", "listed.two"):
        event = Event(source="/listed", type=kind, tenant="listed", id=str(uuid7()))
        await served.system.client.wait(await served.system.client.publish(event), timeout=30)
    ones = await all_of(served, "/v1/deliveries?type=listed.one&state=delivered")
    (event,) = await all_of(served, "/v1/events?type=listed.one")
    assert [delivery["event"] for delivery in ones] == [event["key"]]
    key = await served.key("tenant:listed")
    accepted = datetime.fromisoformat(event["accepted_at"])
    for path in ("/v1/events", "/v1/deliveries"):
        for since, until, number in (
            (accepted, None, 2),
            (accepted + timedelta(microseconds=1), None, 1),
            (None, accepted, 0),
            (None, accepted + timedelta(microseconds=1), 1),
        ):
            query = "&".join(
                f"{name}={quote(at.isoformat())}" for name, at in (("since", since), ("until", until)) if at
            )
            assert len(await all_of(served, f"{path}?{query}", key)) == number, (path, since, until)
        bad = await served.call("GET", f"{path}?since=yesterday")
        assert (bad.status, bad.json["errors"][0]["field"]) == (400, "since")
    bad = await served.call("GET", "/v1/deliveries?cursor=bm9uZQ")
    assert (bad.status, bad.json["errors"][0]["field"]) == (400, "cursor")


async def test_pages_of_named_origins_only_may_use_the_api(served: Served, tmp_path: Path) -> None:
    origin = "https://app.example"
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "idempotency-key",
    }
    refused = await served.call("OPTIONS", "/v1/subscriptions", key=None, headers=asked)
    assert (refused.status, "access-control-allow-origin" in refused.headers) == (405, False)
    async with running_gateway(served.system, log=tmp_path / "log", BELLWIRE_API_ORIGINS=origin) as url:
        other = replace(served, url=url)
        allowed = await other.call("OPTIONS", "/v1/subscriptions", key=None, headers=asked)
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, origin)
        listed = await other.call("GET", "/v1/events", headers={"origin": origin})
        assert listed.headers["access-control-allow-origin"] == origin
        assert "link" in listed.headers["access-control-expose-headers"].lower()
        unknown = await other.call("GET", "/v1/events", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in unknown.headers
