"""Temporal that is slow, stalls or is cut off: publishing slows down or fails clearly, and what it said it has, it has."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import Interceptor, OutboundInterceptor, StartWorkflowInput, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, Event, Receipt
from bellwire.client import CONCURRENCY, START_TIMEOUT
from bellwire.contract import MAX_EVENTS, event_workflow_id
from bellwire.errors import TemporalUnavailable
from bellwire.temporal.connection import connect
from tests.conftest import start_dev_server
from tests.factories import event
from tests.proxy import Proxy

#: Seconds after which publishing to a Temporal that stalls has failed, with a second for this machine.
FAILED_AFTER = START_TIMEOUT.total_seconds() + 1.0


class Counting(Interceptor):
    """Counts the calls that start runs."""

    def __init__(self) -> None:
        #: Calls so far, those under way, and the most at one time.
        self.calls = self.open = self.most = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - temporalio's name
        return _Counted(next, self)


class _Counted(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, count: Counting) -> None:  # noqa: A002
        super().__init__(next)
        self._count = count

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        self._count.calls += 1
        self._count.open += 1
        self._count.most = max(self._count.most, self._count.open)
        try:
            return await super().start_workflow(input)
        finally:
            self._count.open -= 1


@asynccontextmanager
async def way_to(env: WorkflowEnvironment) -> AsyncIterator[tuple[Proxy, Client, Counting]]:
    """A client whose calls go through a proxy, and are counted."""
    counting = Counting()
    async with Proxy.to_port(env.client.service_client.config.target_host) as proxy:
        temporal = await connect(target_host=proxy.address, tls=False, api_key=None, interceptors=[counting])
        yield proxy, Client(temporal), counting


async def insist(publish: Callable[[], Any]) -> Any:
    """Publish the same again until Temporal has it, as a service would."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await publish()
            except TemporalUnavailable:
                await asyncio.sleep(0.05)


