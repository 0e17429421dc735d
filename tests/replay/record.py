"""Records the histories that test_replay.py replays: `python -m tests.replay.record`, on a dev server of its own.

Record anew only after a change that `workflow.patched` guards, or to add a path; the files prove that runs which are under way
survive a deployment. Keep the old file beside the new one as long as such runs may exist.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from bellwire import Client, EventNotFound, Receipt
from bellwire.contract import DISPATCH, QUEUE, DispatchInput, Group
from bellwire.contract.test_sends import TEST_SEND, TestSendInput
from bellwire.subscriptions import Channel
from tests.conftest import start_dev_server
from tests.factories import event
from tests.workflows.platform import DELIVERED, Answer, Platform

HISTORIES = Path(__file__).parent / "histories"

Scenario = Callable[[Platform, Client], Awaitable[dict[str, str]]]


async def delivered(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.EMAIL: ["e"], Channel.SMS: ["s"], Channel.WEBHOOK: ["w"]}
    receipt = await client.publish(event(tenant="acme"))
    await client.wait(receipt, timeout=30)
    return {"notify-delivered": receipt.workflow_id}


async def unwanted(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {}
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-unwanted": receipt.workflow_id}


async def refused(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.answer = lambda name, attempt: (0.3 * attempt, "HTTP 503") if attempt < 3 and name != "c" else DELIVERED
    receipts = await client.publish_many([event(), event()])
    await client.wait(receipts[0], timeout=30)
    await client.temporal.get_workflow_handle(receipts[0].workflow_id).result()
    return {"notify-refused": receipts[0].workflow_id}


async def controlled(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b", "c"]}
    platform.answer = lambda _, attempt: (3600.0, "HTTP 503") if attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await waiting(client, receipt, 3)
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    await handle.execute_update("pause", "a")
    await handle.execute_update("cancel", "b")
    await handle.execute_update("resume", "a")
    await handle.execute_update("retry_now")
    await client.wait(receipt, timeout=30)
    return {"notify-controlled": receipt.workflow_id}


async def cancelled(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.WEBHOOK: ["a"]}
    platform.answer = lambda *_: (3600.0, "HTTP 503")
    receipt = await client.publish(event())
    await waiting(client, receipt, 1)
    await client.cancel(receipt)
    await client.wait(receipt, timeout=30)
    return {"notify-cancelled": receipt.workflow_id}


async def in_pages(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.WEBHOOK: [f"s{number:04}" for number in range(1_010)]}
    platform.answer = lambda name, attempt: (0.3, "HTTP 503") if name == "s0007" and attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    run = receipt.workflow_id
    return {"notify-in-pages": run, "dispatch-refused": f"{run}/page-1", "dispatch-delivered": f"{run}/page-2"}


async def continued(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.WEBHOOK: ["a", "b"]}
    failures = {"a": 3, "b": 8}

    def answer(name: str, attempt: int) -> Answer:
        return (0.2, "HTTP 503", True) if attempt <= failures[name] else DELIVERED

    platform.answer = answer
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=60)
    return {"notify-continued": receipt.workflow_id}


async def made_again(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.SMS: ["a"]}
    group = Group(event_key="k", channel=Channel.SMS, subscription_ids=("a",), attempt=2)
    await client.temporal.execute_workflow(
        DISPATCH, DispatchInput(redeliver=(group,)), id="redeliver/example", task_queue=QUEUE
    )
    return {"dispatch-made-again": "redeliver/example"}


async def limited(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.SMS: [f"s{number}" for number in range(3)], Channel.WEBHOOK: ["w"]}
    platform.limited = (Channel.SMS,)
    platform.answer = lambda name, attempt: (0.3, "HTTP 503") if name in {"s1", "w"} and attempt == 1 else DELIVERED
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-limited": receipt.workflow_id}


async def left(platform: Platform, client: Client) -> dict[str, str]:
    platform.subscribers = {Channel.EMAIL: ["e"], Channel.WEBHOOK: ["w"]}
    platform.not_at_once = {Channel.EMAIL}
    receipt = await client.publish(event())
    await client.wait(receipt, timeout=30)
    return {"notify-left": receipt.workflow_id}


async def located(platform: Platform, client: Client) -> dict[str, str]:
    try:
        await client.status(("/nobody", "nothing"))
    except EventNotFound:
        runs = [run.id async for run in client.temporal.list_workflows("WorkflowType = 'Locate'")]
        while not runs:
            await asyncio.sleep(0.1)
            runs = [run.id async for run in client.temporal.list_workflows("WorkflowType = 'Locate'")]
        return {"locate-unknown": runs[0]}
    raise AssertionError("an unknown event was found")


async def tried(platform: Platform, client: Client) -> dict[str, str]:
    given = TestSendInput(subscription_id="w", channel=Channel.WEBHOOK)
    await client.temporal.execute_workflow(TEST_SEND, given, id="trial/w/example", task_queue=QUEUE)
    return {"trial-answered": "trial/w/example"}


async def waiting(client: Client, receipt: Receipt, number: int) -> None:
    async with asyncio.timeout(20):
        while len([item for item in (await client.status(receipt)).unsettled if item.due]) < number:
            await asyncio.sleep(0.05)


SCENARIOS: tuple[Scenario, ...] = (
    delivered,
    unwanted,
    refused,
    controlled,
    cancelled,
    in_pages,
    continued,
    made_again,
    limited,
    left,
    located,
    tried,
)


async def play(env: WorkflowEnvironment, scenario: Scenario, *, max_cached_workflows: int = 1_000) -> dict[str, str]:
    """Run a scenario; the names of its runs and their workflow ids."""
    platform = Platform(env)
    async with platform.working(max_cached_workflows=max_cached_workflows):
        return await scenario(platform, Client(env.client))


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    async with await start_dev_server(limit__historyCount__suggestContinueAsNew=60) as env:
        for scenario in SCENARIOS:
            for name, run in (await play(env, scenario)).items():
                history = await env.client.get_workflow_handle(run).fetch_history()
                (HISTORIES / f"{name}.json").write_text(_without_paths(history.to_json()) + "\n")
                print(f"{name}: {len(history.events)} events")  # noqa: T201


def _without_paths(text: str) -> str:
    """Stack traces name files of this machine."""
    return text.replace(sys.prefix, ".venv").replace(str(Path.cwd()), ".").replace(sys.base_prefix, "python")


if __name__ == "__main__":
    asyncio.run(main())
