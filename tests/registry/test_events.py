"""Events: accepted once, listed newest first, looked up."""

import asyncio

import pytest

from bellwire.contract import Group, PublishResult
from bellwire.deliveries import Counts, DeliveryState
from bellwire.errors import DeliveryNotFound, EventNotFound
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.factories import event, subscription


async def test_an_event_is_owned_by_the_first_workflow(registry: Registry) -> None:
    first, other = event(id="1"), event(id="2")
    accepted = await registry.events.accept([first, other], "workflow-a")
    assert {key: (found.result, found.workflow_id) for key, found in accepted.items()} == {
        first.key: (PublishResult.OWNED, "workflow-a"),
        other.key: (PublishResult.OWNED, "workflow-a"),
    }
    assert await registry.events.accept([first, other], "workflow-a") == accepted
    again = event(id="1", time="2020-01-01T00:00:00Z", traceparent="00-a-b-01")
    changed, new = event(id="2", data="changed"), event(id="3")
    accepted = await registry.events.accept([again, changed, new], "workflow-b")
    assert {key: (found.result, found.workflow_id) for key, found in accepted.items()} == {
        first.key: (PublishResult.DUPLICATE, "workflow-a"),
        other.key: (PublishResult.CONFLICT, "workflow-a"),
        new.key: (PublishResult.OWNED, "workflow-b"),
    }
    assert (await registry.events.with_id("2"))[0].event == other
    assert accepted[new.key].source == "/shop"
    assert accepted[new.key].id == "3"


async def test_concurrent_workflows_agree_on_the_owner_of_an_event(registry: Registry) -> None:
    published = [event(id="shared"), *(event(id=f"{number}") for number in range(5))]
    results = await asyncio.gather(
        *(
            registry.events.accept(published if number % 2 else published[::-1], f"workflow-{number}")
            for number in range(20)
        )
    )
    for one in published:
        owners = {result[one.key].workflow_id for result in results}
        assert len(owners) == 1
        assert sum(result[one.key].result is PublishResult.OWNED for result in results) == 1
    assert len(await registry.events.list()) == 6


async def test_accepting_no_events_is_no_error(registry: Registry) -> None:
    assert await registry.events.accept([], "workflow") == {}
    assert await registry.events.by_keys([]) == {}


async def test_an_event_is_stored_as_it_was_published(registry: Registry) -> None:
    rich = event(
        subject="Bestellung 42 ✓", tenant="acme", dataschema="/schema", datacontenttype="application/json",
        sequence=7, urgent=True, note="ö", data={"nul": "\x00", "deep": [1, 2.5, None, {"ok": True}]},
    )  # fmt: skip
    await registry.events.accept([rich], "workflow")
    assert (await registry.events.by_keys([rich.key, "unknown"])) == {rich.key: rich}
    stored = (await registry.events.with_id(rich.id))[0]
    assert stored.event == rich
    assert stored.digest == rich.digest
    assert stored.workflow_id == "workflow"
    assert stored.accepted_at.utcoffset() is not None
    assert stored.accepted_at >= rich.time
    assert stored.counts == Counts()


async def test_events_are_listed_newest_first_in_pages(registry: Registry) -> None:
    # Some at the same time, some later.
    await registry.events.accept([event(id=f"early-{number}") for number in range(5)], "workflow")
    await registry.events.accept([event(id=f"late-{number}") for number in range(4)], "workflow")
    seen: list[str] = []
    after = ""
    while page := await registry.events.list(after=after, limit=2):
        seen += [found.event.id for found in page]
        after = page[-1].event.key
    assert {name[:4] for name in seen[:4]} == {"late"}
    assert sorted(seen[4:]) == [f"early-{number}" for number in range(5)]
    assert len(seen) == 9


async def test_events_are_filtered(registry: Registry) -> None:
    published = [event(id="1"), event(id="2", type="order.sent", tenant="other"), event(id="1", source="/other")]
    await registry.events.accept(published, "workflow")
    assert [found.event.id for found in await registry.events.list(type="order.sent")] == ["2"]
    assert [found.event.id for found in await registry.events.list(tenant="other")] == ["2"]
    assert {found.event.source for found in await registry.events.with_id("1")} == {"/shop", "/other"}
    assert [found.event.source for found in await registry.events.with_id("1", source="/other")] == ["/other"]
    assert await registry.events.with_id("none") == []


async def test_a_lookup_returns_the_counts_and_one_delivery(registry: Registry) -> None:
    published = event(id="1")
    for name in ("a", "b", "c"):
        await registry.subscriptions.create(subscription(id=name))
    await registry.events.accept([published], "workflow")
    await registry.deliveries.add(
        "page", [Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("a", "b"))]
    )
    await registry.deliveries.settle(
        [Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("b",))], reason="cancelled"
    )
    found = await registry.events.lookup("/shop", "1")
    assert (found.event_key, found.workflow_id, found.digest) == (published.key, "workflow", published.digest)
    assert found.counts == Counts(matched=2, cancelled=1)
    assert found.delivery is None
    found = await registry.events.lookup("/shop", "1", "b")
    assert found.delivery == Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("b",), attempt=1)
    assert found.delivery_state is DeliveryState.CANCELLED
    assert found.delivery_workflow_id == "page"
    assert (await registry.events.with_id("1"))[0].counts == found.counts
    with pytest.raises(DeliveryNotFound):
        await registry.events.lookup("/shop", "1", "c")
    with pytest.raises(EventNotFound):
        await registry.events.lookup("/other", "1")


async def test_a_conflict_adds_one_operational_event_however_often_its_run_asks(registry: Registry) -> None:
    first, other = event(id="1", tenant="acme"), event(id="1", tenant="acme", data={"other": True})
    await registry.events.accept([first], "first", "r")
    for _ in range(2):
        await registry.events.accept([other], "second", "r")
    (reported,) = await registry.operational_events.list()
    assert (reported.source, reported.type, reported.subject) == ("bellwire", "bellwire.event.conflict", "1")
    assert reported.tenant == "acme"
    assert reported.data == {
        "event_key": first.key,
        "event_source": first.source,
        "event_id": "1",
        "event_type": first.type,
        "workflow": "second",
        "published_by": "first",
    }
    await registry.events.accept([other], "third", "r")
    assert len(await registry.operational_events.list()) == 2


async def test_a_duplicate_and_a_conflict_of_an_operational_event_add_none(registry: Registry) -> None:
    one, operational = event(id="1"), event(id="2", source="bellwire")
    await registry.events.accept([one, operational], "first")
    await registry.events.accept([one, operational.model_copy(update={"data": "other"})], "second")
    assert await registry.operational_events.list() == []


async def test_counts_of_a_tenant_end_at_their_limit(registry: Registry) -> None:
    for number in range(4):
        target = {"channel": "webhook", "url": "https://app.example/hooks"}
        await registry.subscriptions.create(subscription(target, id=f"sub-{number}", tenant="counted"))
    await registry.subscriptions.create(subscription(target, id="other", tenant="other"))
    published = event(tenant="counted")
    await registry.events.accept([published], "run")
    ids = tuple(f"sub-{number}" for number in range(4))
    group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=ids)
    await registry.deliveries.add("run", [group])
    assert await registry.tenants.counts("counted") == ({"active": 4}, {"pending": 4}, True)
    assert await registry.tenants.counts("counted", limit=4) == ({"active": 4}, {"pending": 4}, True)
    subscriptions, deliveries, complete = await registry.tenants.counts("counted", limit=2)
    assert (sum(subscriptions.values()), sum(deliveries.values()), complete) == (3, 3, False)
