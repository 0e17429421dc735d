"""Registering handlers, the presence of their services, and the operational event of one that is absent."""

from datetime import UTC, datetime, timedelta

import pytest

from bellwire.contract import handler_subscription_id
from bellwire.errors import HandlersConflict, SubscriptionInvalid
from bellwire.registry import Registry
from bellwire.registry.handlers import ABSENT_AFTER
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import HandlerTarget
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.handlers import remove_handler


def handler(name: str, *types: str, service: str = "accounts", **fields: object) -> Subscription:
    return Subscription.model_validate(
        {
            "id": handler_subscription_id(service, name),
            "tenant": "acme",
            "types": types or ("user.registered",),
            "target": HandlerTarget(service=service, name=name),
            **fields,
        }
    )


async def test_handlers_are_created_then_changed_and_none_is_removed(registry: Registry) -> None:
    one, other = handler("one"), handler("other")
    assert await registry.handlers.register("accounts", "app", [one, other]) == (("one", "other"), ())
    assert await registry.handlers.register("accounts", "app", [one, other]) == ((), ())
    changed = handler("one", "user.*", rate_limit=3, filters=[{"exact": {"subject": "1"}}], retry_schedule=[1])
    assert await registry.handlers.register("accounts", "app", [changed]) == ((), ("one",))
    found = {each.target.address: each for each in await registry.handlers.list("accounts")}
    assert found.keys() == {"accounts/one", "accounts/other"}
    stored = found["accounts/one"]
    assert (stored.types, stored.rate_limit, stored.retry_schedule) == (("user.*",), 3, (1.0,))
    assert stored.filters == changed.filters
    assert stored.version == 2


async def test_one_that_was_disabled_is_active_again_and_one_that_was_paused_stays(registry: Registry) -> None:
    failed, paused = handler("failed"), handler("paused")
    await registry.handlers.register("accounts", "app", [failed, paused])
    await registry.subscriptions.set_state(failed.id, SubscriptionState.DISABLED, reason="failed for days")
    await registry.subscriptions.set_state(paused.id, SubscriptionState.PAUSED, reason="maintenance")
    assert await registry.handlers.register("accounts", "app", [failed, paused]) == ((), ("failed",))
    states = [(await registry.subscriptions.get(each.id)).state for each in (failed, paused)]
    assert states == [SubscriptionState.ACTIVE, SubscriptionState.PAUSED]


async def test_another_application_waits_until_the_service_is_gone(registry: Registry) -> None:
    await registry.handlers.register("accounts", "app", [handler("one")])
    with pytest.raises(HandlersConflict, match="run by the application app, not other"):
        await registry.handlers.register("accounts", "other", [handler("two")])
    assert [each.target.address for each in await registry.handlers.list()] == ["accounts/one"], "nothing is stored"
    await registry.handlers.register("accounts", "other", [handler("two")], take_over=True)
    with pytest.raises(HandlersConflict):
        await registry.handlers.register("accounts", "app", [handler("one")], is_live=True)


async def test_a_program_of_the_same_name_with_other_handlers_is_another_application(registry: Registry) -> None:
    await registry.handlers.register("accounts", "app", [handler("one"), handler("two")])
    with pytest.raises(
        HandlersConflict, match="runs with other handlers, such as one, and none of them is declared here"
    ):
        await registry.handlers.register("accounts", "app", [handler("three")])
    assert len(await registry.handlers.list()) == 2, "nothing is stored"
    rolling = await registry.handlers.register("accounts", "app", [handler("two"), handler("three")])
    assert rolling.created == ("three",), "versions of one application share a handler"
    await registry.handlers.register("accounts", "app", [handler("four")], take_over=True)


async def test_a_handler_of_another_tenant_is_refused(registry: Registry) -> None:
    await registry.handlers.register("accounts", "app", [handler("one")])
    with pytest.raises(SubscriptionInvalid, match=r"tenant: one is registered for the tenant acme; .*handlers remove"):
        await registry.handlers.register("accounts", "app", [handler("one", tenant="other")])


async def test_an_absent_service_is_reported_once_for_each_tenant(registry: Registry) -> None:
    await registry.handlers.register("accounts", "app", [handler("one"), handler("two")])
    await registry.handlers.register("accounts", "app", [handler("one"), handler("three", tenant="other")])
    now = datetime.now(UTC)
    assert not await registry.handlers.report_absent("accounts", now=now)
    later = now + ABSENT_AFTER + timedelta(minutes=1)
    assert await registry.handlers.report_absent("accounts", now=later)
    assert not await registry.handlers.report_absent("accounts", now=later), "another worker looks at the same time"
    events = {each.tenant: each for each in await registry.operational_events.list()}
    assert {tenant: each.data["handlers"] for tenant, each in events.items() if isinstance(each.data, dict)} == {
        "acme": ["one", "two"],
        "other": ["three"],
    }
    assert {(each.type, each.subject) for each in events.values()} == {("bellwire.handlers.absent", "accounts")}
    (service,) = await registry.handlers.services()
    assert service.absent_since == later
    await registry.handlers.record_seen("accounts", later)
    (service,) = await registry.handlers.services()
    assert (service.absent_since, service.last_seen) == (None, later)
    await registry.handlers.record_seen("accounts", now)
    assert (await registry.handlers.services())[0].last_seen == later, "an earlier poll changes nothing"


async def test_an_address_that_lost_its_name_removes_nothing(registry: Registry) -> None:
    await registry.handlers.register("accounts", "app", [handler("one"), handler("two")])
    with pytest.raises(InputInvalid, match="accounts/ has no handler's name"):
        await remove_handler(registry, "accounts/", cancel=True)
    assert len(await registry.handlers.list()) == 2
    assert await remove_handler(registry, "accounts/two", cancel=True) == [handler_subscription_id("accounts", "two")]


async def test_a_service_is_forgotten_with_its_last_handler(registry: Registry) -> None:
    one = handler("one")
    await registry.handlers.register("accounts", "app", [one])
    assert not await registry.handlers.forget("accounts")
    assert (await registry.retention.delete(one.id, cancel=True)).gone
    assert await registry.handlers.forget("accounts")
    assert await registry.handlers.services() == []
