"""Subscriptions: stored, listed, paused and disabled."""

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
async def test_a_subscription_comes_back_as_it_was_given(registry: Registry, fields: dict[str, Any]) -> None:
    wish = subscription(**fields)
    await registry.subscriptions.create(wish)
    assert await registry.subscriptions.get(wish.id) == wish


async def test_a_webhook_gets_a_secret_of_its_own(registry: Registry) -> None:
    first, second = [await registry.subscriptions.create(subscription()) for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first != second
    assert first.get_secret_value().startswith("whsec_")
    assert len(base64.b64decode(first.get_secret_value().removeprefix("whsec_"), validate=True)) == 32


async def test_a_secret_may_be_brought_along(registry: Registry) -> None:
    given = "whsec_" + base64.b64encode(bytes(24)).decode()
    kept = await registry.subscriptions.create(subscription(), secret=given)
    assert kept is not None
    assert kept.get_secret_value() == given


@pytest.mark.parametrize("target", [EMAIL, SMS])
async def test_only_webhooks_have_secrets(registry: Registry, target: dict[str, Any]) -> None:
    assert await registry.subscriptions.create(subscription(target)) is None
    with pytest.raises(SubscriptionInvalid, match=r"^secret: "):
        await registry.subscriptions.create(subscription(target), secret="whsec_" + "A" * 32)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_not base64", "A" * 32, "whsec_" + "A" * 100])
async def test_a_bad_secret_is_refused_and_nothing_stored(registry: Registry, secret: str) -> None:
    with pytest.raises(SubscriptionInvalid, match=r"^secret: "):
        await registry.subscriptions.create(subscription(), secret=secret)
    assert await registry.subscriptions.list() == []


async def test_an_id_is_given_once(registry: Registry) -> None:
    wish = subscription(id="orders")
    await registry.subscriptions.create(wish)
    with pytest.raises(SubscriptionInvalid, match=r"^id: "):
        await registry.subscriptions.create(subscription(id="orders", tenant="other", types=["*"]))
    assert await registry.subscriptions.get("orders") == wish


async def test_an_unknown_subscription_is_not_found(registry: Registry) -> None:
    with pytest.raises(SubscriptionNotFound):
        await registry.subscriptions.get("nobody")
    with pytest.raises(SubscriptionNotFound):
        await registry.subscriptions.set_state("nobody", SubscriptionState.PAUSED)


async def test_subscriptions_are_listed_page_by_page(registry: Registry) -> None:
    # In an order that languages disagree on.
    ids = ["B", "a", "a-b", "a_b", "ab", "A1", "Z", "z", "0"]
    for name in ids:
        await registry.subscriptions.create(subscription(id=name))
    seen: list[str] = []
    while page := await registry.subscriptions.list(after=seen[-1] if seen else "", limit=2):
        assert len(page) <= 2
        seen += [wish.id for wish in page]
    assert seen == sorted(ids)


async def test_listings_are_narrowed(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="hook"))
    await registry.subscriptions.create(subscription(EMAIL, id="mail"))
    await registry.subscriptions.create(subscription(SMS, id="text", tenant="other"))
    await registry.subscriptions.set_state("mail", SubscriptionState.PAUSED)

    async def listed(**narrowed: Any) -> list[str]:
        return [wish.id for wish in await registry.subscriptions.list(**narrowed)]

    assert await listed(tenant="acme") == ["hook", "mail"]
    assert await listed(channel=Channel.SMS) == ["text"]
    assert await listed(state=SubscriptionState.PAUSED) == ["mail"]
    assert await listed(tenant="acme", state=SubscriptionState.ACTIVE) == ["hook"]
    assert await listed(tenant="nobody") == []


async def test_only_active_subscriptions_match(registry: Registry) -> None:
    wish = subscription(id="one", types=["order.*", "order.paid"])
    await registry.subscriptions.create(wish)

    async def matched() -> list[str]:
        return [name for name, _ in (await registry.matching.match(event(), limit=10, scan=10)).found]

    assert await matched() == ["one"]
    await registry.subscriptions.set_state("one", SubscriptionState.PAUSED, reason="holidays")
    await registry.subscriptions.set_state("one", SubscriptionState.PAUSED, reason="longer holidays")
    assert (await registry.subscriptions.get("one")).state_reason == "longer holidays"
    assert await matched() == []
    await registry.subscriptions.set_state("one", SubscriptionState.ACTIVE, reason="back")
    await registry.subscriptions.set_state("one", SubscriptionState.ACTIVE)
    assert await registry.subscriptions.get("one") == wish
    assert await matched() == ["one"]
    await registry.subscriptions.create(subscription(id="two", state="paused"))
    assert await matched() == ["one"]
