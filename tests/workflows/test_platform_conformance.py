"""The fake platform behaves like the real activities: every test here runs on both."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bellwire.contract import (
    DELIVERY_NOT_FOUND,
    EVENT_NOT_FOUND,
    MAX_FAILED,
    PAGE_SIZE,
    Chunk,
    Deferred,
    Group,
    InlineSend,
    LookupInput,
    LookupResult,
    OpenPageInput,
    Page,
    PublishResult,
    RedeliverInput,
    Remainder,
    ResolveInput,
    SettleInput,
)
from bellwire.deliveries import Counts, DeliveryState
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, REJECTED, FakePlatform, Response, deferred, retry_after
from tests.workflows.real_platform import RealPlatform, subscribe_all

SCHEDULE = (5.0, 300.0)
THREE: Mapping[Channel, list[str]] = {Channel.WEBHOOK: ["a", "b"], Channel.EMAIL: ["c"]}


Platform = FakePlatform | RealPlatform
MakePlatform = Callable[..., Awaitable[Platform]]


@pytest.fixture(params=["fake", "real"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakePlatform]:
    """Makes a platform with subscriptions, and with rate limits for some channels."""
    async with AsyncExitStack() as stack:

        async def make_platform(
            subscriptions: Mapping[Channel, list[str]] = THREE, *, limited: Sequence[Channel] = ()
        ) -> Platform:
            if request.param == "fake":
                fake = FakePlatform()
                fake.subscriptions, fake.limited_channels = dict(subscriptions), tuple(limited)
                return fake
            url = f"sqlite:///{tmp_path}/registry.db"
            registry = await Registry.open(url)
            stack.push_async_callback(registry.close)
            await registry.migrate()
            await subscribe_all(url, subscriptions)
            for channel in limited:
                await registry.limits.set(channel, 10)
            return RealPlatform(registry)

        yield make_platform


async def published(platform: Platform, *events: Event) -> tuple[Group, ...]:
    """Resolve events for the workflow `w`, and return their groups."""
    return (await platform.resolve(ResolveInput(workflow_id="w", events=events))).groups


async def looked_up(platform: Platform, of: Event, subscription_id: str | None = None) -> LookupResult:
    return await platform.lookup(LookupInput(source=of.source, id=of.id, subscription_id=subscription_id))


async def state(platform: Platform, of: Event, subscription_id: str) -> DeliveryState | None:
    return (await looked_up(platform, of, subscription_id)).delivery_state


def attempts(platform: Platform) -> list[tuple[str, int]]:
    """(subscription id, attempt number) of each attempt started."""
    return [(subscription_id, number) for subscription_id, number, _ in platform.attempts]


def group(of: Event, channel: Channel, *subscription_ids: str, attempt: int = 1) -> Group:
    return Group(event_key=of.key, channel=channel, subscription_ids=subscription_ids, attempt=attempt)


def chunk(*groups: Group) -> Chunk:
    return Chunk(groups=groups, schedule=SCHEDULE)


async def test_a_new_event_comes_back_as_groups_of_pending_deliveries(make: MakePlatform) -> None:
    platform, one = await make(), event()
    result = await platform.resolve(ResolveInput(workflow_id="w", events=(one,)))
    assert result.groups == (group(one, Channel.WEBHOOK, "a", "b"), group(one, Channel.EMAIL, "c"))
    assert (result.pages, result.remainders, result.limited_channels) == ((), (), ())
    summary = result.events[one.key]
    assert (summary.source, summary.id, summary.workflow_id) == (one.source, one.id, "w")
    assert summary.result is PublishResult.OWNED
    assert [await state(platform, one, each) for each in "abc"] == [DeliveryState.PENDING] * 3


async def test_the_same_run_may_resolve_again_and_gets_the_same_result(make: MakePlatform) -> None:
    platform, request = await make(), ResolveInput(workflow_id="w", run_id="r", events=(event(),))
    assert await platform.resolve(request) == await platform.resolve(request)


@pytest.mark.parametrize(("workflow_id", "run_id"), [("other", "r"), ("w", "later")])
async def test_an_event_of_another_run_is_a_duplicate(make: MakePlatform, workflow_id: str, run_id: str) -> None:
    platform, one = await make(), event()
    await platform.resolve(ResolveInput(workflow_id="w", run_id="r", events=(one,)))
    result = await platform.resolve(ResolveInput(workflow_id=workflow_id, run_id=run_id, events=(one,)))
    assert (result.events[one.key].result, result.events[one.key].workflow_id) == (PublishResult.DUPLICATE, "w")
    assert (result.groups, result.pages, result.remainders) == ((), (), ())


async def test_an_event_with_the_key_of_another_is_a_conflict(make: MakePlatform) -> None:
    platform, one, new = await make(), event(id="1"), event()
    await published(platform, one)
    result = await platform.resolve(ResolveInput(workflow_id="w", events=(event(id="1", data="other"), new)))
    assert result.events[one.key].result is PublishResult.CONFLICT
    assert {each.event_key for each in result.groups} == {new.key}


async def test_an_event_without_subscriptions_has_no_groups(make: MakePlatform) -> None:
    platform, one = await make({}), event()
    result = await platform.resolve(ResolveInput(workflow_id="w", events=(one,)))
    assert (result.groups, result.pages, result.remainders) == ((), (), ())
    assert (await looked_up(platform, one)).counts == Counts()


async def test_the_maximum_of_deliveries_is_for_all_events_together(make: MakePlatform) -> None:
    platform, events = await make(), [event(), event()]
    result = await platform.resolve(ResolveInput(workflow_id="w", events=tuple(events), max_deliveries=5))
    assert {each.event_key for each in result.groups} == {events[0].key}
    assert result.pages == (Page(event_key=events[1].key, after="", until="c", size=3),)
    assert (await looked_up(platform, events[1], "a")).not_found == DELIVERY_NOT_FOUND


async def test_an_event_with_many_subscriptions_comes_back_as_pages(make: MakePlatform) -> None:
    ids = [f"s{number:05}" for number in range(2 * PAGE_SIZE + 5)]
    platform, one = await make({Channel.WEBHOOK: ids}), event()
    result = await platform.resolve(ResolveInput(workflow_id="w", events=(one,)))
    assert (result.groups, result.remainders) == ((), ())
    assert result.pages == (
        Page(event_key=one.key, after="", until=ids[PAGE_SIZE - 1], size=PAGE_SIZE),
        Page(event_key=one.key, after=ids[PAGE_SIZE - 1], until=ids[2 * PAGE_SIZE - 1], size=PAGE_SIZE),
        Page(event_key=one.key, after=ids[2 * PAGE_SIZE - 1], until=ids[-1], size=5),
    )
    open_last = OpenPageInput(workflow_id="page", page=result.pages[2])
    opened = await platform.open_page(open_last)
    assert opened.groups == (group(one, Channel.WEBHOOK, *ids[-5:]),)
    assert await platform.open_page(open_last) == opened
    found = await looked_up(platform, one, ids[-1])
    assert (found.delivery_workflow_id, found.counts) == ("page", Counts(matched=5))


async def test_a_remainder_comes_back_as_pages_from_where_it_starts(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    remainder = Remainder(event_key=one.key, after="a")
    result = await platform.resolve(ResolveInput(workflow_id="w", remainders=(remainder,)))
    assert (result.events, result.groups, result.remainders) == ({}, (), ())
    assert result.pages == (Page(event_key=one.key, after="a", until="c", size=2),)


async def test_a_remainder_and_a_page_of_an_event_that_was_deleted_are_empty(make: MakePlatform) -> None:
    platform, gone = await make(), event()
    result = await platform.resolve(ResolveInput(workflow_id="w", remainders=(Remainder(event_key=gone.key),)))
    assert (result.groups, result.pages, result.remainders) == ((), (), ())
    page = Page(event_key=gone.key, until="c", size=3)
    assert (await platform.open_page(OpenPageInput(workflow_id="w", page=page))).groups == ()


async def test_results_name_the_limited_channels(make: MakePlatform) -> None:
    platform, one = await make(limited=[Channel.SMS]), event()
    result = await platform.resolve(ResolveInput(workflow_id="w", events=(one,)))
    page = Page(event_key=one.key, until="c", size=3)
    opened = await platform.open_page(OpenPageInput(workflow_id="w", page=page))
    redelivered = await platform.redeliver(RedeliverInput(workflow_id="w", groups=result.groups))
    sent = await platform.send(Channel.WEBHOOK, chunk(result.groups[0]))
    for each in (result, opened, redelivered, sent):
        assert each.limited_channels == (Channel.SMS,)


async def test_settling_cancels_what_is_unsettled_and_counts_every_delivery(make: MakePlatform) -> None:
    platform, one = await make(), event()
    groups = await published(platform, one)
    await platform.send(Channel.WEBHOOK, chunk(group(one, Channel.WEBHOOK, "a")))
    request = SettleInput(groups=(*groups, group(one, Channel.WEBHOOK, "deleted")), reason="event cancelled")
    expected = {one.key: {DeliveryState.DELIVERED: 1, DeliveryState.CANCELLED: 3}}
    assert (await platform.settle(request)).settled == expected
    assert (await platform.settle(request)).settled == expected
    assert (await looked_up(platform, one)).counts == Counts(matched=3, delivered=1, cancelled=2)


async def test_redelivery_takes_settled_deliveries_and_no_others(make: MakePlatform) -> None:
    platform, one = await make(), event()
    groups = await published(platform, one)
    await platform.send(Channel.EMAIL, chunk(groups[1]))
    request = RedeliverInput(workflow_id="again", groups=groups)
    opened = await platform.redeliver(request)
    assert opened.groups == (group(one, Channel.EMAIL, "c", attempt=2),)
    assert await platform.redeliver(request) == opened, "the activity may run again"
    found = await looked_up(platform, one, "c")
    assert (found.delivery_state, found.delivery_workflow_id) == (DeliveryState.PENDING, "again")
    assert found.delivery == group(one, Channel.EMAIL, "c", attempt=2)


async def test_redelivery_takes_abandoned_deliveries_on_request(make: MakePlatform) -> None:
    platform, one = await make(), event()
    groups = await published(platform, one)
    opened = await platform.redeliver(RedeliverInput(workflow_id="again", groups=groups, abandoned=True))
    assert opened.groups == groups
    assert (await looked_up(platform, one, "a")).delivery_workflow_id == "again"


async def test_redelivery_leaves_out_deliveries_that_were_attempted_since_on_request(make: MakePlatform) -> None:
    platform, one = await make(), event()
    groups = await published(platform, one)
    await platform.send(Channel.EMAIL, chunk(groups[1]))
    stale = RedeliverInput(workflow_id="again", groups=groups, unchanged_only=True)
    assert (await platform.redeliver(stale)).groups == ()
    now = stale.model_copy(update={"groups": (group(one, Channel.EMAIL, "c", attempt=2),)})
    assert (await platform.redeliver(now)).groups == (group(one, Channel.EMAIL, "c", attempt=2),)


async def test_redelivery_starts_the_schedule_again(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    platform.respond = lambda _, attempt: REJECTED if attempt == 1 else deferred()
    await platform.send(Channel.EMAIL, chunk(group(one, Channel.EMAIL, "c")))
    request = RedeliverInput(workflow_id="again", groups=(group(one, Channel.EMAIL, "c"),))
    (again,) = (await platform.redeliver(request)).groups
    (item,) = (await platform.send(Channel.EMAIL, chunk(again))).deferred
    assert (item.attempts, item.delay) == (2, SCHEDULE[0])


@pytest.mark.parametrize(
    ("event_id", "subscription_id", "error"),
    [("unknown", None, EVENT_NOT_FOUND), ("unknown", "a", EVENT_NOT_FOUND), ("1", "other", DELIVERY_NOT_FOUND)],
)
async def test_a_lookup_of_something_unknown_returns_what_was_not_found(
    make: MakePlatform, event_id: str, subscription_id: str | None, error: str
) -> None:
    platform = await make()
    await published(platform, event(id="1"))
    found = await platform.lookup(LookupInput(source="/shop", id=event_id, subscription_id=subscription_id))
    assert (found.not_found, found.workflow_id, found.delivery) == (error, "", None)


async def test_a_lookup_returns_what_is_stored_of_the_event(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    found = await looked_up(platform, one)
    assert (found.event_key, found.workflow_id, found.digest) == (one.key, "w", one.digest)
    assert (found.counts, found.delivery, found.delivery_state) == (Counts(matched=3), None, None)


async def test_a_chunk_result_counts_what_settled_and_lists_what_was_deferred(make: MakePlatform) -> None:
    platform, one, other = await make({Channel.WEBHOOK: ["a", "b", "c", "d"]}), event(), event()
    await published(platform, one, other)
    responses: dict[str, Response] = {"a": DELIVERED, "b": REJECTED, "c": deferred(), "d": retry_after(60, "HTTP 429")}
    platform.respond = lambda subscription_id, _: responses[subscription_id]
    result = await platform.send(
        Channel.WEBHOOK, chunk(group(one, Channel.WEBHOOK, *"abcd"), group(other, Channel.WEBHOOK, "a"))
    )
    assert result.settled == {
        one.key: {DeliveryState.DELIVERED: 1, DeliveryState.REJECTED: 1},
        other.key: {DeliveryState.DELIVERED: 1},
    }
    c, d = sorted(result.deferred, key=lambda item: item.subscription_id)
    assert c == Deferred(event_key=one.key, subscription_id="c", attempts=1, delay=SCHEDULE[0], reason="HTTP 503")
    assert d == Deferred(
        event_key=one.key, subscription_id="d", attempts=1, delay=60.0, from_retry_after=True, reason="HTTP 429"
    )
    assert [await state(platform, one, each) for each in "abcd"] == [
        *(DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.WAITING, DeliveryState.WAITING)
    ]


async def test_results_list_what_failed_and_why(make: MakePlatform) -> None:
    platform, one = await make({Channel.WEBHOOK: ["a", "b", "c"]}), event()
    await published(platform, one)
    responses: dict[str, Response] = {"a": DELIVERED, "b": REJECTED, "c": deferred(reason="HTTP 500")}
    platform.respond = lambda subscription_id, _: responses[subscription_id]
    first = chunk(group(one, Channel.WEBHOOK, "a", "b", "c"))
    result = await platform.send(Channel.WEBHOOK, first)
    assert [(item.subscription_id, item.state, item.attempts) for item in result.failed] == [
        ("b", DeliveryState.REJECTED, 1)
    ]
    assert await platform.send(Channel.WEBHOOK, first) == result, "the activity may run again"
    for attempt in (2, 3):
        last = chunk(group(one, Channel.WEBHOOK, "c", attempt=attempt))
        result = await platform.send(Channel.WEBHOOK, last)
    (item,) = result.failed
    assert (item.state, item.channel, item.attempts) == (DeliveryState.EXHAUSTED, Channel.WEBHOOK, 3)
    assert (item.event_key, item.reason) == (one.key, "HTTP 500")


async def test_a_result_lists_no_more_failures_than_its_limit(make: MakePlatform) -> None:
    ids = [f"s{number:03}" for number in range(MAX_FAILED + 10)]
    platform, one = await make({Channel.WEBHOOK: ids}), event()
    await published(platform, one)
    platform.respond = lambda *_: REJECTED
    result = await platform.send(Channel.WEBHOOK, chunk(group(one, Channel.WEBHOOK, *ids)))
    assert result.settled == {one.key: {DeliveryState.REJECTED: len(ids)}}
    assert len(result.failed) == MAX_FAILED


async def test_an_inline_send_lists_what_failed(make: MakePlatform) -> None:
    platform, one = await make({Channel.WEBHOOK: ["a"]}), event()
    groups = await published(platform, one)
    platform.respond = lambda *_: REJECTED
    result = await platform.send_inline(InlineSend(groups=groups, schedules={Channel.WEBHOOK: SCHEDULE}))
    assert [item.subscription_id for item in result.failed] == ["a"]


async def test_a_delivery_is_exhausted_after_the_last_delay_of_the_schedule(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    platform.respond = lambda *_: deferred()
    delays = []
    for attempt in (1, 2):
        sent = await platform.send(Channel.EMAIL, chunk(group(one, Channel.EMAIL, "c", attempt=attempt)))
        delays += [item.delay for item in sent.deferred]
    last = await platform.send(Channel.EMAIL, chunk(group(one, Channel.EMAIL, "c", attempt=3)))
    assert tuple(delays) == SCHEDULE
    assert (last.settled, last.deferred) == ({one.key: {DeliveryState.EXHAUSTED: 1}}, ())


async def test_attempts_that_retry_now_requested_exhaust_nothing(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    platform.respond = lambda *_: deferred()
    delays = []
    for attempt, extra in ((1, False), (2, True), (3, True), (4, False), (5, True)):
        due = group(one, Channel.EMAIL, "c", attempt=attempt).model_copy(update={"extra": extra})
        sent = await platform.send(Channel.EMAIL, chunk(due))
        assert await platform.send(Channel.EMAIL, chunk(due)) == sent, "the activity may run again"
        delays += [item.delay for item in sent.deferred]
    assert delays == [SCHEDULE[0]] * 3 + [SCHEDULE[1]] * 2
    last = await platform.send(Channel.EMAIL, chunk(group(one, Channel.EMAIL, "c", attempt=6)))
    assert last.settled == {one.key: {DeliveryState.EXHAUSTED: 1}}


async def test_a_retried_activity_repeats_no_recorded_attempt(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    platform.respond = lambda subscription_id, _: DELIVERED if subscription_id == "a" else deferred()
    sent = chunk(group(one, Channel.WEBHOOK, "a", "b"))
    first = await platform.send(Channel.WEBHOOK, sent)
    assert await platform.send(Channel.WEBHOOK, sent) == first
    assert sorted(attempts(platform)) == [("a", 1), ("b", 1)]


async def test_a_delivery_that_was_deleted_counts_as_cancelled(make: MakePlatform) -> None:
    platform, one = await make(), event()
    await published(platform, one)
    result = await platform.send(Channel.WEBHOOK, chunk(group(one, Channel.WEBHOOK, "a", "deleted")))
    assert result.settled == {one.key: {DeliveryState.DELIVERED: 1, DeliveryState.CANCELLED: 1}}
    assert attempts(platform) == [("a", 1)]


async def test_an_inline_send_settles_defers_and_returns_the_remaining_groups(make: MakePlatform) -> None:
    platform, one = await make(), event()
    groups = await published(platform, one)
    platform.not_inline = {Channel.EMAIL}
    platform.respond = lambda subscription_id, _: DELIVERED if subscription_id == "a" else deferred()
    inline = InlineSend(groups=groups, schedules={Channel.WEBHOOK: SCHEDULE, Channel.EMAIL: SCHEDULE})
    result = await platform.send_inline(inline)
    assert result.settled == {one.key: {DeliveryState.DELIVERED: 1}}
    assert [(item.subscription_id, item.delay) for item in result.deferred] == [("b", SCHEDULE[0])]
    assert result.remaining == (groups[1],)
    assert await state(platform, one, "c") is DeliveryState.PENDING
