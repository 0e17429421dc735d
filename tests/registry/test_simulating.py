"""Simulating: types and filters tried on the last stored events of a tenant, and how far back that looks."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from starter.operations.delivery.simulating import PAGE, Simulation, read_simulation, simulate
from starter.operations.problems import InputInvalid
from tests.factories import event
from tests.registry.conftest import execute_sql


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


async def test_events_of_others_however_many_do_not_count(registry: Registry, database: Database) -> None:
    await accept(registry, {"id": "old"}, {"id": "all", "tenant": "*"}, {"id": "other", "tenant": "globex"})
    columns = "source, id, type, tenant, digest, workflow_id, run_id, accepted_at, body"
    await execute_sql(
        database,
        "CREATE TEMPORARY TABLE copies AS WITH RECURSIVE numbers(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20100) SELECT n FROM numbers",
        f"INSERT INTO events (key, {columns}) SELECT key || n, {columns} FROM events, copies WHERE tenant = 'globex'",
        "DROP TABLE copies",
    )
    found = await simulated(registry)
    assert ([each.event.id for each in found.matches], found.looked_at, found.since) == (["all", "old"], 2, None)


async def test_without_types_all_are_tried(registry: Registry) -> None:
    await accept(registry, {"id": "1", "subject": "1"}, {"id": "2", "type": "user.registered", "subject": "1"})
    found = await simulate(registry, read_simulation({"tenant": "acme", "filters": [{"exact": {"subject": "1"}}]}))
    assert (found.looked_at, found.matched) == (2, 2)


async def test_it_ends_after_some_seconds(registry: Registry) -> None:
    number = PAGE + 10
    await registry.events.accept([event(id=f"paid-{each}") for each in range(number)], "event//shop/1")
    wanted = read_simulation({"tenant": "acme", "types": ["order.*"], "last": number})
    found = await simulate(registry, wanted, max_seconds=0)
    assert (found.looked_at, found.matched, found.interrupted) == (1, 1, True)
    assert found.since == found.matches[0].accepted_at
    found = await simulate(registry, wanted)
    assert (found.looked_at, found.interrupted) == (number, False)


async def test_it_ends_between_two_filters(registry: Registry) -> None:
    await accept(registry, {"id": "paid"})
    before = datetime.now(UTC)
    wanted = read_simulation({"tenant": "acme", "filters": [{"exact": {"type": "order.paid"}}] * 2})
    found = await simulate(registry, wanted, max_seconds=0)
    assert (found.looked_at, found.interrupted, found.matches) == (0, True, ())
    assert found.since is not None
    assert found.since >= before


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
