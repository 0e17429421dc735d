"""Erasing one recipient: no trace of the address stays in the registry, and nothing of other recipients changes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import SubscriptionInvalid
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import metadata
from bellwire.registry.upkeep.erasing import ERASED
from bellwire.registry.upkeep.retention import Retention
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget
from tests.factories import event, subscription

ANN, BOB, CAT = "ann@example.com", "bob@example.com", "cat@example.com"
NUMBER = "+14155550123"
DELIVERED, WAITING, CANCELLED = DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.CANCELLED
KINDS = {DELIVERED: OutcomeKind.DELIVERED, DeliveryState.REJECTED: OutcomeKind.REJECTED}


@pytest.fixture
def retention(database: Database) -> Retention:
    """Retention with batches so small that a few rows fill several."""
    return Retention(database, deliveries=2)


async def mail(registry: Registry, name: str, *to: str) -> Subscription:
    created = subscription({"channel": "email", "to": to[0] if len(to) == 1 else list(to)}, id=name)
    await registry.subscriptions.create(created)
    return created


async def text(registry: Registry, name: str, to: str) -> Subscription:
    created = subscription({"channel": "sms", "to": to}, id=name)
    await registry.subscriptions.create(created)
    return created


def attempt_at(published: Event, to: Subscription, state: DeliveryState, number: int = 1, **outcome: Any) -> Attempt:
    kind = KINDS.get(state, OutcomeKind.DEFERRED)
    return Attempt(
        event_key=published.key,
        subscription_id=to.id,
        number=number,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=Outcome(**{"kind": kind, "reason": "SMTP 250", **outcome}),
        state=state,
        delay=None if state.settled else 300,
    )


@pytest.mark.parametrize(
    ("to", "spelling", "channel"),
    [
        ("kunde@straße.de", "KUNDE@xn--strae-oqa.de", Channel.EMAIL),
        ("kunde@xn--strae-oqa.de", "kunde@straße.de.", Channel.EMAIL),
        ("ann@example.com", "\uff41nn\uff20example.com", Channel.EMAIL),
        (NUMBER, "+1 415-555-0123", Channel.SMS),
    ],
)
async def test_a_recipient_is_erased_by_any_spelling(
    registry: Registry, retention: Retention, to: str, spelling: str, channel: Channel
) -> None:
    created = await (mail if channel is Channel.EMAIL else text)(registry, "one", to)
    await mail(registry, "other", "kunde@strasse.de")
    await deliver(registry, event(id="1"), (created, WAITING, {"response": f"550 <{to}>"}))
    erased = await retention.erase(channel, spelling)
    assert (erased.emptied, erased.deliveries) == (["one"], 1)


async def deliver(
    registry: Registry, published: Event, *attempts: tuple[Subscription, DeliveryState, dict[str, Any]]
) -> None:
    workflow_id = f"event//shop/{published.id}"
    await registry.events.accept([published], workflow_id)
    for to, state, outcome in attempts:
        group = Group(event_key=published.key, channel=to.channel, subscription_ids=(to.id,))
        await registry.deliveries.add(workflow_id, [group])
        await registry.attempts.record([attempt_at(published, to, state, **outcome)])


async def one(registry: Registry, published: Event, to: Subscription) -> Delivery:
    (found,) = await registry.deliveries.list(event_key=published.key, subscription_id=to.id)
    return found


async def everything(database: Database) -> str:
    """All rows of the registry, as text."""

    async def read(connection: AsyncConnection) -> list[str]:
        found = []
        for table in metadata.sorted_tables:
            found += [str(tuple(row)) for row in await connection.execute(select(table))]
        return found

    return "\n".join(await database.read(read)).casefold()


async def test_the_address_is_erased_everywhere_and_other_recipients_keep_their_data(
    registry: Registry, retention: Retention, database: Database
) -> None:
    alone, bobs = await mail(registry, "alone", "Ann@Example.com"), await mail(registry, "bobs", BOB)
    several = await mail(registry, "several", BOB, ANN, CAT)
    for number in range(5):
        await deliver(
            registry,
            event(id=f"{number}", data={"order": "42"}),
            (alone, DELIVERED, {"response": f"250 {ANN} queued", "provider_id": "Q1"}),
            (bobs, DELIVERED, {"response": f"250 {BOB} queued", "provider_id": "Q2"}),
            (
                several,
                WAITING,
                {"response": f"{ANN}: 451\n{BOB}: 451", "remaining_recipients": (ANN, BOB), "provider_id": "Q3"},
            ),
        )
    await registry.suppressions.add(
        Suppression(channel=Channel.EMAIL, address=ANN, reason=SuppressionReason.COMPLAINED)
    )
    await registry.suppressions.add(Suppression(channel=Channel.EMAIL, address=CAT, reason=SuppressionReason.BOUNCED))
    assert ANN in await everything(database)
    bobs_before = [
        (await one(registry, event(id=f"{n}"), bobs), await registry.attempts.list(event(id=f"{n}").key, "bobs"))
        for n in range(5)
    ]

    erased = await retention.erase(Channel.EMAIL, ANN)

    assert (erased.emptied, erased.shared) == (["alone"], ["several"])
    assert (erased.deliveries, erased.attempts, erased.cancelled, erased.suppressions) == (10, 10, 0, 1)
    assert "ann@" not in await everything(database)
    assert [
        (await one(registry, event(id=f"{n}"), bobs), await registry.attempts.list(event(id=f"{n}").key, "bobs"))
        for n in range(5)
    ] == bobs_before
    left = await registry.subscriptions.get("several")
    assert (left.state, left.target) == ("active", EmailTarget(to=(BOB, CAT)))
    waiting = await one(registry, event(id="3"), several)
    assert (waiting.state, waiting.remaining_recipients, waiting.provider_id) == (WAITING, (BOB,), "Q3")
    empty = await registry.subscriptions.get("alone")
    assert (empty.state, empty.state_reason) == (SubscriptionState.DISABLED, ERASED)
    (attempt,) = await registry.attempts.list(event(id="3").key, "alone")
    assert attempt.outcome == Outcome(kind=OutcomeKind.DELIVERED, reason="SMTP 250")


async def test_a_number_is_erased_with_the_provider_ids_of_its_messages(
    registry: Registry, retention: Retention, database: Database
) -> None:
    hers, his = await text(registry, "hers", NUMBER), await text(registry, "his", "+14155550124")
    published = event(id="1")
    await deliver(
        registry, published, (hers, DELIVERED, {"provider_id": "SM1"}), (his, DELIVERED, {"provider_id": "SM2"})
    )
    assert (await retention.erase(Channel.SMS, NUMBER)).emptied == ["hers"]
    assert NUMBER not in await everything(database)
    assert await registry.attempts.claimed_provider_ids(["SM1", "SM2"]) == {"SM2"}
    assert (await one(registry, published, hers)).provider_id is None


async def test_a_suppression_stays_effective_without_the_address(registry: Registry, retention: Retention) -> None:
    await registry.suppressions.add(
        Suppression(channel=Channel.EMAIL, address=ANN, reason=SuppressionReason.COMPLAINED)
    )
    await retention.erase(Channel.EMAIL, "ANN@example.com")
    assert [kept.address for kept in await registry.suppressions.list()] == [""]
    found = await registry.suppressions.among(Channel.EMAIL, [ANN], subscription_id="new")
    assert found == {ANN: SuppressionReason.COMPLAINED}


async def test_unsettled_deliveries_to_the_recipient_only_are_cancelled_and_their_workflows_returned(
    registry: Registry, retention: Retention
) -> None:
    alone, several = await mail(registry, "alone", ANN), await mail(registry, "several", ANN, BOB)
    first, second = event(id="first"), event(id="second")
    await deliver(
        registry, first, (alone, WAITING, {}), (several, WAITING, {"remaining_recipients": (ANN,), "provider_id": "Q"})
    )
    await deliver(registry, second, (several, WAITING, {}))
    erased = await retention.erase(Channel.EMAIL, ANN)
    assert (erased.cancelled, erased.unsettled, erased.workflow_ids) == (2, 3, {"event//shop/first"})
    for to in (alone, several):
        delivery = await one(registry, first, to)
        assert (delivery.state, delivery.reason, delivery.remaining_recipients) == (CANCELLED, ERASED, None)
    assert (await one(registry, second, several)).state is WAITING, "the other recipient still has to get it"


async def test_a_workflow_that_still_owns_a_delivery_loads_it_as_cancelled(
    registry: Registry, retention: Retention
) -> None:
    alone, published = await mail(registry, "alone", ANN), event(id="1")
    await deliver(registry, published, (alone, WAITING, {}))
    await retention.erase(Channel.EMAIL, ANN)
    group = Group(event_key=published.key, channel=Channel.EMAIL, subscription_ids=("alone",), attempt=2)
    (request,) = await registry.attempts.load([group])
    assert (request.delivery.state, request.subscription.state) == (CANCELLED, SubscriptionState.DISABLED)


async def test_an_emptied_subscription_matches_nothing_and_cannot_be_activated(
    registry: Registry, retention: Retention
) -> None:
    await mail(registry, "alone", ANN)
    await retention.erase(Channel.EMAIL, ANN)
    assert (await registry.matching.match(event(), limit=10, scan=10)).found == ()
    await registry.subscriptions.set_state("alone", SubscriptionState.PAUSED, reason="by an operator")
    with pytest.raises(SubscriptionInvalid, match="target: the recipient was erased"):
        await registry.subscriptions.set_state("alone", SubscriptionState.ACTIVE)
    assert (await registry.matching.match(event(), limit=10, scan=10)).found == ()
    assert (await registry.subscriptions.get("alone")).state is SubscriptionState.PAUSED
    assert (await retention.delete("alone")).gone


async def test_what_an_attempt_in_progress_records_is_erased_too(
    registry: Registry, retention: Retention, database: Database
) -> None:
    alone, several, published = (
        await mail(registry, "alone", ANN),
        await mail(registry, "several", ANN, BOB),
        event(id="1"),
    )
    await deliver(registry, published, (alone, WAITING, {}), (several, WAITING, {}))

    async def finish_attempts() -> None:
        late = {"response": f"{ANN}: 451", "remaining_recipients": (ANN,), "provider_id": "Q"}
        await registry.attempts.record([attempt_at(published, to, WAITING, 2, **late) for to in (alone, several)])
        assert ANN in await everything(database)

    await retention.erase(Channel.EMAIL, ANN, wait=finish_attempts)
    assert "ann@" not in await everything(database)
    assert {(await one(registry, published, to)).state for to in (alone, several)} == {CANCELLED}


async def test_without_unsettled_deliveries_it_does_not_wait(registry: Registry, retention: Retention) -> None:
    await deliver(registry, event(id="1"), (await mail(registry, "alone", ANN), DELIVERED, {}))

    async def never() -> None:
        raise AssertionError

    await retention.erase(Channel.EMAIL, ANN, wait=never)


async def test_an_interrupted_erasure_can_be_repeated(
    registry: Registry, retention: Retention, database: Database
) -> None:
    await deliver(registry, event(id="1"), (await mail(registry, "alone", ANN), WAITING, {"response": f"451 {ANN}"}))

    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await retention.erase(Channel.EMAIL, ANN, wait=interrupt)
    assert (await retention.erase(Channel.EMAIL, ANN)).emptied == ["alone"]
    assert "ann@" not in await everything(database)
    assert (await retention.erase(Channel.EMAIL, ANN)).emptied == []


async def test_a_dry_run_returns_the_same_and_changes_nothing(
    registry: Registry, retention: Retention, database: Database
) -> None:
    alone, several = await mail(registry, "alone", ANN), await mail(registry, "several", ANN, BOB)
    for number in range(3):
        published = event(id=f"{number}", subject="ann")
        await deliver(registry, published, (alone, WAITING, {"response": ANN}))
    await deliver(
        registry, event(id="both"), (alone, DELIVERED, {}), (several, WAITING, {"remaining_recipients": (ANN,)})
    )
    await registry.suppressions.add(Suppression(channel=Channel.EMAIL, address=ANN, reason=SuppressionReason.BOUNCED))
    before = await everything(database)
    expected = await retention.erase(Channel.EMAIL, ANN, events=True, dry_run=True)
    assert await everything(database) == before
    assert await retention.erase(Channel.EMAIL, ANN, events=True) == expected
    assert (expected.events, expected.cancelled, expected.suppressions) == (3, 4, 1)


async def test_on_request_events_that_went_only_to_the_recipient_lose_their_data(
    registry: Registry, retention: Retention, database: Database
) -> None:
    first, second = await mail(registry, "one", ANN), await mail(registry, "other", "ANN@EXAMPLE.COM")
    bobs = await mail(registry, "bobs", BOB)
    hers = event(id="hers", subject="order of Ann", data={"name": "Ann"})
    both = event(id="both", subject="order of Ann", data={"name": "Ann"})
    await deliver(registry, hers, (first, DELIVERED, {}), (second, DELIVERED, {}))
    await deliver(registry, both, (first, DELIVERED, {}), (bobs, DELIVERED, {}))
    kept = await retention.erase(Channel.EMAIL, ANN, dry_run=True)
    assert kept.events == 0
    assert (await retention.erase(Channel.EMAIL, ANN, events=True)).events == 1
    stored = await registry.events.by_keys([hers.key, both.key])
    assert stored[both.key] == both
    assert (stored[hers.key].data, stored[hers.key].subject, stored[hers.key].type) == (None, None, "order.paid")
    assert stored[hers.key].time == hers.time
    again = await registry.events.accept([hers], "another")
    assert again[hers.key].result == "duplicate", "its digest is kept"


async def test_unknown_fields_of_outcomes_are_removed(
    registry: Registry, retention: Retention, database: Database
) -> None:
    alone, published = await mail(registry, "alone", ANN), event(id="1")
    await deliver(registry, published, (alone, DELIVERED, {}))

    async def add(connection: AsyncConnection) -> None:
        table = metadata.tables["attempts"]
        outcome = json.dumps({"kind": "delivered", "reason": "SMTP 250", "forwarded_to": ANN})
        await connection.execute(table.update().values(outcome=outcome))

    await database.write(add)
    await retention.erase(Channel.EMAIL, ANN)
    assert "ann@" not in await everything(database)