async def assert_started(env: WorkflowEnvironment, receipts: Sequence[Receipt]) -> None:
    """Every receipt's run exists; asked of the server itself, not by the way that was cut."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def look(run: str) -> str:
        async with slots:
            return (await env.client.get_workflow_handle(run).describe()).id

    runs = {receipt.workflow_id for receipt in receipts}
    assert set(await asyncio.gather(*map(look, runs))) == runs


async def until_started(env: WorkflowEnvironment, events: Sequence[Event]) -> None:
    """Wait until the server has the runs of events that were published one by one."""
    async with asyncio.timeout(30):
        for one in events:
            while True:
                try:
                    await env.client.get_workflow_handle(event_workflow_id(one.source, one.id)).describe()
                    break
                except RPCError:
                    await asyncio.sleep(0.02)


async def test_publishing_waits_out_a_short_stall_and_nothing_is_dropped(dev_server: WorkflowEnvironment) -> None:
    async with way_to(dev_server) as (proxy, client, _):
        singles, batch = [event() for _ in range(30)], [event() for _ in range(250)]
        proxy.stall()
        began = time.perf_counter()
        ones_and_many = asyncio.gather(asyncio.gather(*map(client.publish, singles)), client.publish_many(batch))
        await proxy.until_request()
        await asyncio.wait([ones_and_many], timeout=1.0)
        assert not ones_and_many.done(), "published while nothing got through"
        proxy.resume()
        ones, many = await ones_and_many
        assert time.perf_counter() - began < FAILED_AFTER
        assert [receipt.event_id for receipt in (*ones, *many)] == [one.id for one in (*singles, *batch)]
        assert not any(receipt.duplicate for receipt in (*ones, *many))
        await assert_started(dev_server, [*ones, *many])


async def test_a_slow_temporal_slows_publishing_down_and_few_calls_are_under_way(
    dev_server: WorkflowEnvironment,
) -> None:
    async with way_to(dev_server) as (proxy, client, counting):
        proxy.delay = 0.1
        events = [event() for _ in range(CONCURRENCY * MAX_EVENTS + 1)]
        began = time.perf_counter()
        receipts = await client.publish_many(events)
        assert time.perf_counter() - began >= 2 * 2 * proxy.delay, "20 calls, then one more, each there and back"
        assert (counting.calls, counting.most) == (CONCURRENCY + 1, CONCURRENCY)
        proxy.delay = 0.0
        await assert_started(dev_server, receipts)


@pytest.mark.parametrize("lost", ["question", "answer"])
async def test_a_call_that_is_cut_off_is_made_again_and_starts_one_run(
    dev_server: WorkflowEnvironment, lost: str
) -> None:
    async with way_to(dev_server) as (proxy, client, _):
        events = [event() for _ in range(10)]
        proxy.stall(requests=lost == "question")
        publishing = [asyncio.create_task(client.publish(one)) for one in events]
        await proxy.until_request()
        if lost == "answer":
            await until_started(dev_server, events)
        await proxy.cut()
        proxy.resume()
        receipts = await asyncio.gather(*publishing)
        assert not any(receipt.duplicate for receipt in receipts), "a run of this call was taken for another's"
        await assert_started(dev_server, receipts)


@pytest.mark.slow
async def test_a_stall_that_lasts_fails_in_time_and_publishing_again_is_safe(dev_server: WorkflowEnvironment) -> None:
    async with way_to(dev_server) as (proxy, client, counting):
        one, many = event(), [event() for _ in range(2 * CONCURRENCY * MAX_EVENTS)]
        half = [event() for _ in range(5)]
        before = await client.publish_many(half)
        proxy.stall()
        began, calls = time.perf_counter(), counting.calls
        outcomes = await asyncio.gather(client.publish(one), client.publish_many(many), return_exceptions=True)
        assert time.perf_counter() - began < FAILED_AFTER
        assert [type(outcome) for outcome in outcomes] == [TemporalUnavailable, TemporalUnavailable]
        assert "try again (the same ids are safe)" in str(outcomes[0])
        assert counting.calls == calls + 1 + CONCURRENCY, "calls were begun although Temporal did not answer"
        proxy.resume()  # what was held back arrives now: events whose publisher has given up
        receipts = [await client.publish(one), *await client.publish_many(many), *await client.publish_many(half)]
        assert [receipt.event_id for receipt in receipts] == [event.id for event in (one, *many, *half)]
        assert {receipt.workflow_id for receipt in before} <= {receipt.workflow_id for receipt in receipts}
        await assert_started(dev_server, receipts)


@pytest.mark.slow
async def test_a_temporal_that_is_away_fails_in_time_and_takes_it_afterwards(dev_server: WorkflowEnvironment) -> None:
    async with way_to(dev_server) as (proxy, client, _):
        one = event()
        await client.publish(event())
        await proxy.close()
        began = time.perf_counter()
        with pytest.raises(TemporalUnavailable, match="check TEMPORAL_ADDRESS"):
            await client.publish(one)
        assert time.perf_counter() - began < 2 * START_TIMEOUT.total_seconds()
        await proxy.open()
        receipt = await client.publish(one)
        assert not receipt.duplicate
        await assert_started(dev_server, [receipt])


@pytest.mark.slow
async def test_connections_that_break_again_and_again_are_told_as_temporal_being_away(
    dev_server: WorkflowEnvironment,
) -> None:
    async with way_to(dev_server) as (proxy, client, _):
        await proxy.close()

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.05)
            writer.transport.abort()

        async with await asyncio.start_server(hang_up, "127.0.0.1", proxy.port):
            with pytest.raises(TemporalUnavailable, match="check TEMPORAL_ADDRESS"):
                await client.publish(event())
        await proxy.open()
        await client.publish(event())


@pytest.mark.slow
async def test_a_server_that_admits_few_requests_slows_publishing_down_and_nothing_is_dropped() -> None:
    async with await start_dev_server(frontend__namespaceRPS=30) as env:
        client, events = Client(env.client), [event() for _ in range(100)]

        async def one(made: Event) -> Receipt:
            receipt: Receipt = await insist(lambda: client.publish(made))
            return receipt

        began = time.perf_counter()
        receipts = await asyncio.gather(*map(one, events))
        assert time.perf_counter() - began > 2.0, "the server did not hold anything back"
        assert [receipt.event_id for receipt in receipts] == [made.id for made in events]
        for receipt in receipts:
            await env.client.get_workflow_handle(receipt.workflow_id).describe()
