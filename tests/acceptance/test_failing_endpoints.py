"""Receivers that ail, on the whole system: they are left in peace, their tenants hear of it, and can be tried out."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bellwire import Event, SubscriptionState
from bellwire.deliveries import DeliveryState
from starter.local.processes import environment_without
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System, running_system

CHECKOUT = Path(__file__).parents[2]


async def command(system: System, *arguments: str) -> tuple[int, str, str]:
    """Status and output of `python -m starter`, as an operator runs it."""
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


async def test_a_throttled_receiver_is_left_in_peace_and_then_met_bit_by_bit(system: System) -> None:
    system.hooks.script("/peace", WebhookResponse(status=429, headers={"Retry-After": "3"}))
    wish = await system.hook("/peace", "peace.please", retry_schedule=[600])
    (first,) = await published(system, "peace.please")
    await system.hooks.arrived(1, "/peace")
    async with asyncio.timeout(10):
        while not (await system.registry.subscriptions.context(wish.id)).health.degraded:
            await asyncio.sleep(0.05)
    rest = await published(system, "peace.please", 12)
    await settled(system, [first, *rest])
    refused, *others = system.hooks.received_at("/peace")
    assert len(others) == 13
    assert min((item.at - refused.at).total_seconds() for item in others) >= 2.9
    spread = max(item.at for item in others) - min(item.at for item in others)
    assert spread.total_seconds() > 0.5
    # Holding back is no attempt.
    for event in rest:
        assert [made.number for made in await system.registry.attempts.list(event.key)] == [1]
    assert not (await system.registry.subscriptions.context(wish.id)).health.degraded


async def test_a_tenant_hears_of_a_subscription_that_was_disabled(system: System) -> None:
    system.hooks.script("/dead", 410, repeat=True)
    await system.hook("/news", "bellwire.subscription.*")
    wish = await system.hook("/dead", "dead.end", "bellwire.*")
    await system.hook("/strangers", "bellwire.*", tenant="other")
    await settled(system, await published(system, "dead.end"))
    (told, *_) = await system.hooks.arrived(1, "/news")
    assert (told.event["type"], told.event["source"]) == ("bellwire.subscription.disabled", "bellwire")
    assert (told.event["subject"], told.event["tenant"]) == (wish.id, "acme")
    assert told.event["data"] == {
        "subscription": wish.id,
        "channel": "webhook",
        "reason": "HTTP 410",
        "failing_since": told.event["data"]["failing_since"],
        "failures": 1,
    }
    async with asyncio.timeout(10):
        while await system.registry.operational_events.list():
            await asyncio.sleep(0.05)
    assert not system.hooks.received_at("/strangers")
    assert len(system.hooks.received_at("/dead")) == 1


async def test_who_fails_for_long_is_warned_about_then_disabled_and_comes_back_by_resume(tmp_path: Path) -> None:
    settings = {
        "BELLWIRE_DISABLE_AFTER": "3",
        "BELLWIRE_DISABLE_AFTER_FAILURES": "4",
        "BELLWIRE_WARN_AFTER": "1",
    }
    async with running_system(tmp_path, database=None, **settings) as system:
        await system.hook("/news", "bellwire.*")
        system.hooks.script("/ill", 500, repeat=True)
        wish = await system.hook("/ill", "ill.*", retry_schedule=[0.4] * 40)
        events = await published(system, "ill.now")
        told = {item.event["type"]: item.event["data"] for item in await system.hooks.arrived(2, "/news")}
        warned, disabled = told["bellwire.subscription.failing"], told["bellwire.subscription.disabled"]
        assert 1 <= warned["failures"] < disabled["failures"] >= 4
        await settled(system, events)
        stored = await system.registry.subscriptions.get(wish.id)
        assert stored.state is SubscriptionState.DISABLED
        assert stored.state_reason is not None
        assert "no success since" in stored.state_reason
        status, out, _ = await command(system, "subscriptions", "show", wish.id)
        assert (status, "failing since" in out) == (0, True)
        status, out, _ = await command(system, "subscriptions", "resume", wish.id)
        assert (status, "failing since" in out) == (0, False)


async def tried(system: System, *arguments: str) -> tuple[int, Any]:
    status, out, _ = await command(system, "subscriptions", "test", *arguments, "--json")
    return status, json.loads(out)


async def test_a_subscription_is_tried_out_whatever_its_state_and_nothing_is_recorded(
    system: System, tmp_path: Path
) -> None:
    hook = await system.hook("/tryout", "tryout.*")
    mail = await system.subscribe({"channel": "email", "to": "trial@example.com"}, "tryout.*")
    text = await system.subscribe({"channel": "sms", "to": "+14155550188"}, "tryout.*")
    await system.registry.subscriptions.set_state(hook.id, SubscriptionState.DISABLED, reason="HTTP 410")
    for wish, reason in ((hook, "HTTP 204"), (mail, "SMTP 250"), (text, "Twilio 201")):
        status, answer = await tried(system, wish.id)
        assert (status, answer["kind"]) == (0, "delivered"), answer
        assert answer["reason"].startswith(reason)
        assert answer["duration"] > 0
    (posted,) = system.hooks.received_at("/tryout")
    assert posted.verified
    assert posted.event["type"] == "bellwire.subscription.test"
    assert [item.to for item in system.mailbox.mails].count("trial@example.com") == 1
    assert [sent.to for sent in system.twilio.messages].count("+14155550188") == 1
    file = tmp_path / "event.json"
    file.write_text(json.dumps({"source": "/tests", "type": "tryout.mine", "data": {"order": 7}}))
    system.hooks.script("/tryout", WebhookResponse(status=503, body=b"very private"))
    status, answer = await tried(system, hook.id, "--event", str(file))
    assert (status, answer["kind"], answer["reason"]) == (1, "deferred", "HTTP 503")
    assert system.hooks.received_at("/tryout")[-1].event["data"] == {"order": 7}
    for wish in (hook, mail, text):
        assert await system.registry.deliveries.list(subscription_id=wish.id) == []
        assert not (await system.registry.subscriptions.context(wish.id)).health.degraded
    assert await system.registry.events.list(type="bellwire.subscription.test") == []
    told = []
    async for run in system.client.temporal.list_workflows("WorkflowType = 'Trial'"):
        history = await system.client.temporal.get_workflow_handle(run.id).fetch_history()
        told.append(history.to_json())
    assert len(told) == 4
    for private in ("very private", "/tryout", "trial@example.com", "+14155550188", "This is a test"):
        assert private not in "".join(told)


@pytest.mark.parametrize(("arguments", "status"), [(("nobody",), 1), (("nobody", "--event", "missing.json"), 2)])
async def test_what_cannot_be_tried_is_told(system: System, arguments: tuple[str, ...], status: int) -> None:
    code, out, err = await command(system, "subscriptions", "test", *arguments)
    assert (code, out) == (status, "")
    assert err.startswith("error: ")


async def test_a_test_sent_to_a_stranger_goes_through_the_guard(system: System) -> None:
    wish = await system.subscribe({"channel": "webhook", "url": "http://10.0.0.1:8080/hooks"}, "tryout.*")
    status, answer = await tried(system, wish.id)
    assert (status, answer["kind"], answer["reason"]) == (1, "rejected", "address not allowed")
    assert await system.registry.deliveries.list(subscription_id=wish.id, state=DeliveryState.REJECTED) == []
