"""Redelivering many failed deliveries: with the command, interrupted and continued, and nothing twice."""

import asyncio
import re
import signal
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest

from bellwire import Event, Subscription, SubscriptionState
from bellwire.deliveries import DeliveryState
from starter.checkout import CHECKOUT
from starter.local.processes import environment_without
from starter.local.receivers.webhooks import Received
from starter.operations.delivery.redelivering import Selected, Selection, count_selected, redeliver
from tests.acceptance.conftest import System


async def failed(system: System, path: str, type: str, number: int) -> tuple[Subscription, list[Event]]:  # noqa: A002
    """A subscription whose endpoint has failed for `number` events, and answers again."""
    system.hooks.script(path, *[500] * number)
    subscription = await system.hook(path, type, retry_schedule=[])
    events = [Event(source="/tests", type=type, id=f"{type}-{each}") for each in range(number)]
    for receipt in await system.client.publish_many(events):
        assert (await system.client.wait(receipt, timeout=60)).counts.exhausted == 1
    return subscription, events


def command(system: System, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "starter", "deliveries", "retry", *arguments]


async def started(system: System, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**environment_without("BELLWIRE_", "TEMPORAL_"), **system.variables, "PYTHONPATH": str(CHECKOUT)}
    return await asyncio.create_subprocess_exec(
        *command(system, *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def output(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


async def all_delivered(system: System, subscription: Subscription, number: int) -> None:
    async with asyncio.timeout(60):
        while await delivered(system, subscription) < number:
            await asyncio.sleep(0.1)


async def delivered(system: System, subscription: Subscription) -> int:
    found = await system.registry.deliveries.list(
        subscription_id=subscription.id, state=DeliveryState.DELIVERED, limit=1000
    )
    return len(found)


def accepted(received: list[Received]) -> Counter[str]:
    return Counter(item.headers["webhook-id"] for item in received if item.status == 204)


@pytest.mark.slow
async def test_what_failed_is_redelivered_once_with_the_same_ids_though_the_command_was_interrupted(
    system: System,
) -> None:
    subscription, events = await failed(system, "/many", "many.it", 90)
    refused = {item.headers["webhook-id"] for item in system.hooks.received_at("/many")}
    selecting = ("--subscription", subscription.id, "--since", "1h", "--type", "many.*", "--rate", "15", "--yes")
    process = await started(system, *selecting)
    # The second batch starts once the first is done.
    await system.hooks.arrived(len(events) + 16, "/many", timeout=60)
    process.send_signal(signal.SIGINT)
    status, _, err = await output(process)
    assert "90 deliveries to redeliver: 90 exhausted; about 6s at 15 per second" in err
    hint = re.search(r"(\d+) of 90 done; to continue, run the same command with (.*)", err)
    assert hint is not None, err
    assert (status, 0 < int(hint[1]) < 90) == (130, True)
    bounds = hint[2].split()
    status, out, err = await output(await started(system, "--subscription", subscription.id, *bounds, "--yes"))
    assert (status, "redelivered" in out) == (0, True), err
    await all_delivered(system, subscription, 90)
    again = accepted(system.hooks.received_at("/many"))
    assert (set(again), set(again.values())) == (refused, {1})
    status, out, err = await output(await started(system, "--subscription", subscription.id, *bounds, "--yes"))
    assert (status, out, err) == (0, "", "0 deliveries to redeliver\n")


async def test_what_fails_again_is_not_sent_a_third_time_by_the_run_that_continues(system: System) -> None:
    subscription, events = await failed(system, "/again-bad", "again.bad", 20)
    system.hooks.script("/again-bad", 500, repeat=True)
    until = datetime.now(UTC)
    selection = Selection(subscription_id=subscription.id, until=until)
    running = redeliver(system.client, system.registry, selection, rate=10)
    assert (await anext(running)).redelivered == 10
    await running.aclose()
    async for progress in redeliver(system.client, system.registry, selection, rate=1000):
        assert progress.redelivered <= 10
    async with asyncio.timeout(60):
        while (
            await count_selected(system.registry, Selection(subscription_id=subscription.id, since=until))
        ).total < 20:
            await asyncio.sleep(0.1)
    attempts = [len(await system.registry.attempts.list(event.key)) for event in events]
    assert attempts == [2] * 20
    assert len(system.hooks.received_at("/again-bad")) == 40


async def test_paused_and_disabled_subscriptions_are_left_out_and_counted(system: System) -> None:
    subscription, _ = await failed(system, "/paused-many", "paused.many", 3)
    await system.registry.subscriptions.set_state(subscription.id, SubscriptionState.PAUSED)
    selection = Selection(subscription_id=subscription.id)
    assert await count_selected(system.registry, selection) == Selected(
        states={}, inactive={SubscriptionState.PAUSED: 3}
    )
    assert [each async for each in redeliver(system.client, system.registry, selection)] == []
    assert len(system.hooks.received_at("/paused-many")) == 3


async def test_two_operators_who_redeliver_the_same_send_nothing_twice(system: System) -> None:
    subscription, _ = await failed(system, "/both", "both.do", 60)

    async def run(rate: float) -> int:
        selection = Selection(tenant="def*", type="both.*", subscription_id=subscription.id)
        last = [each async for each in redeliver(system.client, system.registry, selection, rate=rate)][-1]
        return last.redelivered

    assert sum(await asyncio.gather(run(20), run(25))) == 60
    await all_delivered(system, subscription, 60)
    assert set(accepted(system.hooks.received_at("/both")).values()) == {1}
