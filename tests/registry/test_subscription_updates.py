"""Updating subscriptions: what is matched, sent and remembered afterwards, and two who update at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import HEALTHY, Consent
from bellwire.errors import SubscriptionChanged, SubscriptionInvalid, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel
from tests.factories import event, subscription

HOOK = {"channel": "webhook", "url": "https://app.example/hooks"}
OTHER_HOOK = {"channel": "webhook", "url": "https://new.example/hooks"}


def changed(before: Subscription, **fields: Any) -> Subscription:
    return Subscription.model_validate({**before.model_dump(by_alias=True), **fields})


async def matched(registry: Registry, type: str) -> list[str]:  # noqa: A002
    return [name for name, _ in (await registry.matching.match(event(type=type), limit=10, scan=10)).found]


async def a_delivery(registry: Registry, to: Subscription) -> Group:
    """One pending delivery for the subscription."""
    published = event(id="1")
    await registry.events.accept([published], "workflow")
    group = Group(event_key=published.key, channel=to.channel, subscription_ids=(to.id,))
    await registry.deliveries.add("workflow", [group])
    return group


def attempt(group: Group, to: Subscription, number: int = 1, **outcome: Any) -> Attempt:
    return Attempt(
        event_key=group.event_key,
        subscription_id=to.id,
        number=number,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=Outcome(**{"kind": OutcomeKind.DEFERRED, "reason": "HTTP 503", **outcome}),
        state=DeliveryState.WAITING,
        delay=60.0,
        subscription_version=to.version,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"types": ["invoice.*", "order.paid"]},
        {"filters": [{"prefix": {"source": "/shop"}}]},
        {"target": OTHER_HOOK},
        {"target": {**HOOK, "headers": {"x-api-key": "new"}, "timeout": 5}},
        {"template": "order.paid", "locale": "zh-CN"},
        {"templates": {"webhook.json": "{}"}},
        {"retry_schedule": [1, 2]},
        {"rate_limit": 2.5},
    ],
)
async def test_an_update_replaces_fields_and_counts_versions(registry: Registry, fields: dict[str, Any]) -> None:
    before = subscription(id="one")
    secret = await registry.subscriptions.create(before)
    (after,) = await registry.subscriptions.update([changed(before, **fields)])
    stored, secrets, health = await registry.subscriptions.context("one")
    assert stored == after
    assert (stored.version, stored.state, secrets, health) == (2, SubscriptionState.ACTIVE, (secret,), HEALTHY)
    assert stored.updated_at is not None
    assert stored.model_copy(update={"version": 1, "updated_at": None}) == changed(before, **fields)


async def test_after_an_update_the_new_types_match_and_the_old_ones_do_not(registry: Registry) -> None:
    before = subscription(id="one", types=["order.*", "user.created"])
    await registry.subscriptions.create(before)
    await registry.subscriptions.update([changed(before, types=["user.created", "invoice.paid"])])
    found = {name: await matched(registry, name) for name in ("order.paid", "user.created", "invoice.paid")}
    assert found == {"order.paid": [], "user.created": ["one"], "invoice.paid": ["one"]}


async def test_a_paused_subscription_stays_paused_and_resumes_with_its_new_types(registry: Registry) -> None:
    before = subscription(id="one", state="paused", state_reason="holidays")
    await registry.subscriptions.create(before)
    (after,) = await registry.subscriptions.update([changed(before, types=["invoice.paid"])])
    assert (after.state, after.state_reason) == (SubscriptionState.PAUSED, "holidays")
    assert await matched(registry, "invoice.paid") == []
    await registry.subscriptions.set_state("one", SubscriptionState.ACTIVE)
    assert (await matched(registry, "invoice.paid"), await matched(registry, "order.paid")) == (["one"], [])


async def test_of_two_updates_of_one_version_the_second_is_refused(registry: Registry) -> None:
    before = subscription(id="one")
    await registry.subscriptions.create(before)
    results = await asyncio.gather(
        *(registry.subscriptions.update([changed(before, locale=locale)]) for locale in ("de", "fr", "it", "es")),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, SubscriptionChanged)]
    stored = await registry.subscriptions.get("one")
    assert (len(refused), stored.version) == (3, 2)
    assert stored.locale in {"de", "fr", "it", "es"}


async def test_a_change_of_state_is_a_new_version_too(registry: Registry) -> None:
    before = subscription(id="one")
    await registry.subscriptions.create(before)
    await registry.subscriptions.set_state("one", SubscriptionState.PAUSED)
    with pytest.raises(SubscriptionChanged, match="one is no longer at version 1"):
        await registry.subscriptions.update([changed(before, locale="de")])
    assert (await registry.subscriptions.get("one")).locale == "en"


async def test_if_one_of_many_cannot_be_updated_none_is(registry: Registry) -> None:
    first, second = subscription(id="a"), subscription(id="b")
    for each in (first, second):
        await registry.subscriptions.create(each)
    stale = changed(second, locale="fr", version=7)
    with pytest.raises(SubscriptionChanged, match="b is no longer at version 7"):
        await registry.subscriptions.update([changed(first, locale="fr"), stale])
    with pytest.raises(SubscriptionNotFound, match="no subscription c exists"):
        await registry.subscriptions.update([changed(first, locale="fr"), subscription(id="c")])
    assert (await registry.subscriptions.get("a")).version == 1
    await registry.subscriptions.update([changed(second, locale="fr"), changed(first, locale="fr")])
    assert {each.locale for each in await registry.subscriptions.list()} == {"fr"}


async def test_the_channel_cannot_be_changed(registry: Registry) -> None:
    before = subscription(id="one")
    await registry.subscriptions.create(before)
    with pytest.raises(SubscriptionInvalid, match=r"^target\.channel: is webhook; create a new subscription for email"):
        await registry.subscriptions.update([changed(before, target={"channel": "email", "to": "ann@example.com"})])


async def test_a_new_address_starts_without_health_and_consent_of_the_old_one(registry: Registry) -> None:
    before = subscription(id="one")
    await registry.subscriptions.create(before)
    group = await a_delivery(registry, before)
    await registry.attempts.record([attempt(group, before, throttle=True)])
    await registry.subscriptions.record_consent("one", Consent("digest", datetime.now(UTC), 1.0))
    failing = (await registry.subscriptions.context("one")).health
    assert (failing.failures, failing.consent is None, failing.throttled_until is None) == (1, False, False)
    await registry.subscriptions.update([changed(before, rate_limit=5.0)])
    assert (await registry.subscriptions.context("one")).health == failing
    await registry.subscriptions.update([changed(before, target=OTHER_HOOK, version=2)])
    assert (await registry.subscriptions.context("one")).health == HEALTHY


@pytest.mark.parametrize("outcome", [{"kind": "rejected", "reason": "HTTP 410", "disable": True}, {"throttle": True}])
async def test_an_attempt_at_the_old_address_does_not_count_against_the_new_one(
    registry: Registry, outcome: dict[str, Any]
) -> None:
    before = subscription(id="one")
    await registry.subscriptions.create(before)
    group = await a_delivery(registry, before)
    (after,) = await registry.subscriptions.update([changed(before, target=OTHER_HOOK)])
    await registry.attempts.record([attempt(group, before, **outcome)])
    stored, _, health = await registry.subscriptions.context("one")
    assert (stored.state, health) == (SubscriptionState.ACTIVE, HEALTHY)
    (later,) = await registry.subscriptions.update([changed(after, locale="de")])
    await registry.attempts.record([attempt(group, after, number=2, kind="deferred", reason="HTTP 500")])
    assert (await registry.subscriptions.context("one")).health.failures == 1
    assert later.version == 3


async def test_waiting_deliveries_use_the_new_rate_limit(registry: Registry) -> None:
    before = subscription(id="one", rate_limit=0.001)
    await registry.subscriptions.create(before)
    group = await a_delivery(registry, before)
    now = datetime.now(UTC)
    await registry.limits.reserve(await registry.attempts.load([group]), now=now)
    other = event(id="2")
    await registry.events.accept([other], "workflow")
    second = Group(event_key=other.key, channel=Channel.WEBHOOK, subscription_ids=("one",))
    await registry.deliveries.add("workflow", [second])
    (held,) = (await registry.limits.reserve(await registry.attempts.load([second]), now=now)).values()
    assert held - now > timedelta(minutes=10)
    await registry.subscriptions.update([changed(before, rate_limit=100.0)])
    (request,) = await registry.attempts.load([second])
    assert request.delivery.not_before is None
    (soon,) = (await registry.limits.reserve([request], now=now)).values()
    assert soon - now < timedelta(seconds=1)


async def test_a_recipient_who_is_added_gets_mails_that_others_have_already(registry: Registry) -> None:
    before = subscription({"channel": "email", "to": ["ann@example.com", "bob@example.com"]}, id="one")
    await registry.subscriptions.create(before)
    group = await a_delivery(registry, before)
    await registry.attempts.record([attempt(group, before, remaining_recipients=("bob@example.com",))])
    (after,) = await registry.subscriptions.update([changed(before, locale="de")])
    (request,) = await registry.attempts.load([group])
    assert request.delivery.remaining_recipients == ("bob@example.com",)
    everyone = ["ann@example.com", "bob@example.com", "cyd@example.com"]
    await registry.subscriptions.update([changed(after, target={"channel": "email", "to": everyone})])
    (request,) = await registry.attempts.load([group])
    assert request.delivery.remaining_recipients is None
    assert request.subscription.target.recipients == tuple(everyone)
