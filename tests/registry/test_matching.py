"""Matching: finds exactly the matching subscriptions, in pages of any size."""

from typing import Any

import pytest

from bellwire.events import Event
from bellwire.registry import Match, Registry
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel
from tests.factories import event, subscription

TYPES = [["order.paid"], ["order.*"], ["*"], ["order.paid", "order.*", "*"], ["order"], ["order.paid.*"], ["invoice.*"]]
FILTERS: list[list[dict[str, Any]]] = [
    [],
    [{"prefix": {"source": "/shop"}}],
    [{"exact": {"subject": "42"}}],
    [{"not": {"exact": {"subject": "42"}}}, {"suffix": {"type": "paid"}}],
]
EVENTS = [
    event(),
    event(subject="42"),
    event(source="/other", tenant="acme"),
    event(tenant="default", subject="42"),
    event(tenant="unknown"),
    event(tenant=None),
    event(tenant="*"),
    event(tenant="*", subject="42"),
    event(type="order"),
    event(type="order.paid.late"),
    event(type="*"),
]


async def _subscribe_many(registry: Registry) -> list[Subscription]:
    created = [
        subscription(id=f"s{number:03}", tenant=tenant, types=types, filters=filters)
        for number, (tenant, types, filters) in enumerate(
            (tenant, types, filters) for tenant in ("acme", "default") for types in TYPES for filters in FILTERS
        )
    ]
    for one in created:
        await registry.subscriptions.create(one)
    await registry.subscriptions.set_state("s000", SubscriptionState.PAUSED)
    return [created[0].model_copy(update={"state": SubscriptionState.PAUSED}), *created[1:]]


async def _all(registry: Registry, published: Event, *, limit: int, scan: int) -> list[str]:
    names: list[str] = []
    reached: str | None = ""
    while reached is not None:
        found = await registry.matching.match(published, after=reached, limit=limit, scan=scan)
        assert len(found.found) <= limit
        assert found.scanned <= scan
        assert found.reached is None or found.reached > reached
        names += [name for name, _ in found.found]
        reached = found.reached
    return names


async def test_a_match_finds_exactly_the_subscriptions_that_want_the_event(registry: Registry) -> None:
    created = await _subscribe_many(registry)
    for published in EVENTS:
        expected = [one.id for one in created if one.wants(published)]
        for limit, scan in [(1000, 50_000), (1, 1), (3, 7), (7, 3), (len(expected) or 1, 1000)]:
            assert await _all(registry, published, limit=limit, scan=scan) == expected
        ranged = await registry.matching.match_range(published, after="s010", until="s040")
        assert [name for name, _ in ranged] == [name for name in expected if "s010" < name <= "s040"]


async def test_events_of_one_type_and_tenant_share_the_reads(registry: Registry) -> None:
    created = await _subscribe_many(registry)
    alike = [event(), event(subject="42"), event(source="/other"), event(source="/other", subject="42")]
    for published, found in zip(
        alike, (await registry.matching.match_each([alike], limit=1000, scan=1000))[0], strict=True
    ):
        assert [name for name, _ in found.found] == [one.id for one in created if one.wants(published)]
        assert found.reached is None
    for published, found in zip(
        alike, (await registry.matching.match_each([alike], limit=3, scan=1000))[0], strict=True
    ):
        expected = [one.id for one in created if one.wants(published)]
        assert [name for name, _ in found.found] == expected[:3]
        assert found.reached == expected[2]


async def test_a_match_reports_whether_there_may_be_more(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        await registry.subscriptions.create(subscription(id=name))
    webhook = Channel.WEBHOOK
    every = (("a", webhook), ("b", webhook), ("c", webhook))
    assert await registry.matching.match(event(), limit=3, scan=10) == Match(every, None, 3)
    assert await registry.matching.match(event(), limit=2, scan=10) == Match(every[:2], "b", 3)
    assert await registry.matching.match(event(), after="b", limit=2, scan=10) == Match(every[2:], None, 1)
    assert await registry.matching.match(event(), limit=10, scan=2) == Match(every[:2], "b", 2)
    assert await registry.matching.match(event(type="invoice"), limit=2, scan=10) == Match((), None, 0)


@pytest.mark.parametrize(("limit", "scan"), [(0, 10), (10, 0)])
async def test_a_match_with_a_zero_limit_finds_nothing(registry: Registry, limit: int, scan: int) -> None:
    await registry.subscriptions.create(subscription(id="a"))
    assert await registry.matching.match(event(), limit=limit, scan=scan) == Match((), "")


async def test_a_match_reads_more_candidates_than_one_query_returns(registry: Registry) -> None:
    """1,200 candidates whose filters do not match, and one that matches."""
    for number in range(1200):
        await registry.subscriptions.create(subscription(id=f"n{number:04}", filters=[{"exact": {"subject": "none"}}]))
    await registry.subscriptions.create(subscription(id="one", types=["*"]))
    assert await registry.matching.match(event(), limit=5, scan=50_000) == Match(
        (("one", Channel.WEBHOOK),), None, 1201
    )
    assert await registry.matching.match(event(), limit=5, scan=1_100) == Match((), "n1099", 1_100)


async def test_a_type_with_many_segments_matches(registry: Registry) -> None:
    deep = ".".join("w" * 120)
    await registry.subscriptions.create(subscription(id="a", types=["w.w.*"]))
    assert (await registry.matching.match(event(type=deep), limit=5, scan=10)).found == (("a", Channel.WEBHOOK),)
