"""Explaining: why an event matched a subscription or did not, step by step, and the subscriptions of its tenant by closeness."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy import event as sqlalchemy_event

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import Consent
from bellwire.errors import SubscriptionNotFound
from bellwire.events import Event
from bellwire.models import TRUSTED
from bellwire.registry import Registry, StoredEvent
from bellwire.registry.db.auditing import Actor, acting
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import SPECS, Channel
from starter.operations.delivery.explaining import ExplainedPage, Explanation, explain, explain_all
from starter.operations.delivery.explanation_steps import Step, StepName, sending_steps
from starter.operations.subscribers.subscriptions import pause_subscription, resume_subscription
from tests.factories import event, subscription

EMAIL = {"channel": "email", "to": ["ann@example.com", "bob@example.com"]}
SMS = {"channel": "sms", "to": "+14155550123"}
RUN = "event//shop/1"


async def stored_event(registry: Registry, **fields: Any) -> StoredEvent:
    accepted = event(**fields)
    await registry.events.accept([accepted], RUN)
    return await registry.events.get(accepted.key)


async def matched(registry: Registry, of: Event, to: Subscription) -> None:
    await registry.deliveries.add(RUN, [Group(event_key=of.key, channel=to.channel, subscription_ids=(to.id,))])


async def explained(registry: Registry, *, of: dict[str, Any] | None = None, **fields: Any) -> Explanation:
    """The explanation of an event for a subscription with these fields, created before it."""
    one = subscription(**fields)
    await registry.subscriptions.create(one)
    return await explain(registry, await stored_event(registry, **(of or {})), one.id)


def step(explanation: Explanation, name: StepName) -> Step:
    (found,) = [each for each in explanation.steps if each.name is name]
    return found


async def test_every_step_is_explained_in_order(registry: Registry) -> None:
    found = await explained(registry, filters=[{"exact": {"source": "/shop"}}, {"prefix": {"type": "order."}}])
    assert [each.name for each in found.steps] == [
        *(StepName.TENANT, StepName.TYPE, StepName.FILTER, StepName.FILTER, StepName.STATE, StepName.CREATED),
        *(StepName.ENDPOINT, StepName.SUPPRESSION, StepName.LIMIT, StepName.DELIVERY),
    ]
    assert [each.passed for each in found.steps] == [True] * 9 + [None]
    assert (found.matched, found.matches_now, found.first_failing) == (False, True, None)
    assert "no delivery is recorded" in found.summary


@pytest.mark.parametrize(
    ("tenant", "passed", "text"),
    [
        ("acme", True, "The event is for acme, which owns the subscription."),
        ("*", True, "The event is for all tenants, and so for acme."),
        ("globex", False, "The event is for globex; the subscription belongs to acme."),
    ],
)
async def test_the_tenant_is_compared(registry: Registry, tenant: str, passed: bool, text: str) -> None:
    found = await explained(registry, of={"tenant": tenant})
    assert (step(found, StepName.TENANT).passed, step(found, StepName.TENANT).text) == (passed, text)
    assert found.matches_now is passed


async def test_each_type_pattern_says_why(registry: Registry) -> None:
    patterns = ["order.paid", "order.*", "*", "order.shipped", "user.*", "Order.Paid"]
    found = step(await explained(registry, types=patterns), StepName.TYPE)
    assert found.text == "The type order.paid matches order.paid, order.*, *."
    assert [(part.text, part.passed) for part in found.parts] == list(
        zip(patterns, [True, True, True, False, False, False], strict=True)
    )
    assert [part.reason for part in found.parts[3:]] == [
        "is another type",
        "matches types below user, such as user.example; order.paid is not below it",
        "differs in upper and lower case",
    ]


async def test_a_type_that_nothing_matches_fails_first(registry: Registry) -> None:
    found = await explained(registry, types=["user.*", "order.shipped"], state="paused")
    assert found.first_failing == step(found, StepName.TYPE)
    assert found.summary == ("Not matched. The type order.paid matches none of the 2 patterns: user.*, order.shipped.")


async def test_each_filter_is_a_step_with_the_values_seen(registry: Registry) -> None:
    filters = [{"prefix": {"source": "/shop"}}, {"not": {"any": [{"exact": {"subject": "42"}}]}}]
    found = await explained(registry, of={"subject": "42"}, filters=filters)
    first, second = [each for each in found.steps if each.name is StepName.FILTER]
    assert (first.passed, second.passed) == (True, False)
    assert '"/shop"' in first.text
    assert second.text.startswith("Filter 2 of 2 does not match: ")
    (traced,) = second.parts
    (inner,) = traced.parts
    (innermost,) = inner.parts
    assert (traced.passed, inner.passed, innermost.passed) == (False, True, True)
    assert 'subject is "42"' in innermost.reason


async def test_a_paused_subscription_fails_by_its_state(registry: Registry) -> None:
    found = await explained(registry, state="paused", state_reason="holidays")
    assert found.summary == "Not matched. The subscription is paused: holidays."


async def test_a_subscription_that_was_created_later_says_so(registry: Registry) -> None:
    before = await stored_event(registry)
    late = subscription()
    await registry.subscriptions.create(late)
    found = await explain(registry, before, late.id)
    assert found.first_failing is not None
    assert found.first_failing.name is StepName.CREATED
    assert "after the event was accepted at" in found.summary
    # One that gets the past has the delivery nevertheless.
    await matched(registry, before.event, late)
    found = await explain(registry, before, late.id)
    assert (found.matched, step(found, StepName.CREATED).passed) == (True, True)


async def test_a_change_after_the_event_is_told_from_what_was_recorded(registry: Registry) -> None:
    one = subscription()
    await registry.subscriptions.create(one)
    before = await stored_event(registry)
    await matched(registry, before.event, one)
    await registry.subscriptions.update([one.model_copy(update={"types": ("user.*",)})])
    found = await explain(registry, before, one.id)
    assert (found.matched, found.matches_now, found.changed_since) == (True, False, True)
    assert found.subscription.version == 2
    assert found.summary == (
        f"Matched. The delivery is pending, no attempt is recorded. Its workflow is {RUN}. "
        "As the subscription is now, it would not match: The type order.paid does not match user.*."
    )


async def test_a_pause_that_ended_since_is_found_in_the_audit_log(registry: Registry) -> None:
    one = subscription()
    await registry.subscriptions.create(one)
    with acting(Actor("ann", "laptop")):
        await pause_subscription(registry, one.id, reason=None)
        during = await stored_event(registry)
        await resume_subscription(registry, one.id)
    found = await explain(registry, during, one.id)
    assert (found.matched, found.matches_now, found.changed_since) == (False, True, True)
    assert [change.action for change in found.changes] == ["subscription.resumed"]
    assert "although it matches now: the subscription was changed at" in found.summary
    assert "it was probably paused or disabled before" in found.summary


async def test_consent_and_health_of_an_endpoint(registry: Registry) -> None:
    target = {"channel": "webhook", "url": "https://app.example/hooks", "handshake": True}
    found = await explained(registry, target=target)
    assert (step(found, StepName.CONSENT).passed, step(found, StepName.ENDPOINT).passed) == (None, True)
    given_at = datetime(2026, 11, 23, 8, tzinfo=UTC)
    await registry.subscriptions.record_consent(found.subscription.id, Consent("x", given_at, 2.0))
    await matched(registry, found.stored.event, found.subscription)
    now = datetime.now(UTC)
    throttled = Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 429", throttle=True, retry_after=3600.0)
    attempt = Attempt(
        event_key=found.stored.event.key,
        subscription_id=found.subscription.id,
        number=1,
        started_at=now,
        duration=0.1,
        outcome=throttled,
        state=DeliveryState.WAITING,
        delay=3600.0,
    )
    await registry.attempts.record([attempt])
    found = await explain(registry, found.stored, found.subscription.id)
    assert step(found, StepName.CONSENT).text == (
        "The endpoint gave its consent at 2026-11-23 08:00:00Z, for 2 per second at most."
    )
    assert step(found, StepName.ENDPOINT).passed is False
    assert "nothing is attempted before" in step(found, StepName.ENDPOINT).text
    assert "1 attempt failed" in step(found, StepName.ENDPOINT).text
    assert "2 per second by the endpoint's consent" in step(found, StepName.LIMIT).text
    recorded = step(found, StepName.DELIVERY)
    assert recorded.passed is None
    assert "waiting, after 1 attempt; last response: HTTP 429; the next attempt is due about" in recorded.text


@pytest.mark.parametrize(("state", "passed"), [("delivered", True), ("rejected", False), ("exhausted", False)])
async def test_a_settled_delivery_is_shown(registry: Registry, state: str, passed: bool) -> None:
    found = await explained(registry)
    await matched(registry, found.stored.event, found.subscription)
    kind = OutcomeKind.DELIVERED if passed else OutcomeKind.REJECTED
    attempt = Attempt(
        event_key=found.stored.event.key,
        subscription_id=found.subscription.id,
        number=1,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=Outcome(kind=kind, reason="HTTP 410"),
        state=DeliveryState(state),
    )
    await registry.attempts.record([attempt])
    found = await explain(registry, found.stored, found.subscription.id)
    assert step(found, StepName.DELIVERY).passed is passed
    assert found.summary.startswith(f"Matched. The delivery is {state}, after 1 attempt; last response: HTTP 410.")


async def test_each_recipient_says_whether_it_is_suppressed(registry: Registry) -> None:
    found = await explained(registry, target=EMAIL)
    assert step(found, StepName.SUPPRESSION).text == "None of 2 recipients is suppressed."
    ann, bob = (
        Suppression(channel=Channel.EMAIL, address=address, reason=SuppressionReason.BOUNCED, subscription_id=scope)
        for address, scope in (("ANN@example.com", EVERYWHERE), ("bob@example.com", found.subscription.id))
    )
    await registry.suppressions.add(ann)
    found = await explain(registry, found.stored, found.subscription.id)
    one = step(found, StepName.SUPPRESSION)
    assert (one.passed, one.text) == (True, "1 of 2 recipients is suppressed and gets nothing.")
    assert [(part.text, part.passed, part.reason) for part in one.parts] == [
        ("ann@example.com", False, "suppressed everywhere (bounced)"),
        ("bob@example.com", True, "not suppressed"),
    ]
    await registry.suppressions.add(bob)
    found = await explain(registry, found.stored, found.subscription.id)
    assert step(found, StepName.SUPPRESSION).passed is False
    assert step(found, StepName.SUPPRESSION).parts[1].reason == "suppressed for this subscription (bounced)"


async def test_a_suppression_of_another_subscription_does_not_count(registry: Registry) -> None:
    await registry.suppressions.add(
        Suppression(
            channel=Channel.SMS, address=SMS["to"], reason=SuppressionReason.OPERATOR, subscription_id="another"
        )
    )
    found = await explained(registry, target=SMS)
    assert step(found, StepName.SUPPRESSION).passed is True
    stop = Suppression(
        channel=Channel.SMS,
        address=SMS["to"],
        reason=SuppressionReason.UNSUBSCRIBED,
        subscription_id=by_sender("+14155550100"),
    )
    await registry.suppressions.add(stop)
    found = await explain(registry, found.stored, found.subscription.id)
    assert step(found, StepName.SUPPRESSION).passed is None
    assert step(found, StepName.SUPPRESSION).parts[0].reason == "suppressed for what is sent by +14155550100"


@pytest.mark.parametrize("channel", list(SPECS))
async def test_every_channel_is_explained(registry: Registry, channel: Channel) -> None:
    example = SPECS[channel].example
    found = await explained(registry, target=example.model_dump(mode="json", context=TRUSTED))
    assert found.subscription.channel is channel
    assert found.matches_now is True
    assert step(found, StepName.SUPPRESSION).passed is True
    assert len(step(found, StepName.SUPPRESSION).parts) == len(example.recipients)


async def test_limits_are_named_but_those_of_the_platform_not_to_a_tenant(registry: Registry) -> None:
    await registry.limits.set(Channel.WEBHOOK, 100)
    found = await explained(registry, rate_limit=5)
    assert step(found, StepName.LIMIT).text == (
        "Deliveries are limited to 5 per second by the subscription and to 100 per second by the channel webhook."
    )
    own = await explain(registry, found.stored, found.subscription.id, tenant="acme")
    assert step(own, StepName.LIMIT).text == "Deliveries are limited to 5 per second by the subscription."


async def test_another_tenants_subscription_is_as_one_that_does_not_exist(registry: Registry) -> None:
    found = await explained(registry)
    with pytest.raises(SubscriptionNotFound, match="no subscription none exists"):
        await explain(registry, found.stored, "none")
    with pytest.raises(SubscriptionNotFound, match=f"no subscription {found.subscription.id} exists"):
        await explain(registry, found.stored, found.subscription.id, tenant="globex")


async def test_the_subscriptions_of_the_tenant_are_listed_with_the_closest_first(registry: Registry) -> None:
    paid = {"exact": {"subject": "paid"}}
    closeness: dict[str, dict[str, Any]] = {
        "by-type": {"types": ["user.*"]},
        "by-two-filters": {"filters": [paid, paid]},
        "by-filter": {"filters": [paid, {"exact": {"source": "/shop"}}]},
        "by-state": {"state": "paused"},
        "of-another": {"tenant": "globex"},
    }
    for name, fields in closeness.items():
        await registry.subscriptions.create(subscription(id=name, **fields))
    stored = await stored_event(registry)
    page = await explain_all(registry, stored)
    names = ["by-state", "by-filter", "by-two-filters", "by-type"]
    assert [each.subscription.id for each in page.explanations] == names
    assert (page.nobody_matched, page.looked_at, page.next, page.of) == (True, 4, None, "acme")
    await registry.subscriptions.create(subscription(id="matching"))
    await registry.deliveries.add(
        RUN, [Group(event_key=stored.event.key, channel=Channel.WEBHOOK, subscription_ids=("matching",))]
    )
    page = await explain_all(registry, await registry.events.get(stored.event.key))
    assert [each.subscription.id for each in page.explanations] == ["matching", *names]
    assert page.nobody_matched is False


async def pages(registry: Registry, stored: StoredEvent, limit: int) -> list[ExplainedPage]:
    found: list[ExplainedPage] = []
    after: str | None = ""
    while after is not None:
        found.append(await explain_all(registry, stored, after=after, limit=limit))
        after = found[-1].next
    return found


async def test_pages_together_have_each_subscription_once(registry: Registry) -> None:
    for number in range(7):
        await registry.subscriptions.create(subscription(id=f"sub-{number}", tenant=f"tenant-{number % 2}"))
    stored = await stored_event(registry, tenant="*")
    await registry.deliveries.add(
        RUN, [Group(event_key=stored.event.key, channel=Channel.WEBHOOK, subscription_ids=("sub-2",))]
    )
    found = await pages(registry, await registry.events.get(stored.event.key), 3)
    assert [page.looked_at for page in found] == [3, 3, 1]
    seen = [each.subscription.id for page in found for each in page.explanations]
    assert seen == ["sub-2", "sub-0", "sub-1", "sub-3", "sub-4", "sub-5", "sub-6"]
    own = await explain_all(registry, stored, tenant="tenant-1")
    assert {each.subscription.tenant for each in own.explanations} == {"tenant-1"}
    assert (own.looked_at, own.of) == (3, "tenant-1")


async def test_a_page_that_takes_too_long_ends_early_and_the_next_goes_on(registry: Registry) -> None:
    for number in range(3):
        await registry.subscriptions.create(subscription(id=f"sub-{number}"))
    stored, found, after = await stored_event(registry), list[str](), ""
    for _ in range(3):
        page = await explain_all(registry, stored, after=after, max_seconds=0)
        assert page.looked_at == 1
        found += [each.subscription.id for each in page.explanations]
        after = page.next or ""
    assert (found, page.next) == (["sub-0", "sub-1", "sub-2"], None)


async def test_the_closest_are_found_behind_many_others(registry: Registry) -> None:
    for number in range(9):
        await registry.subscriptions.create(subscription(id=f"far-{number}", types=["user.*"]))
    await registry.subscriptions.create(subscription(id="near", state="paused"))
    (page,) = await pages(registry, await stored_event(registry), 2)
    assert [each.subscription.id for each in page.explanations] == ["near", "far-0"]
    assert (page.looked_at, page.nobody_matched) == (10, True)


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    statements: list[str] = []

    def count(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            statements.append(statement)

    sqlalchemy_event.listen(Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        sqlalchemy_event.remove(Engine, "before_cursor_execute", count)


async def test_a_page_costs_as_many_statements_for_many_subscriptions_as_for_one(registry: Registry) -> None:
    stored = await stored_event(registry)
    counts = []
    for number in range(30):
        await registry.subscriptions.create(subscription(EMAIL if number % 2 else None, id=f"sub-{number}"))
    await registry.deliveries.add(
        RUN, [Group(event_key=stored.event.key, channel=Channel.WEBHOOK, subscription_ids=("sub-0",))]
    )
    stored = await registry.events.get(stored.event.key)
    for limit in (2, 30):
        with counted_statements() as statements:
            assert (await explain_all(registry, stored, limit=limit)).looked_at == limit
        counts.append(len(statements))
    assert 0 < counts[0] == counts[1] <= 6


async def test_filters_on_data_and_expressions_name_what_they_saw(registry: Registry) -> None:
    found = await explained(
        registry,
        of={"data": {"order": {"amount": 99}}, "subject": "42"},
        filters=[
            {"data": {"order": {"amount": [{"numeric": [">", 100]}]}}},
            {"sql": "subject = '42' AND type LIKE 'order.%'"},
        ],
    )
    on_data, by_expression = [each for each in found.steps if each.name is StepName.FILTER]
    assert (on_data.passed, by_expression.passed) == (False, True)
    assert "99" in on_data.text
    assert "erased" not in on_data.text


async def test_an_event_whose_data_was_erased_says_so(registry: Registry) -> None:
    filters = [{"not": {"data": {"order": ["42"]}}}, {"data": {"order": ["42"]}}]
    mail = subscription({"channel": "email", "to": "ann@example.com"})
    await registry.subscriptions.create(mail)
    found = await explained(registry, filters=filters)
    assert "no data" not in found.summary
    await matched(registry, found.stored.event, mail)
    await registry.deliveries.settle(
        [Group(event_key=found.stored.event.key, channel=mail.channel, subscription_ids=(mail.id,))], reason="test"
    )
    await registry.retention.erase(Channel.EMAIL, "ann@example.com", events=True)
    erased = await registry.events.get(found.stored.event.key)
    assert erased.event.data is None
    again = await explain(registry, erased, found.subscription.id)
    first, second = [each for each in again.steps if each.name is StepName.FILTER]
    assert (first.passed, second.passed) == (True, False)
    assert second.text.endswith("The stored event has no data: it was published without, or it was erased.")


async def test_a_reservation_by_a_rate_limit_is_a_limit_that_holds(registry: Registry) -> None:
    found = await explained(registry, rate_limit=0.01)
    await matched(registry, found.stored.event, found.subscription)
    page = await registry.explanations.candidate(found.stored.event.key, found.subscription.id)
    (candidate,) = page.candidates
    assert candidate.delivery is not None
    later = datetime.now(UTC) + timedelta(hours=1)
    held = candidate._replace(delivery=candidate.delivery.model_copy(update={"not_before": later}))
    limit = sending_steps(held, channel_limit=None, now=datetime.now(UTC))[-1]
    assert limit.passed is False
    assert "This one has a reservation for" in limit.text
