"""Temporal is slow, stalls or is cut off: publishing slows down or fails with an error, and no receipt is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Interceptor, OutboundInterceptor, StartWorkflowInput, WorkflowHandle
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig
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


class Counting(Interceptor):
    """Counts the calls that start runs."""

    def __init__(self) -> None:
        #: Calls so far, those in flight, and the maximum at one time.
        self.calls = self.open = self.max_open = 0
        self.timeouts: set[timedelta | None] = set()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - temporalio's name
        return _Counted(next, self)


class _Counted(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, count: Counting) -> None:  # noqa: A002
        super().__init__(next)
        self._count = count

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        self._count.calls += 1
        self._count.open += 1
        self._count.max_open = max(self._count.max_open, self._count.open)
        self._count.timeouts.add(input.rpc_timeout)
        try:
            return await super().start_workflow(input)
        finally:
            self._count.open -= 1


@asynccontextmanager
async def proxied_client(env: WorkflowEnvironment) -> AsyncIterator[tuple[Proxy, Client, Counting]]:
    """A client whose calls are counted and go through a proxy."""
    counting = Counting()
    async with Proxy.to_port(env.client.service_client.config.target_host) as proxy:
        temporal = await connect(target_host=proxy.address, tls=False, api_key=None, interceptors=[counting])
        yield proxy, Client(temporal, batching=False), counting


async def insist(publish: Callable[[], Any]) -> Any:
    """Publish again until Temporal accepts it, as a service would."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await publish()
            except TemporalUnavailable:
                await asyncio.sleep(0.05)


async def assert_started(env: WorkflowEnvironment, receipts: Sequence[Receipt]) -> None:
    """Every receipt's run exists, according to the server itself and not through the proxy."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def existing(workflow_id: str) -> str:
        async with slots:
            return (await env.client.get_workflow_handle(workflow_id).describe()).id

    workflow_ids = {receipt.workflow_id for receipt in receipts}
    assert set(await asyncio.gather(*map(existing, workflow_ids))) == workflow_ids


async def until_started(env: WorkflowEnvironment, events: Sequence[Event]) -> None:
    """Wait until the server has the runs of events that are published one by one."""
    async with asyncio.timeout(30):
        for one in events:
            while True:
                try:
                    await env.client.get_workflow_handle(event_workflow_id(one.source, one.id)).describe()
                    break
                except RPCError:
                    await asyncio.sleep(0.02)


async def test_publishing_survives_a_short_stall(dev_server: WorkflowEnvironment) -> None:
    async with proxied_client(dev_server) as (proxy, client, _):
        singles, batch = [event() for _ in range(30)], [event() for _ in range(250)]
        proxy.stall()
        ones_and_many = asyncio.gather(asyncio.gather(*map(client.publish, singles)), client.publish_many(batch))
        await proxy.until_request()
        await asyncio.wait([ones_and_many], timeout=1.0)
        assert not ones_and_many.done(), "published during the stall"
        proxy.resume()
        ones, many = await ones_and_many
        assert [receipt.event_id for receipt in (*ones, *many)] == [one.id for one in (*singles, *batch)]
        assert not any(receipt.duplicate for receipt in (*ones, *many))
        await assert_started(dev_server, [*ones, *many])


async def test_a_slow_temporal_slows_publishing_down_and_limits_the_calls_in_flight(
    dev_server: WorkflowEnvironment,
) -> None:
    async with proxied_client(dev_server) as (proxy, client, counting):
        proxy.delay = 0.1
        events = [event() for _ in range(CONCURRENCY * MAX_EVENTS + 1)]
        receipts = await client.publish_many(events)
        assert (counting.calls, counting.max_open) == (CONCURRENCY + 1, CONCURRENCY), "the last call waited for another"
        proxy.delay = 0.0
        await assert_started(dev_server, receipts)


@pytest.mark.parametrize("lost", ["request", "response"])
async def test_a_call_that_is_cut_off_is_repeated_and_starts_one_run(
    dev_server: WorkflowEnvironment, lost: str
) -> None:
    async with proxied_client(dev_server) as (proxy, client, _):
        events = [event() for _ in range(10)]
        proxy.stall(requests=lost == "request")
        publishing = [asyncio.create_task(client.publish(one)) for one in events]
        await proxy.until_request()
        if lost == "response":
            await until_started(dev_server, events)
        await proxy.cut()
        proxy.resume()
        receipts = await asyncio.gather(*publishing)
        assert not any(receipt.duplicate for receipt in receipts), "the run of this call was treated as another's"
        await assert_started(dev_server, receipts)


@pytest.mark.slow
async def test_publishing_fails_during_a_long_stall_and_can_be_repeated(dev_server: WorkflowEnvironment) -> None:
    async with proxied_client(dev_server) as (proxy, client, counting):
        one, many = event(), [event() for _ in range(2 * CONCURRENCY * MAX_EVENTS)]
        half = [event() for _ in range(5)]
        before = await client.publish_many(half)
        proxy.stall()
        calls = counting.calls
        outcomes = await asyncio.gather(client.publish(one), client.publish_many(many), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TemporalUnavailable, TemporalUnavailable]
        assert "try again (with the same ids)" in str(outcomes[0])
        assert counting.calls == calls + 1 + CONCURRENCY, "calls were started although Temporal did not respond"
        assert counting.timeouts == {START_TIMEOUT}
        proxy.resume()  # events whose publisher has given up arrive now
        receipts = [await client.publish(one), *await client.publish_many(many), *await client.publish_many(half)]
        assert [receipt.event_id for receipt in receipts] == [event.id for event in (one, *many, *half)]
        assert {receipt.workflow_id for receipt in before} <= {receipt.workflow_id for receipt in receipts}
        await assert_started(dev_server, receipts)


@pytest.mark.slow
async def test_publishing_fails_while_temporal_is_down_and_works_afterwards(dev_server: WorkflowEnvironment) -> None:
    async with proxied_client(dev_server) as (proxy, client, counting):
        one = event()
        await client.publish(event())
        await proxy.close()
        with pytest.raises(TemporalUnavailable, match="check TEMPORAL_ADDRESS"):
            await client.publish(one)
        assert counting.timeouts == {START_TIMEOUT}
        await proxy.open()
        receipt = await client.publish(one)
        assert not receipt.duplicate
        await assert_started(dev_server, [receipt])


@pytest.mark.slow
async def test_connections_that_keep_breaking_are_reported_as_temporal_being_unavailable(
    dev_server: WorkflowEnvironment,
) -> None:
    async with proxied_client(dev_server) as (proxy, client, _):
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
async def test_publishing_survives_the_rate_limit_of_a_server() -> None:
    async with await start_dev_server(frontend__namespaceRPS=10) as env:
        metrics = MetricBuffer(10_000)
        runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics))
        address = env.client.service_client.config.target_host
        # One start for each event.
        client = Client(await connect(target_host=address, tls=False, api_key=None, runtime=runtime), batching=False)
        events = [event() for _ in range(100)]

        async def one(published: Event) -> Receipt:
            receipt: Receipt = await insist(lambda: client.publish(published))
            return receipt

        receipts = await asyncio.gather(*map(one, events))
        requests = [
            update
            for update in metrics.retrieve_updates()
            if update.metric.name == "temporal_request" and update.attributes["operation"] == "StartWorkflowExecution"
        ]
        assert len(requests) > len(events), "the server refused nothing"
        assert [receipt.event_id for receipt in receipts] == [published.id for published in events]
        for receipt in receipts:
            await env.client.get_workflow_handle(receipt.workflow_id).describe()
