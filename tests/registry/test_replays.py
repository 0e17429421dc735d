"""Replays: rows, the selection of past events and deliveries, and new subscriptions with a past, also while events come in."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from temporalio.testing import ActivityEnvironment

from activities.replaying import MAX_WAIT, Replayer
from activities.resolve import Resolver
from bellwire.contract import Group, OpenPageInput, OpenPastInput, ReplayBatch, ResolveInput, SelectReplayInput
from bellwire.deliveries import Attempt, DeliveryKey, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import ReplayNotFound, TemporalUnavailable
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.replays import replays
from bellwire.replays import Replay, ReplayKind, ReplayState, replay_since
from bellwire.subscriptions import Subscription, SubscriptionState
from starter.operations.delivery import replaying
from tests.factories import event, subscription

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def create(registry: Registry, new: Subscription, **fields: Any) -> Replay:
    """A subscription with a past."""
    replay = replay_since(new, LONG_AGO).model_copy(update=fields)
    await registry.subscriptions.create(new, replay=replay)
    return replay


async def store(registry: Registry, *events: Event) -> list[str]:
    """Store events one by one, and return their keys."""
    for each in events:
        await registry.events.accept([each], f"event/{each.id}")
    return [each.key for each in events]


async def batches(registry: Registry, replay: Replay) -> AsyncIterator[ReplayBatch]:
    """The batches of a replay, each opened as its Dispatch would."""
    replayer, cursor, done = Replayer(registry), None, 0
    while True:
        request = SelectReplayInput(replay_id=replay.id, cursor=cursor, done=done)
        batch = await replayer.select_replay(request)
        yield batch
        if batch.state is not ReplayState.RUNNING:
            return
        cursor, done = batch.cursor, done + len(batch.groups)


async def selected(registry: Registry, replay: Replay) -> list[str]:
    return [group.event_key async for batch in batches(registry, replay) for group in batch.groups]


async def test_past_events_come_in_the_order_of_storing_and_once(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="other", tenant="other"))
    wanted = [event(id=f"{number:03}", tenant="*" if number % 3 == 0 else "acme") for number in range(130)]
    await store(registry, *wanted, event(type="user.left"), event(tenant="other"))
    replay = await create(registry, subscription(id="late"), rate=7)
    found = [batch async for batch in batches(registry, replay)]
    assert [group.event_key for batch in found for group in batch.groups] == [each.key for each in wanted]
    assert max(len(batch.groups) for batch in found) == 7
    assert (found[0].total, found[-1].state) == (130, ReplayState.COMPLETED)
    stored = await registry.replays.get(replay.id)
    assert (stored.state, stored.total, stored.done) == (ReplayState.COMPLETED, 130, 130)
    assert stored.started_at is not None
    assert stored.ended_at is not None


async def test_filters_types_and_what_was_delivered_before_narrow_the_past(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="late", filters=[{"exact": {"subject": "yes"}}]))
    kept = event(id="kept", subject="yes")
    before, again = event(id="before", subject="yes"), event(id="again", subject="yes", type="order.sent")
    await store(registry, kept, event(id="no", subject="no"), before, again)
    group = Group(event_key=before.key, channel=subscription().channel, subscription_ids=("late",))
    await registry.deliveries.add("event/before", [group])
    late = await registry.subscriptions.get("late")
    for types, expected in (((), [kept.key, again.key]), (("order.sent",), [again.key]), (("user.*",), [])):
        replay = replay_since(late, LONG_AGO).model_copy(update={"types": types})
        await registry.replays.add(replay)
        assert await selected(registry, replay) == expected


async def test_only_events_from_since_until_are_selected(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="late"))
    events = [event(id=str(number)) for number in range(5)]
    await store(registry, *events)
    times = [(await registry.events.get(each.key)).accepted_at for each in events]
    late = await registry.subscriptions.get("late")
    replay = replay_since(late, times[1]).model_copy(update={"until": times[4]})
    await registry.replays.add(replay)
    assert await selected(registry, replay) == [each.key for each in events[1:4]]


async def test_who_inserts_a_delivery_first_has_it(registry: Registry) -> None:
    (key,) = await store(registry, event(id="1"))
    await create(registry, subscription(id="a"))
    await registry.subscriptions.create(subscription(id="b"))
    group = Group(event_key=key, channel=subscription().channel, subscription_ids=("a", "b"))
    only_a = group.model_copy(update={"subscription_ids": ("a",)})
    replayer = Replayer(registry)
    opened = await replayer.open_past(OpenPastInput(workflow_id="redeliver/rpl_1/1", groups=(only_a,)))
    assert opened.groups == (only_a,)
    assert await registry.deliveries.add("event/1", [group]) == (group.model_copy(update={"subscription_ids": ("b",)}),)
    # Each gets its own again when its activity is repeated, and nobody else does.
    again = await replayer.open_past(OpenPastInput(workflow_id="redeliver/rpl_1/1", groups=(only_a,)))
    assert again.groups == (only_a,)
    other = await replayer.open_past(OpenPastInput(workflow_id="redeliver/rpl_2/1", groups=(only_a,)))
    assert other.groups == ()


async def test_what_was_purged_or_is_no_longer_wanted_is_not_opened(registry: Registry) -> None:
    (key,) = await store(registry, event(id="1"))
    await create(registry, subscription(id="a"))
    gone = Group(event_key="gone", channel=subscription().channel, subscription_ids=("a",))
    stored = gone.model_copy(update={"event_key": key})
    deleted = stored.model_copy(update={"subscription_ids": ("deleted",)})
    request = OpenPastInput(workflow_id="redeliver/rpl_1/1", groups=(gone, stored, deleted))
    assert (await Replayer(registry).open_past(request)).groups == (stored,)
    await registry.subscriptions.create(subscription(id="b", filters=[{"exact": {"subject": "yes"}}]))
    unwanted = stored.model_copy(update={"subscription_ids": ("b",)})
    assert (await Replayer(registry).open_past(OpenPastInput(workflow_id="w", groups=(unwanted,)))).groups == ()


async def test_what_was_selected_is_opened_although_its_subscription_was_paused_since(registry: Registry) -> None:
    (key,) = await store(registry, event(id="1"))
    replay = await create(registry, subscription(id="a"))
    batch = await Replayer(registry).select_replay(SelectReplayInput(replay_id=replay.id))
    await registry.subscriptions.set_state("a", SubscriptionState.PAUSED)
    opened = await Replayer(registry).open_past(OpenPastInput(workflow_id="redeliver/rpl_1/1", groups=batch.groups))
    assert [group.event_key for group in opened.groups] == [key]


async def test_what_a_try_has_opened_is_returned_to_the_next_although_filters_were_changed(registry: Registry) -> None:
    (key,) = await store(registry, event(id="1"))
    await create(registry, subscription(id="a"))
    group = Group(event_key=key, channel=subscription().channel, subscription_ids=("a",))
    request = OpenPastInput(workflow_id="redeliver/rpl_1/1", groups=(group,))
    assert (await Replayer(registry).open_past(request)).groups == (group,)
    version = (await registry.subscriptions.get("a")).version
    changed = subscription(id="a", filters=[{"exact": {"subject": "another"}}], version=version)
    await registry.subscriptions.update([changed])
    assert (await Replayer(registry).open_past(request)).groups == (group,)
    other = request.model_copy(update={"workflow_id": "redeliver/rpl_2/1"})
    assert (await Replayer(registry).open_past(other)).groups == ()


@pytest.mark.parametrize("state", [SubscriptionState.PAUSED, SubscriptionState.DISABLED])
async def test_a_replay_waits_until_its_subscription_is_active_again(
    registry: Registry, state: SubscriptionState
) -> None:
    await store(registry, event(id="1"))
    replay = await create(registry, subscription(id="a"))
    await registry.subscriptions.set_state("a", state, reason="gone")
    request, replayer = SelectReplayInput(replay_id=replay.id), Replayer(registry)
    for _ in range(2):
        waiting = await replayer.select_replay(request)
        assert (waiting.state, waiting.wait) == (ReplayState.PAUSED, MAX_WAIT)
    stored = await registry.replays.get(replay.id)
    assert (stored.state, stored.state_reason) == (ReplayState.PAUSED, f"the subscription is {state}")
    await registry.subscriptions.set_state("a", SubscriptionState.ACTIVE)
    batch = await replayer.select_replay(request)
    assert (batch.state, len(batch.groups)) == (ReplayState.RUNNING, 1)
    stored = await registry.replays.get(replay.id)
    assert (stored.state, stored.state_reason) == (ReplayState.RUNNING, None)
    cancelled = await Replayer(registry).select_replay(request.model_copy(update={"cancelled": True}))
    assert cancelled.state is ReplayState.CANCELLED
    assert not await registry.replays.set_state(replay.id, ReplayState.RUNNING, if_states=[ReplayState.PAUSED])


async def test_what_an_operator_paused_stays_paused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "wake_replay", AsyncMock())
    await store(registry, event(id="1"))
    replay = await create(registry, subscription(id="a"))
    await registry.subscriptions.set_state("a", SubscriptionState.PAUSED)
    request, replayer = SelectReplayInput(replay_id=replay.id), Replayer(registry)
    assert (await replayer.select_replay(request)).state is ReplayState.PAUSED
    assert (await replaying.pause_replay(Mock(), registry, replay.id)).state_reason is None
    await registry.subscriptions.set_state("a", SubscriptionState.ACTIVE)
    assert not await registry.replays.end_wait(replay.id)
    assert (await replayer.select_replay(request)).state is ReplayState.PAUSED
    await replaying.resume_replay(Mock(), registry, replay.id)
    assert len((await replayer.select_replay(request)).groups) == 1


async def test_a_repeated_resume_wakes_a_workflow_that_the_first_did_not_reach(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = await create(registry, subscription(id="a"), state=ReplayState.PAUSED)
    wake = AsyncMock(side_effect=TemporalUnavailable("no response"))
    monkeypatch.setattr(replaying, "wake_replay", wake)
    with pytest.raises(TemporalUnavailable):
        await replaying.resume_replay(Mock(), registry, replay.id)
    wake.side_effect = None
    assert (await replaying.resume_replay(Mock(), registry, replay.id)).state is ReplayState.RUNNING
    assert wake.await_count == 2
    for _ in range(2):
        await replaying.cancel_replay(Mock(), registry, replay.id)
    assert wake.await_count == 3, "one that has ended needs no wake"


async def test_a_count_that_takes_too_long_ends_without_a_number(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(registry, event(id="1"))
    replay = await create(registry, subscription(id="a"))
    late = await registry.subscriptions.get("a")
    assert await registry.replays.count(replay, late) == 1
    monkeypatch.setattr(replays, "COUNT_SECONDS", 0.01)
    never = asyncio.Event()
    monkeypatch.setattr(registry.replays, "select", lambda *_, **__: never.wait())
    async with asyncio.timeout(10):
        assert await registry.replays.count(replay, late) is None


async def test_half_of_a_rate_limit_is_left_to_live_events(registry: Registry) -> None:
    await store(registry, *(event(id=str(number)) for number in range(9)))
    replay = await create(registry, subscription(id="slow", rate_limit=4))
    batch = await Replayer(registry).select_replay(SelectReplayInput(replay_id=replay.id))
    assert (batch.rate, len(batch.groups)) == (2.0, 2)


async def test_failed_deliveries_are_selected_with_their_next_attempts(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="a"))
    events = [event(id=str(number)) for number in range(4)]
    await store(registry, *events)
    states = (DeliveryState.EXHAUSTED, DeliveryState.REJECTED, DeliveryState.DELIVERED, DeliveryState.EXHAUSTED)
    for each, state in zip(events, states, strict=True):
        await registry.deliveries.add(
            "w", [Group(event_key=each.key, channel=subscription().channel, subscription_ids=("a",))]
        )
        kind = OutcomeKind.DELIVERED if state is DeliveryState.DELIVERED else OutcomeKind.DEFERRED
        outcome = Outcome(kind=kind, reason="HTTP 500")
        fields = {"event_key": each.key, "subscription_id": "a", "number": 3, "outcome": outcome, "state": state}
        await registry.attempts.record([Attempt(**fields, started_at=datetime.now(UTC), duration=0.1)])
    now = datetime.now(UTC)
    replay = Replay(
        tenant="acme",
        subscription_id="a",
        kind=ReplayKind.FAILED,
        states=(DeliveryState.REJECTED, DeliveryState.EXHAUSTED),
        until=now,
        rate=1,
        created_at=now,
        updated_at=now,
    )
    await registry.replays.add(replay)
    found = [group async for batch in batches(registry, replay) for group in batch.groups]
    exhausted = sorted(events[number].key for number in (0, 3))
    assert [group.event_key for group in found] == [events[1].key, *exhausted]
    assert {group.attempt for group in found} == {4}
    await registry.deliveries.redeliver(f"redeliver/{replay.id}/1", found, unchanged_only=True)
    assert await registry.replays.outcomes(replay) == {DeliveryState.PENDING: 3}


async def test_replays_are_listed_newest_first_and_go_with_their_subscription(registry: Registry) -> None:
    one, two = await create(registry, subscription(id="a")), await create(registry, subscription(id="b"))
    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert [each.id for each in await registry.replays.list(tenant="acme")] == [two.id, one.id]
    assert [each.id for each in await registry.replays.list(subscription_id="a")] == [one.id]
    assert [each.id for each in await registry.replays.list(before=two.id)] == [one.id]
    assert [each.id for each in await registry.replays.not_started(before=soon)] == [one.id, two.id]
    assert await registry.replays.not_started(before=one.created_at) == []
    await registry.replays.record_progress(one.id, done=0)
    assert [each.id for each in await registry.replays.not_started(before=soon)] == [two.id]
    with pytest.raises(ReplayNotFound):
        await registry.replays.get("rpl_unknown")


async def test_no_event_is_missed_or_delivered_twice_while_subscriptions_with_a_past_are_made(url: str) -> None:
    """Three workers accept events, each in its own transactions, and other processes subscribe and replay meanwhile."""
    workers = [await Registry.open(url, pool=3) for _ in range(3)]
    await workers[0].migrate()
    owners: list[tuple[DeliveryKey, str]] = []
    events = [event(id=f"{number:04}") for number in range(240)]
    names = [f"sub-{number:02}" for number in range(8)]

    async def publish(registry: Registry, own: list[Event]) -> None:
        resolver = Resolver(registry)
        for each in own:
            workflow_id = f"event/{each.id}"
            request = ResolveInput(workflow_id=workflow_id, events=(each,), max_deliveries=3)
            result = await ActivityEnvironment().run(resolver.resolve, request)
            groups = list(result.groups)
            for number, page in enumerate(result.pages):
                # Subscriptions beyond three are a page, which is opened later by a run of its own.
                await asyncio.sleep(0)
                page_id = f"{workflow_id}#page-{number}"
                opened = await resolver.open_page(OpenPageInput(workflow_id=page_id, page=page))
                owners.extend((key, page_id) for key in keys(opened.groups))
            owners.extend((key, workflow_id) for key in keys(groups))

    async def subscribe(registry: Registry, name: str, after: int) -> None:
        while len({key.event_key for key, _ in owners}) < after and not published.done():
            await asyncio.sleep(0.001)
        replay = await create(registry, subscription(id=name))
        number = 0
        async for batch in batches(registry, replay):
            if batch.groups:
                number += 1
                workflow_id = f"redeliver/{replay.id}/{number}"
                request = OpenPastInput(workflow_id=workflow_id, groups=batch.groups)
                opened = await Replayer(registry).open_past(request)
                owners.extend((key, workflow_id) for key in keys(opened.groups))

    published = asyncio.gather(*(publish(each, events[start::3]) for start, each in enumerate(workers)))
    subscribing = [subscribe(workers[number % 3], name, 25 * number) for number, name in enumerate(names)]
    await asyncio.gather(published, *subscribing)
    expected = {DeliveryKey(each.key, name) for each in events for name in names}
    counted = Counter(key for key, _ in owners)
    assert set(counted) == expected, "an event was missed"
    assert set(counted.values()) == {1}, "two workflows deliver the same"
    by_replays = sum(owner.startswith("redeliver/") for _, owner in owners)
    assert 0 < by_replays < len(expected)
    for each in workers:
        await each.close()


def keys(groups: Any) -> list[DeliveryKey]:
    return [DeliveryKey(group.event_key, each) for group in groups for each in group.subscription_ids]
