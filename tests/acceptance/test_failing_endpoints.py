"""Failing endpoints on the whole system: throttling, notifications of tenants, disabling, and test sends."""

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bellwire import Event, SubscriptionState
from bellwire.deliveries import DeliveryState
from bellwire.endpoint_health import EARLY_TOLERANCE
from starter.local.processes import environment_without
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System, running_system

CHECKOUT = Path(__file__).parents[2]


async def command(system: System, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of `python -m starter`, as an operator runs it."""
    environment = {**environment_without("BELLWIRE_", "TEMPORAL_"), **system.variables}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", *arguments),
        cwd=CHECKOUT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def published(system: System, kind: str, number: int = 1) -> list[Event]:
    events = [Event(source="/tests", type=kind, data={"number": nth}) for nth in range(number)]
    for event in events:
        await system.client.publish(event)
    return events


async def settled(system: System, events: Sequence[Event]) -> None:
    for event in events:
        await system.client.wait(event, timeout=60)


async def test_a_throttled_endpoint_is_paused_and_then_gets_its_backlog_gradually(system: System) -> None:
    system.hooks.script("/throttled", WebhookResponse(status=429, headers={"Retry-After": "3"}))
    subscription = await system.hook("/throttled", "throttle.it", retry_schedule=[1])
    (first,) = await published(system, "throttle.it")
    await system.hooks.arrived(1, "/throttled")
    async with asyncio.timeout(10):
        while (until := (await system.registry.subscriptions.context(subscription.id)).health.throttled_until) is None:
            await asyncio.sleep(0.05)
    rest = await published(system, "throttle.it", 12)
    await settled(system, [first, *rest])
    assert [item.status for item in system.hooks.received_at("/throttled")] == [429] + [204] * 13
    refused, *others = [
        attempt for event in [first, *rest] for attempt in await system.registry.attempts.list(event.key)
    ]
    assert refused.outcome.retry_after == 3
    started = sorted(attempt.started_at for attempt in others)
    assert started[0] >= until - timedelta(seconds=EARLY_TOLERANCE)
    assert started[-1] - started[0] > timedelta(seconds=0.5), "the backlog was sent all at once"
    # A throttled delivery is not an attempt.
    assert [attempt.number for attempt in others] == [2] + [1] * 12
    assert not (await system.registry.subscriptions.context(subscription.id)).health.degraded


async def test_a_tenant_is_notified_of_a_disabled_subscription(system: System) -> None:
    system.hooks.script("/dead", 410, repeat=True)
    await system.hook("/notifications", "bellwire.subscription.*")
    subscription = await system.hook("/dead", "dead.end", "bellwire.*")
    await system.hook("/other-tenant", "bellwire.*", tenant="other")
    await settled(system, await published(system, "dead.end"))
    (notified, *_) = await system.hooks.arrived(1, "/notifications")
    assert (notified.event["type"], notified.event["source"]) == ("bellwire.subscription.disabled", "bellwire")
    assert (notified.event["subject"], notified.event["tenant"]) == (subscription.id, "default")
    assert notified.event["data"] == {
        "subscription": subscription.id,
        "channel": "webhook",
        "reason": "HTTP 410",
        "failing_since": notified.event["data"]["failing_since"],
        "failures": 1,
    }
    async with asyncio.timeout(10):
        while await system.registry.operational_events.list():
            await asyncio.sleep(0.05)
    assert not system.hooks.received_at("/other-tenant")
    assert len(system.hooks.received_at("/dead")) == 1


@pytest.mark.slow
async def test_a_long_failing_endpoint_is_warned_about_then_disabled_and_can_be_resumed(tmp_path: Path) -> None:
    settings = {
        "BELLWIRE_DISABLE_AFTER": "3",
        "BELLWIRE_DISABLE_AFTER_FAILURES": "4",
        "BELLWIRE_WARN_AFTER": "1",
    }
    async with running_system(tmp_path, database=None, **settings) as system:
        await system.hook("/notifications", "bellwire.*")
        system.hooks.script("/failing", 500, repeat=True)
        subscription = await system.hook("/failing", "fail.*", retry_schedule=[0.4] * 40)
        events = await published(system, "fail.now")
        notified = {item.event["type"]: item.event["data"] for item in await system.hooks.arrived(2, "/notifications")}
        warned, disabled = notified["bellwire.subscription.failing"], notified["bellwire.subscription.disabled"]
        assert 1 <= warned["failures"] < disabled["failures"] >= 4
        await settled(system, events)
        stored = await system.registry.subscriptions.get(subscription.id)
        assert stored.state is SubscriptionState.DISABLED
        assert stored.state_reason is not None
        assert "no success since" in stored.state_reason
        status, out, _ = await command(system, "subscriptions", "show", subscription.id)
        assert (status, "failing since" in out) == (0, True)
        status, out, _ = await command(system, "subscriptions", "resume", subscription.id)
        assert (status, "failing since" in out) == (0, False)


async def send_test(system: System, *arguments: str) -> tuple[int, Any]:
    status, out, _ = await command(system, "subscriptions", "test", *arguments, "--json")
    return status, json.loads(out)


@pytest.mark.slow
async def test_a_test_send_works_in_any_state_and_is_not_recorded(system: System, tmp_path: Path) -> None:
    hook = await system.hook("/test-send", "test-send.*")
    mail = await system.subscribe({"channel": "email", "to": "test-send@example.com"}, "test-send.*")
    text = await system.subscribe({"channel": "sms", "to": "+14155550188"}, "test-send.*")
    await system.registry.subscriptions.set_state(hook.id, SubscriptionState.DISABLED, reason="HTTP 410")
    for subscription, reason in ((hook, "HTTP 204"), (mail, "SMTP 250"), (text, "Twilio 201")):
        status, result = await send_test(system, subscription.id)
        assert (status, result["kind"]) == (0, "delivered"), result
        assert result["reason"].startswith(reason)
        assert result["duration"] > 0
    (posted,) = system.hooks.received_at("/test-send")
    assert posted.verified
    assert posted.event["type"] == "bellwire.subscription.test"
    assert [item.to for item in system.mailbox.mails].count("test-send@example.com") == 1
    assert [sent.to for sent in system.twilio.messages].count("+14155550188") == 1
    file = tmp_path / "event.json"
    file.write_text(json.dumps({"source": "/tests", "type": "test-send.mine", "data": {"order": 7}}))
    system.hooks.script("/test-send", WebhookResponse(status=503, body=b"very private"))
    status, result = await send_test(system, hook.id, "--event", str(file))
    assert (status, result["kind"], result["reason"]) == (1, "deferred", "HTTP 503")
    assert system.hooks.received_at("/test-send")[-1].event["data"] == {"order": 7}
    for subscription in (hook, mail, text):
        assert await system.registry.deliveries.list(subscription_id=subscription.id) == []
        assert not (await system.registry.subscriptions.context(subscription.id)).health.degraded
    assert await system.registry.events.list(type="bellwire.subscription.test") == []
    histories = []
    async for run in system.client.temporal.list_workflows("WorkflowType = 'TestSend'"):
        history = await system.client.temporal.get_workflow_handle(run.id).fetch_history()
        histories.append(history.to_json())
    assert len(histories) == 4
    for private in ("very private", "/test-send", "test-send@example.com", "+14155550188", "This is a test"):
        assert private not in "".join(histories)


@pytest.mark.parametrize(("arguments", "status"), [(("unknown",), 1), (("unknown", "--event", "missing.json"), 2)])
async def test_a_test_send_that_cannot_start_is_an_error(
    system: System, arguments: tuple[str, ...], status: int
) -> None:
    code, out, err = await command(system, "subscriptions", "test", *arguments)
    assert (code, out) == (status, "")
    assert err.startswith("error: ")


async def test_a_test_send_cannot_reach_a_private_network(system: System) -> None:
    subscription = await system.subscribe({"channel": "webhook", "url": "http://10.0.0.1:8080/hooks"}, "test-send.*")
    status, result = await send_test(system, subscription.id)
    assert (status, result["kind"], result["reason"]) == (1, "rejected", "address not allowed")
    assert await system.registry.deliveries.list(subscription_id=subscription.id, state=DeliveryState.REJECTED) == []
