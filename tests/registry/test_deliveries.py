"""Deliveries: inserted, attempted, settled and redelivered. A settled one changes only by a redelivery."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group, redelivery_workflow_id
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import DeliveryNotFound
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.api.tenants import counting
from bellwire.registry.backlog import _DISABLED, _UNSETTLED
from bellwire.registry.db.engine import Database
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription

EVENT = event(id="1")
KEY = EVENT.key


def group(*ids: str, attempt: int = 1, of: Event = EVENT) -> Group:
    return Group(event_key=of.key, channel=Channel.WEBHOOK, subscription_ids=ids, attempt=attempt)


def attempt(name: str, number: int = 1, state: DeliveryState = DeliveryState.WAITING, **outcome: Any) -> Attempt:
    kinds = {DeliveryState.DELIVERED: OutcomeKind.DELIVERED, DeliveryState.REJECTED: OutcomeKind.REJECTED}
    kind = kinds.get(state, OutcomeKind.DEFERRED)
    return Attempt(
        event_key=KEY,
        subscription_id=name,
        number=number,
        started_at=NOW,
        duration=0.25,
        outcome=Outcome(**{"kind": kind, "reason": f"response {number}", **outcome}),
        state=state,
        delay=None if state.settled else 5.0,
        from_retry_after=not state.settled,
    )


@pytest.fixture
async def three(registry: Registry) -> Registry:
    """A registry with one event and its deliveries to the subscriptions a, b and c."""
    for name in ("a", "b", "c"):
        await registry.subscriptions.create(subscription(id=name))
    await registry.events.accept([EVENT], "workflow")
    await registry.deliveries.add("workflow", [group("a", "b", "c")])
    return registry


async def one(registry: Registry, name: str = "a") -> Delivery:
    (found,) = await registry.deliveries.list(event_key=KEY, subscription_id=name)
    return found


async def test_an_exhausted_delivery_is_reported_to_its_tenant_once(three: Registry) -> None:
    await three.attempts.record([attempt("a", 1), attempt("b", 1, DeliveryState.REJECTED)])
    last = attempt("a", 2, DeliveryState.EXHAUSTED, reason="HTTP 503", response="ann@example.com")
    await three.attempts.record([last, attempt("b", 2, DeliveryState.EXHAUSTED)])
    await three.attempts.record([last])
    (reported,) = await three.operational_events.list()
    assert (reported.type, reported.subject, reported.tenant) == (
        "bellwire.delivery.exhausted",
        "a",
        subscription().tenant,
    )
    assert reported.data == {
        "delivery": f"dlv_{KEY}_a",
        "subscription": "a",
        "channel": "webhook",
        "event_key": KEY,
        "event_source": EVENT.source,
        "event_id": "1",
        "event_type": EVENT.type,
        "attempts": 2,
        "reason": "HTTP 503",
    }


async def test_an_exhausted_delivery_of_an_operational_event_is_not_reported(registry: Registry) -> None:
    operational = event(source="bellwire")
    await registry.subscriptions.create(subscription(id="a"))
    await registry.events.accept([operational], "run")
    await registry.deliveries.add("run", [group("a", of=operational)])
    last = attempt("a", 1, DeliveryState.EXHAUSTED).model_copy(update={"event_key": operational.key})
    await registry.attempts.record([last])
    assert await registry.operational_events.list() == []


async def test_the_backlog_counts_what_is_unsettled_by_channel(three: Registry) -> None:
    await three.subscriptions.create(subscription({"channel": "email", "to": "ann@example.com"}, id="m"))
    before = (await three.backlog.read())[Channel.WEBHOOK]
    assert (before.unsettled, before.disabled) == (3, 0)
    assert before.oldest is not None
    await three.deliveries.add("run", [Group(event_key=KEY, channel=Channel.EMAIL, subscription_ids=("m",))])
    await three.attempts.record([attempt("a"), attempt("b", state=DeliveryState.DELIVERED)])
    await three.deliveries.settle([group("m")], reason="")
    await three.subscriptions.set_state("c", SubscriptionState.DISABLED, reason="gone")
    backlog = await three.backlog.read()
    assert backlog[Channel.WEBHOOK] == (2, before.oldest, 1)
    assert backlog[Channel.EMAIL] == backlog[Channel.SMS] == (0, None, 0)


async def test_the_backlog_and_counts_of_a_tenant_are_read_by_indexes(url: str) -> None:
    """Also where the database holds many deliveries."""
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL chooses by statistics")
    registry = await Registry.open(url)
    await registry.migrate()
    await registry.close()
    database = Database.at(url, pool=1)

    async def plan(connection: AsyncConnection, query: Any) -> str:
        text = str(query.compile(compile_kwargs={"literal_binds": True}, dialect=connection.dialect))
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
        return "; ".join(str(row[-1]) for row in rows)

    assert await database.read(plan, _UNSETTLED) == "SCAN deliveries USING COVERING INDEX deliveries_unsettled"
    assert await database.read(plan, _DISABLED) == "SCAN subscriptions USING COVERING INDEX subscriptions_disabled"
    for query in counting("acme", 10):
        found = await database.read(plan, query)
        assert "SEARCH subscriptions USING INDEX subscriptions_by_tenant (tenant=?)" in found
        assert "SCAN subscriptions" not in found
        assert "SCAN deliveries" not in found
    await database.close()


async def test_inserting_leaves_existing_deliveries_unchanged(three: Registry) -> None:
    await three.attempts.record([attempt("a", state=DeliveryState.DELIVERED)])
    before = await three.deliveries.list()
    await asyncio.gather(*(three.deliveries.add(f"other-{number}", [group("c", "b", "a")]) for number in range(5)))
    assert await three.deliveries.list() == before
    assert [(found.state, found.workflow_id) for found in before] == [
        (DeliveryState.DELIVERED, "workflow"),
        (DeliveryState.PENDING, "workflow"),
        (DeliveryState.PENDING, "workflow"),
    ]


async def test_a_deferred_attempt_that_retry_now_requested_leaves_as_many_attempts_as_before(three: Registry) -> None:
    await three.attempts.record([attempt("a")])
    for number in (2, 3):
        extra = attempt("a", number).model_copy(update={"extra": True})
        await three.attempts.record([extra, extra])
        await three.attempts.record([extra])
    found = await one(three)
    assert (found.attempts, found.schedule_from) == (3, 2)
    (request,) = await three.attempts.load([group("a", attempt=4).model_copy(update={"extra": True})])
    assert (request.is_uncounted, request.schedule_step, request.group.extra) == (True, 0, True)
    (scheduled,) = await three.attempts.load([group("a", attempt=4)])
    assert (scheduled.is_uncounted, scheduled.schedule_step) == (False, 1)


async def test_a_delivery_is_loaded_with_everything_an_attempt_needs(three: Registry) -> None:
    secret = await three.subscriptions.create(subscription(id="d"))
    await three.subscriptions.create(subscription({"channel": "sms", "to": "+14155550123"}, id="e"))
    await three.deliveries.add(
        "workflow", [group("d"), Group(event_key=KEY, channel=Channel.SMS, subscription_ids=("e",))]
    )
    requests = await three.attempts.load([group("d", "a", attempt=3), group("unknown"), group("e", attempt=2)])
    assert [(request.subscription.id, request.number) for request in requests] == [("d", 3), ("a", 3), ("e", 2)]
    assert [request.event for request in requests] == [EVENT] * 3
    assert requests[0].secrets == (secret,)
    assert requests[2].secrets == ()
    assert requests[2].delivery.channel is Channel.SMS
    assert requests[0].delivery.updated_at.utcoffset() is not None
    assert await three.attempts.load([]) == []


async def test_deliveries_of_many_events_are_loaded_together(three: Registry) -> None:
    many = [event(id=f"many-{number}") for number in range(230)]
    await three.events.accept(many, "workflow")
    groups = [group("a", "c", of=item) for item in many]
    await three.deliveries.add("workflow", groups)
    requests = await three.attempts.load(groups)
    assert [(request.event.id, request.subscription.id) for request in requests] == [
        (e.id, name) for e in many for name in "ac"
    ]


async def test_recording_an_attempt_updates_its_delivery(three: Registry) -> None:
    made = attempt("a", provider_id="SM1", remaining_recipients=("ann@example.com",), response="later, please")
    await three.attempts.record([made, attempt("b", state=DeliveryState.DELIVERED)])
    found = await one(three)
    assert found.model_dump(exclude={"updated_at"}) == Delivery(
        event_key=KEY,
        subscription_id="a",
        channel=Channel.WEBHOOK,
        state=DeliveryState.WAITING,
        attempts=1,
        reason="response 1",
        delay=5.0,
        from_retry_after=True,
        remaining_recipients=("ann@example.com",),
        provider_id="SM1",
        workflow_id="workflow",
        updated_at=NOW,
    ).model_dump(exclude={"updated_at"})
    assert await three.attempts.list(KEY, "a") == [made]
    last = attempt("a", 2, DeliveryState.DELIVERED)
    await three.attempts.record([last])
    assert (await one(three)).remaining_recipients is None
    assert (await one(three)).delay is None
    assert await three.attempts.list(KEY, "a") == [made, last]
    assert [(item.subscription_id, item.number) for item in await three.attempts.list(KEY)] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
    ]


async def test_recording_an_attempt_twice_counts_it_once(three: Registry) -> None:
    first = attempt("a", 1)
    await three.attempts.record([first])
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED), attempt("b", 1)])
    assert (await one(three)).state is DeliveryState.WAITING
    assert await three.attempts.list(KEY, "a") == [first]
    assert (await one(three, "b")).attempts == 1
    await three.attempts.record([])


@pytest.mark.parametrize("settled", [DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED])
@pytest.mark.parametrize("late", [DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.EXHAUSTED])
async def test_a_settled_delivery_never_changes(three: Registry, settled: DeliveryState, late: DeliveryState) -> None:
    await three.attempts.record([attempt("a", 2, settled)])
    before = await one(three)
    await three.attempts.record([attempt("a", 1, late), attempt("a", 3, late)])
    await three.attempts.record_intent(await three.attempts.load([group("a", attempt=4)]))
    await three.deliveries.settle([group("a")], reason="cancelled")
    assert await one(three) == before
    assert [made.number for made in await three.attempts.list(KEY, "a")] == [1, 2, 3]


async def test_an_attempt_that_ends_after_cancelling_is_recorded_and_changes_nothing(three: Registry) -> None:
    await three.deliveries.settle([group("a")], reason="cancelled by ann")
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED)])
    assert (await one(three)).state is DeliveryState.CANCELLED
    assert (await one(three)).reason == "cancelled by ann"
    assert len(await three.attempts.list(KEY, "a")) == 1


async def test_an_intent_lasts_until_its_attempt_is_recorded(three: Registry) -> None:
    started = datetime.now(UTC)
    requests = await three.attempts.load([group("a", "b")])
    await three.attempts.record([attempt("b", 1)])
    await three.attempts.record_intent(requests)
    intended = await one(three)
    assert intended.state is DeliveryState.SENDING
    assert intended.intent_at is not None
    assert intended.intent_at >= started
    assert intended.attempts == 0
    assert (await one(three, "b")).state is DeliveryState.WAITING
    await three.attempts.record([attempt("a", 1)])
    assert (await one(three)).intent_at is None
    await three.attempts.record_intent([])


async def test_the_first_intent_lasts_while_outcomes_are_unknown(three: Registry) -> None:
    """A later one would hide what an earlier attempt may have sent."""
    await three.attempts.record_intent(await three.attempts.load([group("a")]))
    first = (await one(three)).intent_at
    assert first is not None
    await three.attempts.record_intent(await three.attempts.load([group("a")]))
    await three.attempts.record([attempt("a", 1, kind=OutcomeKind.UNKNOWN)])
    await three.attempts.record_intent(await three.attempts.load([group("a", attempt=2)]))
    assert (await one(three)).intent_at == first
    await three.attempts.record([attempt("a", 2, kind=OutcomeKind.DEFERRED)])
    assert (await one(three)).intent_at is None


async def test_only_one_of_several_workers_claims_an_attempt(three: Registry) -> None:
    (frozen,) = await three.attempts.load([group("a")])
    await three.attempts.record_intent([frozen])
    (other,) = await three.attempts.load([group("a")])
    await three.attempts.record_intent([other])
    assert await three.attempts.claim(other)
    assert not await three.attempts.claim(frozen), "the delivery has changed since it was loaded"
    (after,) = await three.attempts.load([group("a")])
    assert after.delivery.intent_at == other.delivery.intent_at, "reconciling starts at the first intent"
    await three.deliveries.settle([group("a")], reason="cancelled")
    assert not await three.attempts.claim(after), "a cancelled delivery is not sent"


async def test_an_unsettled_delivery_is_redelivered_only_if_it_is_abandoned(three: Registry) -> None:
    await three.attempts.record([attempt("a", 1)])
    assert await three.deliveries.redeliver("other", [group("a")]) == ()
    assert await three.deliveries.redeliver("other", [group("a")], abandoned=True) == (group("a", attempt=2),)
    assert (await one(three)).workflow_id == "other"
    assert await three.deliveries.redeliver("other", [group("a")]) == (group("a", attempt=2),)


async def test_a_gone_target_disables_its_subscription(three: Registry) -> None:
    gone = {"reason": "HTTP 410", "disable": True}
    await three.attempts.record([attempt(name, 1, DeliveryState.REJECTED, **gone) for name in ("c", "a")])
    for name in ("a", "c"):
        disabled = await three.subscriptions.get(name)
        assert (disabled.state, disabled.state_reason) == (SubscriptionState.DISABLED, "HTTP 410")
    assert [name for name, _ in (await three.matching.match(EVENT, limit=9, scan=9)).found] == ["b"]


async def test_recording_an_attempt_at_an_unknown_delivery_is_no_error(three: Registry) -> None:
    await three.attempts.record([attempt("unknown", 1, disable=True), attempt("a", 1)])
    assert (await one(three)).attempts == 1


async def test_settling_cancels_unsettled_deliveries_and_counts_all(three: Registry) -> None:
    other = event(id="2")
    await three.events.accept([other], "workflow")
    await three.deliveries.add("workflow", [group("a", of=other)])
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED), attempt("b", 1)])
    await three.attempts.record_intent(await three.attempts.load([group("c")]))
    groups = [group("a"), group("b", attempt=2), group("c", "deleted"), group("a", of=other)]
    expected = {
        KEY: {DeliveryState.DELIVERED: 1, DeliveryState.CANCELLED: 3},  # including the deleted one
        other.key: {DeliveryState.CANCELLED: 1},
    }
    assert await three.deliveries.settle(groups, reason="cancelled") == (expected, {Channel.WEBHOOK: 3})
    assert await three.deliveries.settle(groups, reason="again") == (expected, {})
    cancelled = await one(three, "b")
    assert (cancelled.state, cancelled.reason, cancelled.delay) == (DeliveryState.CANCELLED, "cancelled", None)
    assert (await one(three, "c")).intent_at is not None, "a redelivery has to reconcile an SMS that may have been sent"
    assert await three.deliveries.settle([], reason="none") == ({}, {})


async def test_redelivery_resets_settled_deliveries_and_restarts_their_schedule(three: Registry) -> None:
    await three.attempts.record([attempt("a", 3, DeliveryState.EXHAUSTED), attempt("b", 1)])
    groups = [group("a", "b", "c", "unknown")]
    reset = await three.deliveries.redeliver("redeliver/1", groups)
    assert reset == (group("a", attempt=4),)
    assert await three.deliveries.redeliver("redeliver/1", groups) == reset
    assert await three.deliveries.redeliver("redeliver/2", groups) == ()
    found = await one(three)
    assert (found.state, found.attempts, found.schedule_from) == (DeliveryState.PENDING, 3, 3)
    assert found.workflow_id == "redeliver/1"
    assert (await one(three, "b")).workflow_id == "workflow"
    await three.attempts.record([attempt("a", 4, DeliveryState.DELIVERED)])
    assert (await one(three)).state is DeliveryState.DELIVERED
    assert (await one(three)).attempts == 4


async def test_on_request_redelivery_takes_only_deliveries_that_were_not_attempted_since(three: Registry) -> None:
    await three.attempts.record([attempt("a", 2, DeliveryState.EXHAUSTED), attempt("b", 1, DeliveryState.REJECTED)])
    groups = [group("a", attempt=3), group("b", "c", attempt=5)]
    assert await three.deliveries.redeliver("many/1", groups, unchanged_only=True) == (group("a", attempt=3),)
    assert await three.deliveries.redeliver("many/1", groups, unchanged_only=True) == (group("a", attempt=3),)
    await three.attempts.record([attempt("a", 3, DeliveryState.REJECTED)])
    assert await three.deliveries.redeliver("many/2", groups, unchanged_only=True) == ()
    assert (await one(three)).workflow_id == "many/1"
    assert await three.deliveries.redeliver("many/3", groups) == (group("a", attempt=4), group("b", attempt=2))


async def test_redelivered_deliveries_are_grouped_by_their_next_attempt(three: Registry) -> None:
    await three.attempts.record(
        [attempt(name, number, DeliveryState.EXHAUSTED) for name, number in zip("abc", (2, 5, 2), strict=True)]
    )
    assert await three.deliveries.redeliver("redeliver/1", [group("a", "b", "c")]) == (
        group("a", "c", attempt=3),
        group("b", attempt=6),
    )


async def test_of_concurrent_redeliveries_one_resets_the_deliveries(three: Registry) -> None:
    await three.deliveries.settle([group("a", "b", "c")], reason="cancelled")
    results = await asyncio.gather(
        *(three.deliveries.redeliver(f"redeliver/{number}", [group("a", "b", "c")]) for number in range(5))
    )
    assert sorted(len(result) for result in results) == [0, 0, 0, 0, 1]


async def test_workers_that_write_the_same_rows_do_not_deadlock(three: Registry) -> None:
    for number in range(1, 6):
        forth = [attempt(name, number) for name in "abc"]
        await asyncio.gather(
            three.attempts.record(forth),
            three.attempts.record(forth[::-1]),
            three.deliveries.add("other", [group("c", "a", "b")]),
            three.deliveries.settle([group("unknown")], reason="none"),
            three.subscriptions.set_state("b", SubscriptionState.PAUSED if number % 2 else SubscriptionState.ACTIVE),
        )
    assert [found.attempts for found in await three.deliveries.list()] == [5, 5, 5]


async def test_provider_ids_of_recorded_attempts_are_found(three: Registry) -> None:
    await three.attempts.record(
        [attempt("a", 1, provider_id="SM1"), attempt("b", 1), attempt("c", 1, provider_id="SM3")]
    )
    await three.attempts.record([attempt("a", 2, provider_id="SM4")])
    assert await three.attempts.claimed_provider_ids(["SM1", "SM2", "SM3", "SM4"]) == {"SM1", "SM3", "SM4"}
    assert await three.attempts.claimed_provider_ids([]) == set()


async def test_deliveries_are_listed_in_pages_those_of_the_newest_events_first(three: Registry) -> None:
    others = [event(id=f"{number}") for number in range(2, 4)]
    await three.events.accept(others, "workflow")
    last = event(id="4")
    await three.events.accept([last], "workflow")
    await three.deliveries.add("workflow", [group("a", "b", "c", of=other) for other in [last, *others]])
    seen: list[str] = []
    while page := await three.deliveries.list(after=seen[-1] if seen else "", limit=5):
        seen += [found.id for found in page]
    times = {stored.event.key: stored.accepted_at for stored in await three.events.list()}
    keys = sorted(times, key=lambda key: (times[key], key), reverse=True)
    assert (keys[0], keys[-1]) == (last.key, KEY)
    assert seen == [f"dlv_{key}_{name}" for key in keys for name in "abc"]
    recent = await three.deliveries.list(since=times[last.key])
    assert {found.event_key for found in recent} == {last.key}
    assert await three.deliveries.list(since=datetime(9000, 1, 1, tzinfo=UTC)) == []
    with pytest.raises(DeliveryNotFound, match="not a valid delivery id"):
        await three.deliveries.list(after="nonsense")


async def test_deliveries_are_filtered(three: Registry) -> None:
    await three.subscriptions.create(
        subscription({"channel": "email", "to": "ann@example.com"}, id="mail", tenant="other")
    )
    await three.deliveries.add("workflow", [Group(event_key=KEY, channel=Channel.EMAIL, subscription_ids=("mail",))])
    await three.attempts.record([attempt("a", 1), attempt("b", 1, DeliveryState.DELIVERED)])

    async def listed(**filters: Any) -> list[str]:
        return [found.subscription_id for found in await three.deliveries.list(**filters)]

    assert await listed() == ["a", "b", "c", "mail"]
    assert await listed(event_key=KEY, subscription_id="b") == ["b"]
    assert await listed(event_key="none") == []
    assert await listed(tenant="other") == ["mail"]
    assert await listed(channel=Channel.EMAIL) == ["mail"]
    assert await listed(state=DeliveryState.WAITING) == ["a"]
    assert await listed(state=DeliveryState.WAITING, tenant="acme") == ["a"]
    assert await listed(state=DeliveryState.DELIVERED) == ["b"]
    assert await listed(state=DeliveryState.PENDING) == ["c", "mail"]


async def test_deliveries_that_are_redelivered_are_found_until_they_settle(three: Registry) -> None:
    assert await three.deliveries.redelivering(KEY) == []
    await three.attempts.record([attempt("b", state=DeliveryState.DELIVERED)])
    await three.deliveries.redeliver(redelivery_workflow_id(KEY, "b", 2), [group("b")])
    assert await three.deliveries.redelivering(KEY) == ["b"]
    await three.attempts.record([attempt("b", number=2, state=DeliveryState.DELIVERED)])
    assert await three.deliveries.redelivering(KEY) == []
