"""Subscriptions: created, listed, paused and disabled."""

import base64
from typing import Any

import pytest

from bellwire.errors import SubscriptionInvalid, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from tests.factories import event, subscription

EMAIL = {"channel": "email", "to": ["ann@example.com", "bob@example.com"]}
SMS = {"channel": "sms", "to": "+14155550123"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"target": EMAIL, "template": "order.paid", "locale": "zh-CN", "retry_schedule": [1, 2.5]},
        {"target": SMS, "retry_schedule": []},
        {"target": SMS, "templates": {"sms.text": "{{ type }} ü"}},
        {"rate_limit": 0.3},
        {"filters": [{"not": {"any": [{"prefix": {"source": "/a"}}, {"exact": {"subject": "ö"}}]}}]},
        {"state": "paused", "state_reason": "holidays"},
        {"types": ["order.paid", "order.*", "*", "order.paid"]},
    ],
)
async def test_a_subscription_is_stored_as_it_was_given(registry: Registry, fields: dict[str, Any]) -> None:
    created = subscription(**fields)
    await registry.subscriptions.create(created)
    assert await registry.subscriptions.get(created.id) == created


async def test_each_webhook_gets_a_secret_of_its_own(registry: Registry) -> None:
    first, second = [await registry.subscriptions.create(subscription()) for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first != second
    assert first.get_secret_value().startswith("whsec_")
    assert len(base64.b64decode(first.get_secret_value().removeprefix("whsec_"), validate=True)) == 32


async def test_a_secret_may_be_given(registry: Registry) -> None:
    given = "whsec_" + base64.b64encode(bytes(24)).decode()
    stored = await registry.subscriptions.create(subscription(), secret=given)
    assert stored is not None
    assert stored.get_secret_value() == given


@pytest.mark.parametrize("target", [EMAIL, SMS])
async def test_only_webhooks_have_secrets(registry: Registry, target: dict[str, Any]) -> None:
    assert await registry.subscriptions.create(subscription(target)) is None
    with pytest.raises(SubscriptionInvalid, match=r"^secret: "):
        await registry.subscriptions.create(subscription(target), secret="whsec_" + "A" * 32)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_not base64", "A" * 32, "whsec_" + "A" * 100])
async def test_an_invalid_secret_is_refused_and_nothing_is_stored(registry: Registry, secret: str) -> None:
    with pytest.raises(SubscriptionInvalid, match=r"^secret: "):
        await registry.subscriptions.create(subscription(), secret=secret)
    assert await registry.subscriptions.list() == []


async def test_an_id_can_be_used_once(registry: Registry) -> None:
    created = subscription(id="orders")
    await registry.subscriptions.create(created)
    with pytest.raises(SubscriptionInvalid, match=r"^id: "):
        await registry.subscriptions.create(subscription(id="orders", tenant="other", types=["*"]))
    assert await registry.subscriptions.get("orders") == created


async def test_an_unknown_subscription_is_not_found(registry: Registry) -> None:
    with pytest.raises(SubscriptionNotFound):
        await registry.subscriptions.get("unknown")
    with pytest.raises(SubscriptionNotFound):
        await registry.subscriptions.set_state("unknown", SubscriptionState.PAUSED)


async def test_subscriptions_are_listed_in_pages(registry: Registry) -> None:
    # Locales disagree on the order of these.
    ids = ["B", "a", "a-b", "a_b", "ab", "A1", "Z", "z", "0"]
    for name in ids:
        await registry.subscriptions.create(subscription(id=name))
    seen: list[str] = []
    while page := await registry.subscriptions.list(after=seen[-1] if seen else "", limit=2):
        assert len(page) <= 2
        seen += [created.id for created in page]
    assert seen == sorted(ids)


async def test_subscriptions_are_filtered(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="hook"))
    await registry.subscriptions.create(subscription(EMAIL, id="mail"))
    await registry.subscriptions.create(subscription(SMS, id="text", tenant="other"))
    await registry.subscriptions.set_state("mail", SubscriptionState.PAUSED)

    async def listed(**filters: Any) -> list[str]:
        return [created.id for created in await registry.subscriptions.list(**filters)]

    assert await listed(tenant="acme") == ["hook", "mail"]
    assert await listed(channel=Channel.SMS) == ["text"]
    assert await listed(state=SubscriptionState.PAUSED) == ["mail"]
    assert await listed(tenant="acme", state=SubscriptionState.ACTIVE) == ["hook"]
    assert await listed(tenant="unknown") == []


async def test_only_active_subscriptions_match(registry: Registry) -> None:
    created = subscription(id="one", types=["order.*", "order.paid"])
    await registry.subscriptions.create(created)

    async def matched() -> list[str]:
        return [name for name, _ in (await registry.matching.match(event(), limit=10, scan=10)).found]

    assert await matched() == ["one"]
    await registry.subscriptions.set_state("one", SubscriptionState.PAUSED, reason="holidays")
    await registry.subscriptions.set_state("one", SubscriptionState.PAUSED, reason="longer holidays")
    assert (await registry.subscriptions.get("one")).state_reason == "longer holidays"
    assert await matched() == []
    await registry.subscriptions.set_state("one", SubscriptionState.ACTIVE, reason="back")
    await registry.subscriptions.set_state("one", SubscriptionState.ACTIVE)
    resumed = await registry.subscriptions.get("one")
    assert resumed.version == 5
    assert resumed.updated_at is not None
    assert resumed.model_copy(update={"version": 1, "updated_at": None}) == created
    assert await matched() == ["one"]
    await registry.subscriptions.create(subscription(id="two", state="paused"))
    assert await matched() == ["one"]


async def test_subscriptions_are_listed_by_a_pattern_that_they_were_given(registry: Registry) -> None:
    for name, types in {"a": ["order.*"], "b": ["order.paid", "order.*"], "c": ["order.x"]}.items():
        await registry.subscriptions.create(subscription(id=name, types=types))
    assert [each.id for each in await registry.subscriptions.list(pattern="order.*")] == ["a", "b"]
    assert [each.id for each in await registry.subscriptions.list(pattern="order.%")] == []
    assert [each.id for each in await registry.subscriptions.list(pattern="order.p")] == []
