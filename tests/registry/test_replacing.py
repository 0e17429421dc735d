"""Deliveries of events that replace others are loaded with the message that they replace; those taken back say so."""

from datetime import UTC, datetime

import pytest

from bellwire.contract import RECALLED, Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.events import Event
from bellwire.keys.keyring import KeyRing, new_entry
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.factories import event, subscription

SLACK, HOOK = "slack", "hook"


@pytest.fixture
async def subscribed(registry: Registry) -> Registry:
    await registry.subscriptions.create(subscription({"channel": "slack", "conversation": "C1"}, id=SLACK))
    await registry.subscriptions.create(subscription(id=HOOK))
    return registry


async def attempted(registry: Registry, of: Event, kind: OutcomeKind, provider_id: str | None) -> None:
    """Store an event whose deliveries were attempted once."""
    await registry.events.accept([of], "workflow")
    await registry.deliveries.add("workflow", groups(of))
    state = DeliveryState.DELIVERED if kind is OutcomeKind.DELIVERED else DeliveryState.WAITING
    await registry.attempts.record(
        [
            Attempt(
                event_key=of.key,
                subscription_id=name,
                number=1,
                started_at=datetime.now(UTC),
                duration=0.1,
                outcome=Outcome(kind=kind, reason="x", provider_id=provider_id),
                state=state,
                delay=None if state.settled else 10.0,
            )
            for name in (SLACK, HOOK)
        ]
    )


def groups(of: Event) -> list[Group]:
    return [
        Group(event_key=of.key, channel=channel, subscription_ids=(name,))
        for name, channel in ((SLACK, Channel.SLACK), (HOOK, Channel.WEBHOOK))
    ]


async def replaced(registry: Registry, *events: Event) -> list[str | None]:
    """What the deliveries of these events replace, as they are loaded."""
    await registry.events.accept(list(events), "workflow")
    wanted = [group for each in events for group in groups(each)]
    await registry.deliveries.add("workflow", wanted)
    return [request.replaced_id for request in await registry.attempts.load(wanted)]


async def test_a_message_that_was_delivered_is_found_by_the_id_of_its_event(subscribed: Registry) -> None:
    await attempted(subscribed, event(id="1"), OutcomeKind.DELIVERED, "C1/1")
    await attempted(subscribed, event(id="7"), OutcomeKind.DELIVERED, "C1/7")
    # A webhook's request cannot be changed, so nothing is looked up for it.
    found = await replaced(subscribed, event(id="2", replaces="1"), event(id="3"), event(id="8", replaces="7"))
    assert found == ["C1/1", None, None, None, "C1/7", None]


@pytest.mark.parametrize(("kind", "provider_id"), [(OutcomeKind.DEFERRED, "C1/1"), (OutcomeKind.DELIVERED, None)])
async def test_what_was_not_delivered_or_has_no_id_is_not_replaced(
    subscribed: Registry, kind: OutcomeKind, provider_id: str | None
) -> None:
    await attempted(subscribed, event(id="1"), kind, provider_id)
    assert await replaced(subscribed, event(id="2", replaces="1")) == [None, None]


async def test_an_event_replaces_only_one_of_its_own_source(subscribed: Registry) -> None:
    await attempted(subscribed, event(id="1"), OutcomeKind.DELIVERED, "C1/1")
    assert await replaced(subscribed, event(id="2", source="/other", replaces="1")) == [None, None]


@pytest.mark.parametrize(("value", "expected"), [(1, "C1/1"), ("", None), (True, None), ("unknown", None)])
async def test_replaces_is_the_id_of_an_event(subscribed: Registry, value: object, expected: str | None) -> None:
    await attempted(subscribed, event(id="1"), OutcomeKind.DELIVERED, "C1/1")
    assert await replaced(subscribed, event(id="2", replaces=value)) == [expected, None]


async def test_a_delivery_whose_message_was_taken_back_says_so_and_keeps_its_state(subscribed: Registry) -> None:
    of = event(id="1")
    await attempted(subscribed, of, OutcomeKind.DELIVERED, "C1/1")
    (delivery,) = await subscribed.deliveries.list(event_key=of.key, subscription_id=SLACK)
    # It was sent again meanwhile, so another message is there.
    await subscribed.recalls.record(delivery.model_copy(update={"provider_id": "C1/0"}))
    assert (await subscribed.deliveries.list(event_key=of.key, subscription_id=SLACK)) == [delivery]
    await subscribed.recalls.record(delivery)
    hook, slack = await subscribed.deliveries.list(event_key=of.key)
    assert slack == delivery.model_copy(update={"reason": RECALLED})
    assert hook.reason == "x"


async def test_a_recall_is_recorded_where_the_ids_of_messages_are_encrypted(url: str) -> None:
    registry = await Registry.open(url, ring=KeyRing.parse(new_entry("key")))
    try:
        await registry.migrate()
        await registry.subscriptions.create(subscription({"channel": "slack", "conversation": "C1"}, id=SLACK))
        await registry.subscriptions.create(subscription(id=HOOK))
        of = event(id="1")
        await attempted(registry, of, OutcomeKind.DELIVERED, "C1/1")
        (delivery,) = await registry.deliveries.list(event_key=of.key, subscription_id=SLACK)
        await registry.recalls.record(delivery)
        (recalled,) = await registry.deliveries.list(event_key=of.key, subscription_id=SLACK)
        assert recalled.reason == RECALLED
        assert await registry.recalls.channels(of.key) == (Channel.SLACK, Channel.WEBHOOK)
        assert await registry.recalls.unsettled_in(of.key) == ()
    finally:
        await registry.close()


async def test_a_chain_is_followed_to_the_message_that_is_there(subscribed: Registry) -> None:
    await attempted(subscribed, event(id="1"), OutcomeKind.DELIVERED, "C1/1")
    await attempted(subscribed, event(id="2", replaces="1"), OutcomeKind.DEFERRED, None)
    third = event(id="3", replaces="2")
    assert await replaced(subscribed, third) == ["C1/1", None]
    chat, _ = await subscribed.attempts.load(groups(third))
    assert [each.event_key for each in chat.outdated] == [event(id="2").key]
    (delivery,) = await subscribed.deliveries.list(event_key=event(id="1").key, subscription_id=SLACK)
    await subscribed.recalls.record(delivery)
    assert (await subscribed.attempts.load(groups(third)))[0].replaced_id is None
