"""Runs whose history grows: a server that suggests to continue as new early shows that nothing is lost on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Receipt
from bellwire.subscriptions import Channel
from tests.conftest import start_dev_server
from tests.factories import event
from tests.workflows.platform import DELIVERED, Answer, Platform


@pytest.fixture(scope="module")
async def impatient() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server that suggests to continue as new after 40 events instead of 4,096."""
    async with await start_dev_server(limit__historyCount__suggestContinueAsNew=40) as env:
        yield env


async def runs_of(client: Client, workflow_id: str) -> list[WorkflowExecutionStatus | None]:
    """The statuses of all runs of a workflow id, once the search shows one that has ended for good."""
    async with asyncio.timeout(20):
        while True:
            query = f"WorkflowId = '{workflow_id}'"
            found = [run.status async for run in client.temporal.list_workflows(query)]
            if WorkflowExecutionStatus.COMPLETED in found:
                return found
            await asyncio.sleep(0.1)


async def settled(client: Client, receipt: Receipt) -> None:
    status = await client.wait(receipt, timeout=60)
    assert status.settled


def failing_times(number: int) -> int:
    """Up to six refusals, so that deliveries settle in different runs."""
    return number % 7


async def test_a_run_that_continues_as_new_loses_nothing(impatient: WorkflowEnvironment) -> None:
    platform = Platform(impatient)
    names = {f"s{number:03}": failing_times(number) for number in range(60)}
    platform.subscribers = {Channel.WEBHOOK: list(names)[:40], Channel.EMAIL: list(names)[40:]}

    def answer(name: str, attempt: int) -> Answer:
        return (0.7 + names[name] / 5, "HTTP 503") if attempt <= names[name] else DELIVERED

    platform.answer = answer
    async with platform.working():
        client = Client(impatient.client)
        receipt = await client.publish(event())
        await settled(client, receipt)
        status = await client.status(receipt)
        runs = await runs_of(client, receipt.workflow_id)
    assert runs.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) >= 1
    assert (status.counts.matched, status.counts.delivered) == (60, 60)
    made = Counter(name for name, _, _ in platform.attempts)
    assert made == {name: failures + 1 for name, failures in names.items()}


async def test_a_page_that_continues_as_new_reports_to_its_parent(impatient: WorkflowEnvironment) -> None:
    platform = Platform(impatient)
    names = [f"s{number:04}" for number in range(1_010)]
    stubborn = {"s0003": 6, "s0900": 9, "s1009": 3}
    platform.subscribers = {Channel.WEBHOOK: names}
    platform.answer = lambda name, attempt: (0.5, "HTTP 503", True) if attempt <= stubborn.get(name, 0) else DELIVERED
    async with platform.working():
        client = Client(impatient.client)
        receipt = await client.publish(event())
        await settled(client, receipt)
        status = await client.status(receipt)
        first_page = await runs_of(client, f"{receipt.workflow_id}/page-1")
    assert first_page.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) >= 1
    assert status.counts.delivered == len(names)
    assert Counter(name for name, _, _ in platform.attempts)["s0900"] == 10
