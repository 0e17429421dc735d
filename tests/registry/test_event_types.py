"""Event types: the catalog with its versions."""

import asyncio
from typing import Any

import pytest

from bellwire.catalog import NewEventType
from bellwire.catalog.event_types import TypeDetails
from bellwire.contract import Group
from bellwire.errors import EventTypeNotFound, SchemaIncompatible
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.factories import event, subscription

OPEN = {"type": "object", "properties": {"order": {"type": "string"}}}
WIDER = {"type": "object", "properties": {"order": {"type": "string"}, "note": {"type": "string"}}}
BROKEN = {"type": "object", "properties": {"order": {"type": "integer"}}}


def new(**fields: object) -> NewEventType:
    return NewEventType.model_validate({"type": "order.paid", "schema": OPEN, **fields})


async def test_a_type_is_stored_with_its_first_version(registry: Registry) -> None:
    stored = await registry.event_types.put(
        new(description="An order was paid.", owner="shop", examples=[{"order": "42"}], retry_schedule=[5, 60])
    )
    assert (stored.created, stored.new_version) == (True, True)
    found = await registry.event_types.get("order.paid")
    assert found == stored.event_type
    assert (found.description, found.owner, found.deprecated, found.retry_schedule) == (
        "An order was paid.",
        "shop",
        None,
        (5.0, 60.0),
    )
    assert [(one.version, one.schema_, one.examples) for one in found.versions] == [(1, OPEN, ({"order": "42"},))]


async def test_another_schema_is_a_new_version_and_the_same_one_is_not(registry: Registry) -> None:
    await registry.event_types.put(new())
    same = await registry.event_types.put(
        new(description="Now described", examples=[{}], deprecated="use order.settled")
    )
    assert (same.created, same.new_version, len(same.event_type.versions)) == (False, False, 1)
    assert (same.event_type.deprecated, same.event_type.latest.examples) == ("use order.settled", ({},))
    other = await registry.event_types.put(new(schema=WIDER))
    assert (other.created, other.new_version) == (False, True)
    assert [(one.version, one.schema_) for one in other.event_type.versions] == [(1, OPEN), (2, WIDER)]
    assert other.event_type.latest.version == 2


async def test_what_is_left_out_stays_as_it_is(registry: Registry) -> None:
    await registry.event_types.put(new(description="An order was paid.", owner="shop", examples=[{"order": "42"}]))
    stored = await registry.event_types.put(NewEventType(type="order.paid", owner="billing"))
    assert (stored.new_version, stored.event_type.description, stored.event_type.owner) == (
        False,
        "An order was paid.",
        "billing",
    )
    assert (stored.event_type.latest.schema_, stored.event_type.latest.examples) == (OPEN, ({"order": "42"},))
    details = TypeDetails(deprecated="use order.settled", retry_schedule=(3,))
    changed = await registry.event_types.change("order.paid", details)
    assert (changed.description, changed.deprecated, changed.retry_schedule) == (
        "An order was paid.",
        "use order.settled",
        (3.0,),
    )
    undone = await registry.event_types.change("order.paid", TypeDetails(deprecated=None))
    assert (undone.deprecated, undone.retry_schedule) == (None, (3.0,))
    with pytest.raises(EventTypeNotFound):
        await registry.event_types.change("nothing", details)


async def test_an_incompatible_version_is_refused_unless_forced_and_changes_nothing(registry: Registry) -> None:
    before = (await registry.event_types.put(new())).event_type
    with pytest.raises(SchemaIncompatible, match=r"schema\.properties\.order\.type: is integer, and was string"):
        await registry.event_types.put(new(schema=BROKEN, description="changed"))
    assert await registry.event_types.get("order.paid") == before
    forced = await registry.event_types.put(new(schema=BROKEN), force=True)
    assert forced.event_type.latest.schema_ == BROKEN


async def test_concurrent_versions_get_numbers_of_their_own(registry: Registry) -> None:
    await registry.event_types.put(new())
    schemas: list[dict[str, Any]] = [{"properties": {f"p{number}": {}}} for number in range(5)]
    await asyncio.gather(*(registry.event_types.put(new(schema=schema), force=True) for schema in schemas))
    found = await registry.event_types.get("order.paid")
    assert [one.version for one in found.versions] == [1, 2, 3, 4, 5, 6]


async def test_types_are_listed_by_name_in_pages(registry: Registry) -> None:
    for name in ("b.c", "a", "b"):
        await registry.event_types.put(new(type=name))
    assert [one.type for one in await registry.event_types.list(limit=2)] == ["a", "b"]
    assert [one.type for one in await registry.event_types.list(after="b")] == ["b.c"]


async def test_a_removed_type_is_gone_with_its_versions(registry: Registry) -> None:
    await registry.event_types.put(new())
    await registry.event_types.remove("order.paid")
    assert await registry.event_types.find("order.paid") is None
    for call in (registry.event_types.get("order.paid"), registry.event_types.remove("order.paid")):
        with pytest.raises(EventTypeNotFound, match=r"no event type order\.paid"):
            await call
    assert (await registry.event_types.put(new())).event_type.latest.version == 1


async def test_a_delivery_is_loaded_with_the_retry_schedule_of_its_type(registry: Registry) -> None:
    await registry.event_types.put(new(retry_schedule=[7, 8]))
    await registry.event_types.put(new(type="order.lost"))
    await registry.subscriptions.create(one := subscription(types=["order.*"]))
    for kind, schedule in (("order.paid", (7.0, 8.0)), ("order.lost", None), ("order.other", None)):
        published = event(id=kind, type=kind)
        await registry.events.accept([published], "workflow")
        group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=(one.id,))
        await registry.deliveries.add("workflow", [group])
        (request,) = await registry.attempts.load([group])
        assert request.type_schedule == schedule
