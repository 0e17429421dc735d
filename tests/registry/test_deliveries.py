"""Deliveries: added, attempted, settled, opened again; a settled one never moves back by itself."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import DeliveryNotFound
from bellwire.events import Event
from bellwire.registry import Registry
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
        outcome=Outcome(**{"kind": kind, "reason": f"answer {number}", **outcome}),
        state=state,
        delay=None if state.settled else 5.0,
        from_retry_after=not state.settled,
    )


@pytest.fixture
async def three(registry: Registry) -> Registry:
    """A registry with the event and its deliveries to the subscriptions a, b and c."""
    for name in ("a", "b", "c"):
        await registry.subscriptions.create(subscription(id=name))
    await registry.events.accept([EVENT], "run")
    await registry.deliveries.add("run", [group("a", "b", "c")])
    return registry


async def one(registry: Registry, name: str = "a") -> Delivery:
    (found,) = await registry.deliveries.list(event_key=KEY, subscription_id=name)
    return found


async def test_deliveries_that_exist_are_left_alone(three: Registry) -> None:
    await three.attempts.record([attempt("a", state=DeliveryState.DELIVERED)])
    before = await three.deliveries.list()
    await asyncio.gather(*(three.deliveries.add(f"other-{number}", [group("c", "b", "a")]) for number in range(5)))
    assert await three.deliveries.list() == before
    assert [(found.state, found.workflow_id) for found in before] == [
        (DeliveryState.DELIVERED, "run"),
        (DeliveryState.PENDING, "run"),
        (DeliveryState.PENDING, "run"),
    ]


async def test_a_delivery_is_loaded_with_all_that_an_attempt_needs(three: Registry) -> None:
    secret = await three.subscriptions.create(subscription(id="d"))
    await three.subscriptions.create(subscription({"channel": "sms", "to": "+14155550123"}, id="e"))
    await three.deliveries.add("run", [group("d"), Group(event_key=KEY, channel=Channel.SMS, subscription_ids=("e",))])
    requests = await three.attempts.load([group("d", "a", attempt=3), group("nobody"), group("e", attempt=2)])
    assert [(request.subscription.id, request.number) for request in requests] == [("d", 3), ("a", 3), ("e", 2)]
    assert [request.event for request in requests] == [EVENT] * 3
    assert requests[0].secrets == (secret,)
    assert requests[2].secrets == ()
    assert requests[2].delivery.channel is Channel.SMS
    assert requests[0].delivery.updated_at.utcoffset() is not None
    assert await three.attempts.load([]) == []


async def test_many_events_are_loaded_at_once(three: Registry) -> None:
    happened = [event(id=f"many-{number}") for number in range(230)]
    await three.events.accept(happened, "run")
    groups = [group("a", "c", of=item) for item in happened]
    await three.deliveries.add("run", groups)
    requests = await three.attempts.load(groups)
    assert [(request.event.id, request.subscription.id) for request in requests] == [
        (e.id, name) for e in happened for name in "ac"
    ]


async def test_an_attempt_moves_its_delivery_on(three: Registry) -> None:
    made = attempt("a", provider_id="SM1", remaining_recipients=("ann@example.com",), response="later, please")
    await three.attempts.record([made, attempt("b", state=DeliveryState.DELIVERED)])
    found = await one(three)
    assert found.model_dump(exclude={"updated_at"}) == Delivery(
        event_key=KEY,
        subscription_id="a",
        channel=Channel.WEBHOOK,
        state=DeliveryState.WAITING,
        attempts=1,
        reason="answer 1",
        delay=5.0,
        from_retry_after=True,
        remaining_recipients=("ann@example.com",),
        provider_id="SM1",
        workflow_id="run",
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


async def test_an_attempt_recorded_twice_counts_once(three: Registry) -> None:
    first = attempt("a", 1)
    await three.attempts.record([first])
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED), attempt("b", 1)])
    assert (await one(three)).state is DeliveryState.WAITING
    assert await three.attempts.list(KEY, "a") == [first]
    assert (await one(three, "b")).attempts == 1
    await three.attempts.record([])


@pytest.mark.parametrize("settled", [DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED])
@pytest.mark.parametrize("late", [DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.EXHAUSTED])
async def test_a_settled_delivery_never_moves(three: Registry, settled: DeliveryState, late: DeliveryState) -> None:
    await three.attempts.record([attempt("a", 2, settled)])
    before = await one(three)
    await three.attempts.record([attempt("a", 1, late), attempt("a", 3, late)])
    await three.attempts.record_intent(await three.attempts.load([group("a", attempt=4)]))
    await three.deliveries.settle([group("a")], reason="cancelled")
    assert await one(three) == before
    assert [made.number for made in await three.attempts.list(KEY, "a")] == [1, 2, 3]


async def test_an_attempt_that_ends_after_cancelling_is_on_record_and_moves_nothing(three: Registry) -> None:
    await three.deliveries.settle([group("a")], reason="cancelled by ann")
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED)])
    assert (await one(three)).state is DeliveryState.CANCELLED
    assert (await one(three)).reason == "cancelled by ann"
    assert len(await three.attempts.list(KEY, "a")) == 1


async def test_an_intent_stands_until_its_attempt_is_recorded(three: Registry) -> None:
    begun = datetime.now(UTC)
    requests = await three.attempts.load([group("a", "b")])
    await three.attempts.record([attempt("b", 1)])
    await three.attempts.record_intent(requests)
    announced = await one(three)
    assert announced.state is DeliveryState.SENDING
    assert announced.intent_at is not None
    assert announced.intent_at >= begun
    assert announced.attempts == 0
    assert (await one(three, "b")).state is DeliveryState.WAITING
    await three.attempts.record([attempt("a", 1)])
    assert (await one(three)).intent_at is None
    await three.attempts.record_intent([])


async def test_the_first_intent_stands_while_outcomes_are_unknown(three: Registry) -> None:
    """Moved on, it would hide what an earlier attempt may have sent."""
    await three.attempts.record_intent(await three.attempts.load([group("a")]))
    first = (await one(three)).intent_at
    assert first is not None
    await three.attempts.record_intent(await three.attempts.load([group("a")]))
    await three.attempts.record([attempt("a", 1, kind=OutcomeKind.UNKNOWN)])
    await three.attempts.record_intent(await three.attempts.load([group("a", attempt=2)]))
    assert (await one(three)).intent_at == first
    await three.attempts.record([attempt("a", 2, kind=OutcomeKind.DEFERRED)])
    assert (await one(three)).intent_at is None


async def test_an_attempt_is_announced_once_however_many_have_read_the_delivery(three: Registry) -> None:
    (frozen,) = await three.attempts.load([group("a")])
    await three.attempts.record_intent([frozen])
    (other,) = await three.attempts.load([group("a")])
    await three.attempts.record_intent([other])
    assert await three.attempts.claim(other)
    assert not await three.attempts.claim(frozen), "it read the delivery before the other announced"
    (after,) = await three.attempts.load([group("a")])
    assert after.delivery.intent_at == other.delivery.intent_at, "the first intent is where the search begins"
    await three.deliveries.settle([group("a")], reason="cancelled")
    assert not await three.attempts.claim(after), "what was cancelled is not sent"


async def test_a_delivery_whose_run_is_gone_is_opened_only_as_an_orphan(three: Registry) -> None:
    await three.attempts.record([attempt("a", 1)])
    assert await three.deliveries.redeliver("other", [group("a")]) == ()
    assert await three.deliveries.redeliver("other", [group("a")], abandoned=True) == (group("a", attempt=2),)
    assert (await one(three)).workflow_id == "other"
    assert await three.deliveries.redeliver("other", [group("a")]) == (group("a", attempt=2),)


async def test_a_target_that_is_gone_disables_its_subscription(three: Registry) -> None:
    gone = {"reason": "HTTP 410", "disable": True}
    await three.attempts.record([attempt(name, 1, DeliveryState.REJECTED, **gone) for name in ("c", "a")])
    for name in ("a", "c"):
        wish = await three.subscriptions.get(name)
        assert (wish.state, wish.state_reason) == (SubscriptionState.DISABLED, "HTTP 410")
    assert [name for name, _ in (await three.matching.match(EVENT, limit=9, scan=9)).found] == ["b"]


async def test_recording_for_what_does_not_exist_is_no_error(three: Registry) -> None:
    await three.attempts.record([attempt("nobody", 1, disable=True), attempt("a", 1)])
    assert (await one(three)).attempts == 1


async def test_settling_cancels_the_rest_and_counts_everything(three: Registry) -> None:
    other = event(id="2")
    await three.events.accept([other], "run")
    await three.deliveries.add("run", [group("a", of=other)])
    await three.attempts.record([attempt("a", 1, DeliveryState.DELIVERED), attempt("b", 1)])
    await three.attempts.record_intent(await three.attempts.load([group("c")]))
    named = [group("a"), group("b", attempt=2), group("c", "nobody"), group("a", of=other)]
    wanted = {
        KEY: {DeliveryState.DELIVERED: 1, DeliveryState.CANCELLED: 3},  # with nobody's, which is gone
        other.key: {DeliveryState.CANCELLED: 1},
    }
    assert await three.deliveries.settle(named, reason="cancelled") == wanted
    assert await three.deliveries.settle(named, reason="again") == wanted
    cancelled = await one(three, "b")
    assert (cancelled.state, cancelled.reason, cancelled.delay) == (DeliveryState.CANCELLED, "cancelled", None)
    assert (await one(three, "c")).intent_at is not None, (
        "an SMS that may have gone out is looked for if it is made again"
    )
    assert await three.deliveries.settle([], reason="none") == {}


async def test_settled_deliveries_are_opened_again_with_a_fresh_schedule(three: Registry) -> None:
    await three.attempts.record([attempt("a", 3, DeliveryState.EXHAUSTED), attempt("b", 1)])
    named = [group("a", "b", "c", "nobody")]
    opened = await three.deliveries.redeliver("replay", named)
    assert opened == (group("a", attempt=4),)
    assert await three.deliveries.redeliver("replay", named) == opened
    assert await three.deliveries.redeliver("another", named) == ()
    found = await one(three)
    assert (found.state, found.attempts, found.schedule_from) == (DeliveryState.PENDING, 3, 3)
    assert found.workflow_id == "replay"
    assert (await one(three, "b")).workflow_id == "run"
    await three.attempts.record([attempt("a", 4, DeliveryState.DELIVERED)])
    assert (await one(three)).state is DeliveryState.DELIVERED
    assert (await one(three)).attempts == 4


async def test_opened_deliveries_are_grouped_by_their_next_attempt(three: Registry) -> None:
    await three.attempts.record(
        [attempt(name, number, DeliveryState.EXHAUSTED) for name, number in zip("abc", (2, 5, 2), strict=True)]
    )
    assert await three.deliveries.redeliver("replay", [group("a", "b", "c")]) == (
        group("a", "c", attempt=3),
        group("b", attempt=6),
    )


async def test_two_replays_of_one_delivery_open_it_once(three: Registry) -> None:
    await three.deliveries.settle([group("a", "b", "c")], reason="cancelled")
    answers = await asyncio.gather(
        *(three.deliveries.redeliver(f"replay-{number}", [group("a", "b", "c")]) for number in range(5))
    )
    assert sorted(len(answer) for answer in answers) == [0, 0, 0, 0, 1]


async def test_workers_that_write_the_same_rows_do_not_deadlock(three: Registry) -> None:
    for number in range(1, 6):
        forth = [attempt(name, number) for name in "abc"]
        await asyncio.gather(
            three.attempts.record(forth),
            three.attempts.record(forth[::-1]),
            three.deliveries.add("other", [group("c", "a", "b")]),
            three.deliveries.settle([group("nobody")], reason="none"),
            three.subscriptions.set_state("b", SubscriptionState.PAUSED if number % 2 else SubscriptionState.ACTIVE),
        )
    assert [found.attempts for found in await three.deliveries.list()] == [5, 5, 5]


async def test_providers_ids_are_claimed_by_attempts(three: Registry) -> None:
    await three.attempts.record(
        [attempt("a", 1, provider_id="SM1"), attempt("b", 1), attempt("c", 1, provider_id="SM3")]
    )
    await three.attempts.record([attempt("a", 2, provider_id="SM4")])
    assert await three.attempts.claimed_provider_ids(["SM1", "SM2", "SM3", "SM4"]) == {"SM1", "SM3", "SM4"}
    assert await three.attempts.claimed_provider_ids([]) == set()


async def test_deliveries_are_listed_page_by_page(three: Registry) -> None:
    others = [event(id=f"{number}") for number in range(2, 5)]
    await three.events.accept(others, "run")
    await three.deliveries.add("run", [group("a", "b", "c", of=other) for other in others])
    seen: list[str] = []
    while page := await three.deliveries.list(after=seen[-1] if seen else "", limit=5):
        seen += [found.id for found in page]
    assert len(seen) == 12
    assert seen == sorted(seen)
    with pytest.raises(DeliveryNotFound, match="not a delivery id"):
        await three.deliveries.list(after="nonsense")


async def test_delivery_listings_are_narrowed(three: Registry) -> None:
    await three.subscriptions.create(
        subscription({"channel": "email", "to": "ann@example.com"}, id="mail", tenant="other")
    )
    await three.deliveries.add("run", [Group(event_key=KEY, channel=Channel.EMAIL, subscription_ids=("mail",))])
    await three.attempts.record([attempt("a", 1), attempt("b", 1, DeliveryState.DELIVERED)])

    async def listed(**narrowed: Any) -> list[str]:
        return [found.subscription_id for found in await three.deliveries.list(**narrowed)]

    assert await listed() == ["a", "b", "c", "mail"]
    assert await listed(event_key=KEY, subscription_id="b") == ["b"]
    assert await listed(event_key="none") == []
    assert await listed(tenant="other") == ["mail"]
    assert await listed(channel=Channel.EMAIL) == ["mail"]
    assert await listed(state=DeliveryState.WAITING) == ["a"]
    assert await listed(state=DeliveryState.WAITING, tenant="acme") == ["a"]
    assert await listed(state=DeliveryState.DELIVERED) == ["b"]
    assert await listed(state=DeliveryState.PENDING) == ["c", "mail"]
