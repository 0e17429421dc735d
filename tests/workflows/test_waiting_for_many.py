"""Waiting for many events: one question for all events of a publication, however many wait."""

import asyncio
from collections import Counter
from typing import Any
from unittest.mock import Mock

import pytest
from temporalio.client import Client as Temporal
from temporalio.client import Interceptor, OutboundInterceptor, QueryWorkflowInput
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, EventConflict, Receipt, WaitTimeout
from bellwire.contract import LookupInput, LookupResult
from bellwire.errors import WorkerUnavailable
from bellwire.targets import Channel
from bellwire.temporal import statuses as asked
from tests.conftest import start_dev_server
from tests.factories import event
from tests.workflows.platform import DELIVERED, FakePlatform, retry_after
from tests.workflows.waiting import until, until_idle


class Counting(Interceptor):
    """Counts a client's queries and long polls."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        calls = self.calls

        class Outbound(OutboundInterceptor):
            async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
                calls["query"] += 1
                return await super().query_workflow(input)

            def fetch_workflow_history_events(self, input: Any) -> Any:  # noqa: A002
                calls["history"] += 1
                return super().fetch_workflow_history_events(input)

        return Outbound(next)


def counted(client: Client, *, batching: bool = True) -> tuple[Client, Counter[str]]:
    """The same client, with its calls counted."""
    counting = Counting()
    config = client.temporal.config()
    config["interceptors"] = [counting]
    return Client(Temporal(**config), batching=batching), counting.calls


async def test_the_events_of_a_publication_are_one_question(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    client, calls = counted(client)
    receipts = await client.publish_many(event() for _ in range(100))
    statuses = await client.wait_many(receipts, timeout=60)
    assert [status.id for status in statuses] == [receipt.event_id for receipt in receipts]
    assert all(status.settled and status.counts.delivered == 1 for status in statuses)
    assert calls["history"] <= 2
    assert calls["query"] <= 10


@pytest.mark.slow
async def test_a_thousand_waits_at_once_share_their_calls(platform: FakePlatform, client: Client) -> None:
    client, calls = counted(client)
    receipts = await client.publish_many(event() for _ in range(1000))
    statuses = await asyncio.gather(*(client.wait(receipt) for receipt in receipts))
    assert all(status.settled and status.counts.matched == 0 for status in statuses)
    assert calls["history"] + calls["query"] < 500, "far less than one for each event"


async def test_lookups_ask_workers_for_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    async def run(*_: object, **options: Any) -> LookupResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return LookupResult(event_key="key", workflow_id=options["id"])

    monkeypatch.setattr(asked, "run_short", run)
    tested = asked.Statuses(Mock())
    found = await asyncio.gather(*(tested.lookup(LookupInput(source="/shop", id=str(n))) for n in range(1000)))
    assert len({each.workflow_id for each in found}) == 1000
    assert most == asked.LOOKUPS


async def test_many_waits_for_workflows_of_their_own_end_with_their_timeout(dev_server: WorkflowEnvironment) -> None:
    client, calls = counted(Client(dev_server.client), batching=False)
    started = await asyncio.gather(*(client.publish(event()) for _ in range(100)))
    waits = [client.wait(receipt, timeout=2) for receipt in started]
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(result) for result in results} == {WaitTimeout}
    assert calls["query"] == 0
    # Other tests share the server.
    await asyncio.gather(*(client.temporal.get_workflow_handle(each.workflow_id).terminate() for each in started))


async def test_an_event_is_settled_before_the_others_of_its_publication(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    one, two = event(), event()
    platform.respond = lambda *_: DELIVERED if len(platform.attempts) == 1 else retry_after(3600)
    receipts = await client.publish_many([one, two])
    await until(lambda: len(platform.attempts) == 2)
    await until_idle(client, receipts[0])
    is_settled = {receipt: (await client.status(receipt)).settled for receipt in receipts}
    settled, waiting = sorted(receipts, key=lambda receipt: not is_settled[receipt])
    assert (await client.wait(settled, timeout=60)).counts.delivered == 1
    with pytest.raises(WaitTimeout) as raised:
        await client.wait_many([waiting, settled, waiting], timeout=1)
    assert [status.settled for status in raised.value.statuses] == [False, True, False]
    await client.cancel(waiting)
    assert (await client.wait_many([waiting, settled], timeout=60))[0].counts.cancelled == 1


async def test_a_timeout_tells_what_is_known_of_each_event(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    done = await client.publish(event())
    await client.wait(done, timeout=60)
    assert (await client.wait(done, timeout=0)).counts.delivered == 1
    platform.respond = lambda *_: retry_after(3600)
    late = await client.publish(event())
    await until(lambda: len(platform.attempts) == 2)
    with pytest.raises(WaitTimeout):
        await client.wait(late, timeout=0)
    with pytest.raises(WaitTimeout, match="not settled within 1s") as raised:
        await client.wait_many([done, late], timeout=1)
    assert [status.settled for status in raised.value.statuses] == [True, False]
    assert [status.counts.matched for status in raised.value.statuses] == [1, 1]
    await client.cancel(late)


async def test_a_conflict_ends_a_wait_for_many(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    one = event()
    await client.publish_many([one, event()])
    receipts = await client.publish_many([event(id=one.id, data={"changed": True}), event()])
    with pytest.raises(EventConflict):
        await client.wait_many(receipts, timeout=60)


async def test_a_duplicate_is_waited_for_where_it_is_delivered(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    one, two = event(), event()
    alone = await client.publish(one)
    receipts = await client.publish_many([one, two])
    statuses = await client.wait_many(receipts, timeout=60)
    assert [status.workflow_id for status in statuses] == [alone.workflow_id, receipts[1].workflow_id]
    assert await client.wait_many([], timeout=60) == []


@pytest.mark.slow
async def test_a_completed_event_needs_no_worker_and_another_says_that_none_polls() -> None:
    async with await start_dev_server() as env:
        platform = FakePlatform(env)
        platform.subscriptions = {Channel.WEBHOOK: ["a"]}
        platform.respond = lambda *_: DELIVERED
        client = Client(env.client)
        nobody = Receipt(source="/shop", event_id="1", workflow_id="event//shop/1")
        with pytest.raises(WorkerUnavailable, match="No worker polls"):
            await client.status(nobody)  # Temporal does not know it, so a worker must look it up
        waiting = await client.publish(event())
        with pytest.raises(WorkerUnavailable, match="No worker polls"):
            await client.status(waiting)
        with pytest.raises(WaitTimeout, match=r"no worker polls the task queue `bellwire`; start `python worker\.py`"):
            await client.wait(waiting, timeout=0.5)
        with pytest.raises(WaitTimeout) as raised:
            await client.wait_many([waiting], timeout=0.5)
        assert raised.value.statuses == [None]
        async with platform.running():
            assert (await client.wait(waiting, timeout=60)).settled
        assert (await client.status(waiting)).settled
        (status,) = await client.wait_many([waiting], timeout=60)
        assert status.counts.delivered == 1


async def test_the_server_forgets_nobody_who_polls(dev_server: WorkflowEnvironment) -> None:
    """A running worker is never taken for one that is away: an unknown event is looked up."""
    platform = FakePlatform(dev_server)
    async with platform.running():
        client = Client(dev_server.client)
        receipt = await client.publish(event())
        assert (await client.wait(receipt, timeout=60)).settled
