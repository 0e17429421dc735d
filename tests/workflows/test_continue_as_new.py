"""Continue-as-new, on a server that suggests it early: no delivery is lost or repeated."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Receipt
from bellwire.targets import Channel
from tests.conftest import start_dev_server
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, Response, deferred, retry_after


@pytest.fixture(scope="module")
async def short_histories() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server that suggests to continue as new after 40 events instead of 4,096."""
    async with await start_dev_server(limit__historyCount__suggestContinueAsNew=40) as env:
        yield env


async def runs_of(client: Client, workflow_id: str) -> list[WorkflowExecutionStatus | None]:
    """The statuses of all runs of a workflow id, once the search shows one that has completed."""
    async with asyncio.timeout(60):
        while True:
            query = f"WorkflowId = '{workflow_id}'"
            found = [each.status async for each in client.temporal.list_workflows(query)]
            if WorkflowExecutionStatus.COMPLETED in found:
                return found
            await asyncio.sleep(0.1)


async def settled(client: Client, receipt: Receipt) -> None:
    status = await client.wait(receipt, timeout=60)
    assert status.settled


def failures_of(number: int) -> int:
    """Up to six failed attempts, so that deliveries settle in different runs."""
    return number % 7


@pytest.mark.slow
async def test_a_workflow_that_continues_as_new_loses_no_delivery(short_histories: WorkflowEnvironment) -> None:
    platform = FakePlatform(short_histories)
    failures = {f"s{number:03}": failures_of(number) for number in range(60)}
    platform.subscriptions = {Channel.WEBHOOK: list(failures)[:40], Channel.EMAIL: list(failures)[40:]}

    def respond(subscription_id: str, attempt: int) -> Response:
        failed = failures[subscription_id]
        return deferred(0.7 + failed / 5) if attempt <= failed else DELIVERED

    platform.respond = respond
    async with platform.running():
        client = Client(short_histories.client)
        receipt = await client.publish(event())
        await settled(client, receipt)
        status = await client.status(receipt)
        runs = await runs_of(client, receipt.workflow_id)
    assert runs.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) >= 1
    assert (status.counts.matched, status.counts.delivered) == (60, 60)
    attempts = Counter(each for each, _, _ in platform.attempts)
    assert attempts == {each: failed + 1 for each, failed in failures.items()}


@pytest.mark.slow
async def test_a_page_that_continues_as_new_reports_to_its_parent(short_histories: WorkflowEnvironment) -> None:
    platform = FakePlatform(short_histories)
    ids = [f"s{number:04}" for number in range(1_010)]
    failures = {"s0003": 6, "s0900": 9, "s1009": 3}
    platform.subscriptions = {Channel.WEBHOOK: ids}
    platform.respond = lambda each, attempt: retry_after(0.5) if attempt <= failures.get(each, 0) else DELIVERED
    async with platform.running():
        client = Client(short_histories.client)
        receipt = await client.publish(event())
        await settled(client, receipt)
        status = await client.status(receipt)
        first_page = await runs_of(client, f"{receipt.workflow_id}#page-1")
    assert first_page.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) >= 1
    assert status.counts.delivered == len(ids)
    assert Counter(each for each, _, _ in platform.attempts)["s0900"] == 10
