"""Records the histories that test_replay.py replays: `python -m tests.replay.record`, on a dev server of its own.

The files prove that open workflows survive a deployment. Record again only to add a path, or after a change that
`workflow.patched` guards; keep the old file beside the new one as long as workflows of the old version may be open.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Event, EventNotFound, Handlers, Receipt, Retry
from bellwire.contract import (
    LOOKUP,
    QUEUE,
    REGISTER_HANDLERS,
    REPLAY,
    TEST_SEND,
    TICK,
    WAIT_FOR_EVENT,
    Group,
    ReplayInput,
    TestSendInput,
    TickInput,
    recall_workflow_id,
    replay_batch_workflow_id,
    replay_workflow_id,
    wait_workflow_id,
)
from bellwire.nexus import WaitInput
from bellwire.nexus.following import WaitForEventInput
from bellwire.targets import Channel
from bellwire.testing.registry import MemoryEvent, MemoryReplay
from tests.conftest import start_dev_server
from tests.factories import event
from tests.workflows.platform import DELIVERED, REJECTED, FakePlatform, Response, deferred, retry_after
from workflows.policies import FOLLOW_SECONDS

HISTORIES = Path(__file__).parent / "histories"

Scenario = Callable[[FakePlatform, Client], Awaitable[dict[str, str]]]


async def delivered(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.EMAIL: ["e"], Channel.SMS: ["s"], Channel.WEBHOOK: ["w"]}
    receipt = await client.publish(event(tenant="acme"))
    await client.wait(receipt, timeout=30)
    return {"notify-delivered": receipt.workflow_id}


async def unmatched(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {}
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-unmatched": receipt.workflow_id}


async def deferred_twice(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.respond = lambda each, attempt: deferred(0.3 * attempt) if attempt < 3 and each != "c" else DELIVERED
    receipts = await client.publish_many([event(), event()])
    await client.wait(receipts[0], timeout=30)
    await client.temporal.get_workflow_handle(receipts[0].workflow_id).result()
    return {"notify-deferred": receipts[0].workflow_id}


async def controlled(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.respond = lambda _, attempt: deferred(3600) if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await waiting(client, receipt, 3)
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    await handle.execute_update("pause", "a")
    await handle.execute_update("cancel", "b")
    await handle.execute_update("resume", "a")
    await handle.execute_update("retry_now")
    await client.wait(receipt, timeout=30)
    return {"notify-controlled": receipt.workflow_id}


async def cancelled(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    platform.respond = lambda *_: deferred(3600)
    receipt = await client.publish(event())
    await waiting(client, receipt, 1)
    await client.cancel(receipt)
    await client.wait(receipt, timeout=30)
    return {"notify-cancelled": receipt.workflow_id}


async def failed(platform: FakePlatform, client: Client) -> dict[str, str]:
    """One delivery is rejected at once and one after a deferral, in a publication with a conflict and a duplicate."""
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    one, two = event(), event()
    await client.publish_many([one, two])
    platform.respond = lambda each, attempt: deferred(0.3) if (each, attempt) == ("b", 1) else REJECTED
    changed = event(id=one.id, data={"changed": True})
    receipts = await client.publish_many([changed, two, event()])
    await client.wait(receipts[2], timeout=30)
    await client.temporal.get_workflow_handle(receipts[2].workflow_id).result()
    return {"notify-failed": receipts[2].workflow_id}


async def paged(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: [f"s{number:04}" for number in range(1_010)]}
    platform.respond = lambda each, attempt: deferred(0.3) if (each, attempt) == ("s0007", 1) else DELIVERED
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    notify = receipt.workflow_id
    return {"notify-paged": notify, "dispatch-deferred": f"{notify}#page-1", "dispatch-delivered": f"{notify}#page-2"}


async def continued_as_new(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    failures = {"a": 3, "b": 8}

    def respond(subscription_id: str, attempt: int) -> Response:
        return retry_after(0.2) if attempt <= failures[subscription_id] else DELIVERED

    platform.respond = respond
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=60)
    return {"notify-continued-as-new": receipt.workflow_id}


async def redelivered(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.SMS: ["a"]}
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    workflow_id = await client.retry(receipt, "a")
    await client.temporal.get_workflow_handle(workflow_id).result()
    return {"dispatch-redelivered": workflow_id}


async def rate_limited(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.SMS: [f"s{number}" for number in range(3)], Channel.WEBHOOK: ["w"]}
    platform.limited_channels = (Channel.SMS,)
    platform.respond = lambda each, attempt: deferred(0.3) if each in {"s1", "w"} and attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-rate-limited": receipt.workflow_id}


async def inline_remaining(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.EMAIL: ["e"], Channel.WEBHOOK: ["w"]}
    platform.not_inline = {Channel.EMAIL}
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-inline-remaining": receipt.workflow_id}


async def not_found(platform: FakePlatform, client: Client) -> dict[str, str]:
    try:
        await client.status(("/unknown", "unknown"))
    except EventNotFound:
        query = f"WorkflowType = '{LOOKUP}'"
        async with asyncio.timeout(20):
            while not (found := [each.id async for each in client.temporal.list_workflows(query)]):
                await asyncio.sleep(0.1)
        return {"lookup-not-found": found[0]}
    raise AssertionError("an unknown event was found")


async def test_send(platform: FakePlatform, client: Client) -> dict[str, str]:
    request = TestSendInput(subscription_id="w", channel=Channel.WEBHOOK)
    workflow_id = "test-send/w/example"
    await client.temporal.execute_workflow(TEST_SEND, request, id=workflow_id, task_queue=QUEUE)
    return {"test-send-deferred": workflow_id}


async def recalled(platform: FakePlatform, client: Client) -> dict[str, str]:
    """A provider is busy at first, and a delivery waits."""
    platform.subscriptions = {Channel.SLACK: ["a", "b"], Channel.WEBHOOK: ["w"]}
    platform.respond = lambda name, _: deferred(60) if name == "b" else DELIVERED
    receipt = await client.publish(published := event())
    await waiting(client, receipt, 1)
    platform.busy_recalls = 1
    await client.recall(receipt)
    return {"recall-busy": recall_workflow_id(published.key, None)}


async def called(platform: FakePlatform, client: Client) -> dict[str, str]:
    """One handler succeeds at once, one after a deferral, one is paused while its service does not run, beside a webhook."""
    platform.subscriptions = {Channel.HANDLER: ["up_a", "up_b", "down_c"], Channel.WEBHOOK: ["w"]}
    handlers, attempts = Handlers(service="up"), Counter[str]()

    @handlers.on("*", name="a")
    async def succeed(_: Event) -> None: ...

    @handlers.on("*", name="b")
    def ask_for_a_retry(event: Event) -> None:
        attempts[event.id] += 1
        if attempts[event.id] == 1:
            raise Retry("later", after=0.3)

    async with handlers.running(client):
        receipt = await client.publish(event())
        await until_delivered(client, receipt, 3)
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    await handle.execute_update("pause", "down_c")
    await handle.execute_update("cancel", "down_c")
    await client.wait(receipt, timeout=30)
    async for found in client.temporal.list_workflows(f"WorkflowType = '{REGISTER_HANDLERS}'"):
        return {"notify-called": receipt.workflow_id, "register-handlers": found.id}
    raise AssertionError("nothing is registered")


async def until_delivered(client: Client, receipt: Receipt, number: int) -> None:
    async with asyncio.timeout(20):
        while (await client.status(receipt)).counts.delivered < number:
            await asyncio.sleep(0.05)


async def replayed(platform: FakePlatform, client: Client) -> dict[str, str]:
    """A replay of past events in two batches, one of which is deferred, and of a failed delivery."""
    platform.subscriptions = {Channel.WEBHOOK: ["late"]}
    events = [event(id=f"past-{number}") for number in range(3)]
    platform.events |= {each.key: MemoryEvent(each, "event/1", "", datetime.now(UTC)) for each in events}
    groups = [Group(event_key=each.key, channel=Channel.WEBHOOK, subscription_ids=("late",)) for each in events]
    platform.respond = lambda _, attempt: deferred(0.3) if len(platform.attempts) == 1 else DELIVERED
    platform.replays = {
        "rpl_past": MemoryReplay(groups, rate=10, batch=2),
        "rpl_failed": MemoryReplay([groups[0].model_copy(update={"attempt": 3})], missing=False, rate=10),
    }
    ids = {name: replay_workflow_id(name) for name in platform.replays}
    for name, workflow_id in ids.items():
        await client.temporal.execute_workflow(REPLAY, ReplayInput(replay_id=name), id=workflow_id, task_queue=QUEUE)
        await client.temporal.get_workflow_handle(replay_batch_workflow_id(name, 1)).result()
    batch = replay_batch_workflow_id("rpl_past", 1)
    return {"replay-past": ids["rpl_past"], "replay-failed": ids["rpl_failed"], "dispatch-past": batch}


async def ticked(platform: FakePlatform, client: Client) -> dict[str, str]:
    platform.subscriptions = {Channel.WEBHOOK: ["w"]}
    workflow_id = "tick/report"
    request = TickInput(schedule="report", event=event(tenant="acme"))
    await client.temporal.execute_workflow(TICK, request, id=workflow_id, task_queue=QUEUE)
    return {"tick-published": workflow_id}


async def waited(platform: FakePlatform, client: Client) -> dict[str, str]:
    """The next attempt is due after the first activity has ended, so that the workflow sleeps until then."""
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    platform.respond = lambda _, attempt: retry_after(FOLLOW_SECONDS + 1) if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    workflow_id = wait_workflow_id(receipt.event_id, "example")
    request = WaitForEventInput(event=WaitInput.of(receipt))
    await client.temporal.execute_workflow(WAIT_FOR_EVENT, request, id=workflow_id, task_queue=QUEUE)
    return {"wait-for-event-retried": workflow_id}


async def waiting(client: Client, receipt: Receipt, number: int) -> None:
    async with asyncio.timeout(20):
        while len([item for item in (await client.status(receipt)).unsettled if item.due]) < number:
            await asyncio.sleep(0.05)


SCENARIOS: tuple[Scenario, ...] = (
    delivered,
    unmatched,
    deferred_twice,
    controlled,
    cancelled,
    failed,
    paged,
    continued_as_new,
    redelivered,
    rate_limited,
    inline_remaining,
    not_found,
    test_send,
    recalled,
    called,
    replayed,
    ticked,
    waited,
)


async def play(env: WorkflowEnvironment, scenario: Scenario, *, max_cached_workflows: int = 1_000) -> dict[str, str]:
    """Run a scenario, and return its workflow ids by the name of the history file."""
    platform = FakePlatform(env)
    async with platform.running(max_cached_workflows=max_cached_workflows):
        return await scenario(platform, Client(env.client))


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    async with await start_dev_server(limit__historyCount__suggestContinueAsNew=60) as env:
        for scenario in SCENARIOS:
            for name, workflow_id in (await play(env, scenario)).items():
                history = await env.client.get_workflow_handle(workflow_id).fetch_history()
                (HISTORIES / f"{name}.json").write_text(_without_paths(history.to_json()) + "\n")
                print(f"{name}: {len(history.events)} events")  # noqa: T201


def _without_paths(text: str) -> str:
    """Without the folders of this machine, which stack traces contain."""
    return text.replace(sys.prefix, ".venv").replace(str(Path.cwd()), ".").replace(sys.base_prefix, "python")


if __name__ == "__main__":
    asyncio.run(main())
