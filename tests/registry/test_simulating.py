"""Simulating: types and filters tried on the last stored events of a tenant, and how far back that looks."""

from typing import Any

import pytest

from bellwire.registry import Registry
from starter.operations.delivery.simulating import PAGE, Simulation, read_simulation, simulate
from starter.operations.problems import InputInvalid
from tests.factories import event


async def accept(registry: Registry, *events: dict[str, Any]) -> None:
    """One after the other, so that their times differ."""
    for fields in events:
        await registry.events.accept([event(**fields)], "event//shop/1")


async def simulated(registry: Registry, **fields: Any) -> Simulation:
    return await simulate(registry, read_simulation({"tenant": "acme", "types": ["order.*"], **fields}), shown=2)


async def test_the_newest_events_come_first_with_the_reason_of_those_that_do_not_match(registry: Registry) -> None:
    await accept(
        registry,
        *({"id": f"paid-{number}", "subject": str(number)} for number in range(4)),
        {"id": "shipped", "type": "order.shipped"},
        {"id": "user", "type": "user.registered"},
        {"id": "all", "tenant": "*", "subject": "9"},
        {"id": "other", "tenant": "globex", "subject": "9"},
    )
    found = await simulated(registry, filters=[{"not": {"exact": {"subject": "0"}}}, {"suffix": {"type": "paid"}}])
    assert (found.tenant, found.looked_at, found.matched) == ("acme", 7, 4)
    assert [each.event.id for each in found.matches] == ["all", "paid-3"]
    assert [each.event.id for each in found.others] == ["user", "shipped"]
    assert [step.passed for step in found.others[1].steps] == [True, True, False]
    assert 'type is "order.shipped"' in found.others[1].steps[2].text
    assert (found.since, found.interrupted) == (None, False)


async def test_filters_read_the_stored_data(registry: Registry) -> None:
    await accept(registry, *({"id": f"paid-{amount}", "data": {"amount": amount}} for amount in (5, 50, 500)))
    found = await simulated(registry, filters=[{"data": {"amount": [{"numeric": [">", 10]}]}}])
    assert [each.event.id for each in found.matches] == ["paid-500", "paid-50"]
    assert "5" in found.others[0].steps[1].text


async def test_only_the_last_events_are_looked_at(registry: Registry) -> None:
    await accept(registry, *({"id": f"paid-{number}"} for number in range(5)))
    found = await simulated(registry, last=3)
    assert (found.looked_at, found.matched) == (3, 3)
    assert found.since == (await registry.events.list(limit=3))[-1].accepted_at


async def test_a_tenant_with_few_events_does_not_cost_a_read_of_all(registry: Registry) -> None:
    await accept(registry, {"id": "old"}, *({"id": f"other-{number}", "tenant": "globex"} for number in range(5)))
    wanted = read_simulation({"tenant": "acme", "types": ["order.*"]})
    found = await simulate(registry, wanted, scan=5)
    assert (found.looked_at, found.matched) == (0, 0)
    assert found.since == (await registry.events.list(tenant="globex"))[-1].accepted_at
    found = await simulate(registry, wanted, scan=7)
    assert (found.looked_at, found.since) == (1, None)


async def test_it_ends_after_some_seconds(registry: Registry) -> None:
    number = PAGE + 10
    await registry.events.accept([event(id=f"paid-{each}") for each in range(number)], "event//shop/1")
    wanted = read_simulation({"tenant": "acme", "types": ["order.*"], "last": number})
    found = await simulate(registry, wanted, max_seconds=0)
    assert (found.looked_at, found.matched, found.interrupted) == (1, 1, True)
    assert found.since == found.matches[0].accepted_at
    found = await simulate(registry, wanted)
    assert (found.looked_at, found.interrupted) == (number, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"types": []}, "types"),
        ({"types": ["order.*x"]}, "types"),
        ({"filters": [{"exact": {}}]}, "filters"),
        ({"last": 0}, "last"),
        ({"last": 1001}, "last"),
        ({"last": True}, "last"),
        ({"tenant": "*"}, "tenant"),
        ({"target": {}}, "target"),
        ({"typos": ["a"]}, "typos"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputInvalid, match=message):
        read_simulation({"types": ["order.*"], **fields})
