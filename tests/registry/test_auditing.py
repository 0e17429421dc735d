"""The audit log: what an operation changes is stored with who, in the transaction that changes it."""

import pytest

from bellwire import Subscription
from bellwire.registry import Registry
from bellwire.registry.db.auditing import Actor, acting
from starter.operations.subscribers import pausing, subscriptions, suppressions
from starter.operations.subscribers.pausing import SubscriptionSelection

ACTOR = Actor("ann", "laptop")
HOOK = {"channel": "webhook", "url": "https://hooks.example/x"}


async def actions(registry: Registry) -> list[tuple[str, str, str | None]]:
    return [(entry.action, entry.resource, entry.tenant) for entry in await registry.audit_log.list()][::-1]


async def test_each_change_of_a_subscription_has_an_entry(registry: Registry) -> None:
    await registry.subscriptions.create(Subscription(id="one", tenant="acme", types=("a",), target=HOOK))
    with acting(ACTOR):
        await subscriptions.pause_subscription(registry, "one", reason=None)
        await subscriptions.resume_subscription(registry, "one")
        await subscriptions.rotate_secret(registry, "one")
        await subscriptions.delete_subscription(registry, "one", cancel=True)
    assert await actions(registry) == [
        (f"subscription.{action}", "one", "acme") for action in ("paused", "resumed", "secret_rotated", "deleted")
    ]
    (entry, *_) = await registry.audit_log.list()
    assert (entry.actor, entry.origin) == ACTOR


async def test_pausing_many_has_an_entry_for_each(registry: Registry) -> None:
    for name in ("one", "two"):
        await registry.subscriptions.create(Subscription(id=name, tenant=name, types=("a",), target=HOOK))
    with acting(ACTOR):
        await pausing.pause_many(registry, SubscriptionSelection(), reason=None)
        await pausing.pause_many(registry, SubscriptionSelection(), reason=None)
    assert await actions(registry) == [("subscription.paused", name, name) for name in ("one", "two")]


async def test_what_changes_nothing_has_no_entry(registry: Registry) -> None:
    with acting(ACTOR), pytest.raises(suppressions.NotSuppressed):
        await suppressions.lift(registry, "ann@example.com")
    await suppressions.suppress(registry, "ann@example.com")
    assert await actions(registry) == []


async def test_a_change_elsewhere_is_recorded_by_its_actor_only(registry: Registry) -> None:
    await registry.audit_log.record("delivery.redelivered", "dlv_1")
    assert await actions(registry) == []
    with acting(ACTOR):
        await registry.audit_log.record("delivery.redelivered", "dlv_1", tenant="acme")
    assert await actions(registry) == [("delivery.redelivered", "dlv_1", "acme")]
