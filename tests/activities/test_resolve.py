"""Resolving publications into groups and pages, against a real registry."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from temporalio.common import MetricMeter
from temporalio.testing import ActivityEnvironment

from activities.resolve import Resolver
from bellwire.contract import (
    DELIVERY_NOT_FOUND,
    EVENT_NOT_FOUND,
    PAGE_SIZE,
    Group,
    LookupInput,
    OpenPageInput,
    Page,
    PublishResult,
    RedeliverInput,
    Remainder,
    ResolveInput,
    ResolveResult,
    SettleInput,
)
from bellwire.deliveries import Counts, DeliveryState
from bellwire.errors import RegistryUnavailable
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.subscriptions import create
from bellwire.targets import Channel
from tests.factories import event, subscription

#: Subscriptions to crowd.*, of which every third is of the tenant "third" and wants the subject "few" only.
CROWD = 2_400


@pytest.fixture(scope="module")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """A registry with a crowd and three subscriptions to order.*."""
    url = f"sqlite:///{tmp_path_factory.mktemp('resolve') / Path('registry.db')}"
    opened = await Registry.open(url)
    await opened.migrate()
    database = Database.at(url, pool=1)

    async def subscribe_all(connection: AsyncConnection) -> None:
        for number in range(CROWD):
            third = number % 3 == 0
            subscribed = subscription(
                id=f"crowd-{number:05}",
                tenant="third" if third else "acme",
                types=["crowd.*"],
                filters=[{"exact": {"subject": "few"}}] if third else [],
            )
            await create(connection, subscribed, secret=None)

    await database.write(subscribe_all)
    await database.close()
    for name, target in {
        "hook-1": {"channel": "webhook", "url": "https://app.example/hooks"},
        "hook-2": {"channel": "webhook", "url": "https://app.example/hooks"},
        "mail-1": {"channel": "email", "to": "ann@example.com"},
    }.items():
        await opened.subscriptions.create(subscription(target, id=name))
    yield opened
    await opened.close()


async def _all(resolver: Resolver, request: ResolveInput) -> list[ResolveResult]:
    answers = [await resolver.resolve(request)]
    while answers[-1].remainders:
        assert len(answers) < 50
        again = request.model_copy(update={"events": (), "remainders": answers[-1].remainders})
        answers.append(await resolver.resolve(again))
    return answers


async def _pages_cover(registry: Registry, published: Event, pages: list[Page], ids: list[str]) -> None:
    covered = []
    reached = ""
    for page in pages:
        assert page.after >= reached
        found = await registry.matching.match_range(published, after=page.after, until=page.until)
        assert 1 <= page.size == len(found) <= PAGE_SIZE
        covered += [name for name, _ in found]
        reached = page.until
    assert covered == ids


def _crowd(*, few: bool) -> list[str]:
    return [f"crowd-{number:05}" for number in range(CROWD) if few or number % 3]


async def test_an_event_that_few_want_comes_back_as_groups_and_is_recorded(registry: Registry) -> None:
    published, unmatched = event(), event(type="nobody.cares")
    resolver = Resolver(registry)
    request = ResolveInput(workflow_id="run", events=(published, unmatched))
    answer = await resolver.resolve(request)
    assert answer.groups == (
        Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("hook-1", "hook-2")),
        Group(event_key=published.key, channel=Channel.EMAIL, subscription_ids=("mail-1",)),
    )
    assert answer.pages == ()
    assert answer.remainders == ()
    assert set(answer.events) == {published.key, unmatched.key}
    recorded = await registry.deliveries.list(event_key=published.key)
    assert [found.subscription_id for found in recorded] == ["hook-1", "hook-2", "mail-1"]
    assert await resolver.resolve(request) == answer
    assert await registry.deliveries.list(event_key=published.key) == recorded


async def test_an_event_published_before_is_not_delivered_again(registry: Registry) -> None:
    resolver = Resolver(registry)
    published = event(id="twice")
    await resolver.resolve(ResolveInput(workflow_id="first", events=(published,)))
    again = await resolver.resolve(ResolveInput(workflow_id="second", events=(published,)))
    other = await resolver.resolve(ResolveInput(workflow_id="third", events=(event(id="twice", data="other"),)))
    assert again.events[published.key].result is PublishResult.DUPLICATE
    assert again.events[published.key].workflow_id == "first"
    assert other.events[published.key].result is PublishResult.CONFLICT
    assert again.groups == other.groups == ()
    assert again.remainders == ()
    assert again.pages == other.pages == ()


async def test_an_event_that_many_want_comes_back_as_pages_and_nothing_is_recorded(registry: Registry) -> None:
    published = event(type="crowd.gathers", tenant="*", subject="few")
    resolver = Resolver(registry)
    answer = await resolver.resolve(ResolveInput(workflow_id="run", events=(published,)))
    assert answer.groups == ()
    assert answer.remainders == ()
    assert [page.size for page in answer.pages] == [1000, 1000, 400]
    await _pages_cover(registry, published, list(answer.pages), _crowd(few=True))
    assert await registry.deliveries.list(event_key=published.key) == []

    opened = await resolver.open_page(OpenPageInput(workflow_id="page", page=answer.pages[2]))
    ids = tuple(_crowd(few=True)[2000:])
    assert opened.groups == (Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=ids),)
    assert await resolver.open_page(OpenPageInput(workflow_id="page", page=answer.pages[2])) == opened
    recorded = await registry.deliveries.list(event_key=published.key, limit=1000)
    assert tuple(found.subscription_id for found in recorded) == ids
    assert {found.workflow_id for found in recorded} == {"page"}


async def test_the_room_is_for_all_events_together(registry: Registry) -> None:
    published = [event() for _ in range(3)]
    answer = await Resolver(registry).resolve(
        ResolveInput(workflow_id="run", events=tuple(published), max_deliveries=7)
    )
    assert {found.event_key for found in answer.groups} == {published[0].key, published[1].key}
    assert answer.pages == (Page(event_key=published[2].key, after="", until="mail-1", size=3),)
    assert await registry.deliveries.list(event_key=published[2].key) == []


async def test_without_room_everything_becomes_pages(registry: Registry) -> None:
    published = event()
    answer = await Resolver(registry).resolve(ResolveInput(workflow_id="run", events=(published,), max_deliveries=0))
    assert answer.groups == ()
    assert [page.size for page in answer.pages] == [3]


@pytest.mark.parametrize("budget", [100, 999, 1_000, 1_001, 2_399, 2_400, 2_401])
async def test_what_the_budget_does_not_reach_is_left_for_the_next_call(registry: Registry, budget: int) -> None:
    published = event(type="crowd.gathers", tenant="*")
    resolver = Resolver(registry, scan_budget=budget)
    answers = await _all(resolver, ResolveInput(workflow_id="run", events=(published,)))
    pages = [page for answer in answers for page in answer.pages]
    assert not any(answer.groups for answer in answers)
    assert len(answers) <= CROWD // budget + 2
    assert list(answers[0].events) == [published.key]
    assert not any(answer.events for answer in answers[1:])
    await _pages_cover(registry, published, pages, _crowd(few=False))


async def test_a_call_returns_so_many_pages_and_no_more(registry: Registry) -> None:
    published = event(type="crowd.gathers", tenant="*", subject="few")
    resolver = Resolver(registry, max_pages=2)
    first, second = await _all(resolver, ResolveInput(workflow_id="run", events=(published,)))
    assert [page.size for page in first.pages] == [1000, 1000]
    assert first.remainders == (Remainder(event_key=published.key, after="crowd-01999"),)
    assert [page.size for page in second.pages] == [400]
    await _pages_cover(registry, published, [*first.pages, *second.pages], _crowd(few=True))


async def test_an_event_with_pages_goes_on_with_pages(registry: Registry) -> None:
    published = event(type="crowd.gathers", tenant="*", subject="few")
    await registry.events.accept([published], "run")
    left = Remainder(event_key=published.key, after="crowd-02389")
    answer = await Resolver(registry).resolve(ResolveInput(workflow_id="run", remainders=(left,)))
    assert answer.groups == ()
    assert answer.events == {}
    assert answer.pages == (Page(event_key=published.key, after="crowd-02389", until="crowd-02399", size=10),)


async def test_many_candidates_of_which_none_matches_leave_no_page(registry: Registry) -> None:
    published = event(type="crowd.gathers", tenant="third")
    answers = await _all(Resolver(registry, scan_budget=100), ResolveInput(workflow_id="run", events=(published,)))
    assert [answer.pages for answer in answers] == [()] * len(answers)
    assert len(answers) == 9


async def test_an_event_that_the_budget_cuts_short_starts_afresh_in_the_next_call(registry: Registry) -> None:
    big, small = event(type="crowd.gathers", tenant="*"), event()
    resolver = Resolver(registry, scan_budget=CROWD + 2)
    first, second = await _all(resolver, ResolveInput(workflow_id="run", events=(big, small)))
    assert [page.size for page in first.pages] == [1000, 600]
    assert first.remainders == (Remainder(event_key=small.key),)
    assert sum(len(found.subscription_ids) for found in second.groups) == 3
    assert second.pages == ()
    assert len(await registry.deliveries.list(event_key=small.key)) == 3


async def test_a_publication_of_a_hundred_events_that_many_want_is_divided_completely(registry: Registry) -> None:
    published = [
        event(type="crowd.gathers", tenant="*", subject="few" if number % 2 else None) for number in range(100)
    ]
    answers = await _all(Resolver(registry), ResolveInput(workflow_id="run", events=tuple(published)))
    assert len(answers) == 2
    sizes: dict[str, list[int]] = {}
    for page in [page for answer in answers for page in answer.pages]:
        sizes.setdefault(page.event_key, []).append(page.size)
    assert [sizes[item.key] for item in published] == [[1000, 600], [1000, 1000, 400]] * 50


async def test_deliveries_are_settled_and_opened_again(registry: Registry) -> None:
    published = event()
    resolver = Resolver(registry)
    groups = (await resolver.resolve(ResolveInput(workflow_id="run", events=(published,)))).groups
    settled = await resolver.settle(SettleInput(groups=groups, reason="cancelled"))
    assert settled.settled == {published.key: {DeliveryState.CANCELLED: 3}}
    opened = await resolver.redeliver(RedeliverInput(workflow_id="replay", groups=groups[:1]))
    assert opened.groups == groups[:1]
    located = await resolver.lookup(LookupInput(source="/shop", id=published.id, subscription_id="hook-1"))
    assert located.delivery == Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("hook-1",))
    assert located.delivery_state is DeliveryState.PENDING
    assert located.delivery_workflow_id == "replay"
    assert located.counts == Counts(matched=3, cancelled=1)


@pytest.mark.parametrize(
    ("event_id", "subscription_id", "kind"),
    [("unknown", None, EVENT_NOT_FOUND), ("unknown", "hook-1", EVENT_NOT_FOUND), ("known", "no", DELIVERY_NOT_FOUND)],
)
async def test_what_cannot_be_located_is_not_tried_again(
    registry: Registry, event_id: str, subscription_id: str | None, kind: str
) -> None:
    await registry.events.accept([event(id="known")], "run")
    found = await Resolver(registry).lookup(LookupInput(source="/shop", id=event_id, subscription_id=subscription_id))
    assert (found.not_found, found.workflow_id, found.delivery) == (kind, "", None)


async def test_an_event_that_was_purged_by_force_while_its_run_was_finding_subscribers_ends_the_search(
    registry: Registry,
) -> None:
    resolver, gone = Resolver(registry), event(id="purged", type="crowd.came").key
    request = ResolveInput(workflow_id="run", remainders=(Remainder(event_key=gone, after="crowd-00100"),))
    found = await resolver.resolve(request)
    assert (found.groups, found.pages, found.remainders) == ((), (), ())
    page = Page(event_key=gone, after="", until="crowd-00100", size=100)
    assert (await resolver.open_page(OpenPageInput(workflow_id="run", page=page))).groups == ()


class Recorded(MetricMeter):
    """Keeps what is added to counters."""

    def __init__(self) -> None:
        self.added: list[tuple[str, int, dict[str, Any]]] = []

    def create_counter(self, name: str, description: str | None = None, unit: str | None = None) -> Any:
        return SimpleNamespace(add=lambda number, labels: self.added.append((name, number, labels)))

    create_histogram = create_histogram_float = create_histogram_timedelta = create_counter
    create_gauge = create_gauge_float = create_up_down_counter = create_counter

    def with_additional_attributes(self, additional_attributes: Any) -> Any:
        return self


async def test_duplicates_and_conflicts_are_logged_and_counted(registry: Registry) -> None:
    env, resolver = ActivityEnvironment(), Resolver(registry)
    env.metric_meter = meter = Recorded()
    one, two = event(), event(tenant="acme")
    await resolver.resolve(ResolveInput(workflow_id="first", events=(one, two)))
    changed = event(id=two.id, tenant="acme", data={"changed": True})
    with capture_logs() as logs:
        await env.run(resolver.resolve, ResolveInput(workflow_id="second", events=(one, changed, event())))
    same = {"event_source": "/shop", "workflow": "second", "published_by": "first"}
    assert [log for log in logs if log["event"].startswith("event.")] == [
        {"event": "event.duplicated", "log_level": "info", "event_id": one.id, "event_type": one.type}
        | {"tenant": one.tenant, **same},
        {"event": "event.conflicted", "log_level": "warning", "event_id": two.id, "event_type": two.type}
        | {"tenant": "acme", **same},
    ]
    assert sorted((name, number, labels["result"]) for name, number, labels in meter.added) == [
        ("bellwire_events_published", 1, "conflict"),
        ("bellwire_events_published", 1, "duplicate"),
        ("bellwire_events_published", 1, "owned"),
    ]


async def test_a_try_that_fails_reports_nothing_so_that_the_next_reports_it_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver, one = Resolver(registry), event()
    await resolver.resolve(ResolveInput(workflow_id="first", events=(one,)))

    async def unavailable() -> tuple[Channel, ...]:
        raise RegistryUnavailable

    again = ResolveInput(workflow_id="second", events=(one,))
    with capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr(registry.limits, "limited_channels", unavailable)
            with pytest.raises(RegistryUnavailable):
                await resolver.resolve(again)
        await resolver.resolve(again)
    assert [log["event"] for log in logs] == ["event.duplicated"]


async def test_only_what_a_settling_cancels_is_counted(registry: Registry) -> None:
    env, resolver, one = ActivityEnvironment(), Resolver(registry), event()
    env.metric_meter = meter = Recorded()
    groups = (await resolver.resolve(ResolveInput(workflow_id="run", events=(one,)))).groups
    for _ in range(2):
        await env.run(resolver.settle, SettleInput(groups=groups, reason="cancelled"))
    assert sorted((name, number, labels["channel"]) for name, number, labels in meter.added) == [
        ("bellwire_deliveries_settled", 1, "email"),
        ("bellwire_deliveries_settled", 2, "webhook"),
    ]


async def test_an_event_for_an_unknown_tenant_is_accepted_and_says_so(registry: Registry) -> None:
    resolver = Resolver(registry)
    known, misspelt, for_all = event(), event(tenant="acmee"), event(tenant="*")
    request = ResolveInput(workflow_id="run", events=(known, misspelt, for_all))
    env = ActivityEnvironment()
    with capture_logs() as logs:
        answer = await env.run(resolver.resolve, request)
    assert [(each.result, each.unknown_tenant) for each in answer.events.values()] == [
        (PublishResult.OWNED, False),
        (PublishResult.OWNED, True),
        (PublishResult.OWNED, False),
    ]
    (log,) = [log for log in logs if log["event"].startswith("event.")]
    assert (log["event"], log["tenant"], log["event_id"]) == ("event.tenant_unknown", "acmee", misspelt.id)
    assert set(await registry.events.by_keys([known.key, misspelt.key])) == {known.key, misspelt.key}

    await registry.subscriptions.create(subscription(id="later", tenant="acmee"))
    assert not (await resolver.resolve(request)).events[misspelt.key].unknown_tenant


async def test_an_event_for_an_unknown_tenant_is_refused_by_setting(registry: Registry) -> None:
    resolver = Resolver(registry, refuse_unknown_tenants=True)
    known, misspelt, own = event(), event(tenant="never-subscribed"), event(tenant="default", source="bellwire")
    request = ResolveInput(workflow_id="run", events=(known, misspelt, own))
    env = ActivityEnvironment()
    with capture_logs() as logs:
        answer = await env.run(resolver.resolve, request)
    assert {key: each.result for key, each in answer.events.items()} == {
        known.key: PublishResult.OWNED,
        misspelt.key: PublishResult.REFUSED,
        own.key: PublishResult.OWNED,
    }
    assert [log["event"] for log in logs if log["event"].startswith("event.")] == ["event.refused"]
    assert set(await registry.events.by_keys([known.key, misspelt.key])) == {known.key}
    assert {group.event_key for group in answer.groups} == {known.key}
