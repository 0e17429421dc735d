"""The Nexus service `bellwire`: workflows of another namespace publish events and wait for them."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, NexusOperationError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bellwire import Client, Event, KeyRing, Receipt, Status, contract
from bellwire.keys.keyring import new_entry
from bellwire.nexus import BellwireService, EventInput, WaitInput
from bellwire.nexus.handler import nexus_handlers
from starter.checkout import CHECKOUT
from starter.operations.platform.nexus import create_nexus_endpoint
from starter.operations.problems import OperationError
from tests.acceptance.conftest import System

ENDPOINT, NAMESPACE, QUEUE = "bellwire-tests", "shop", "shop"
LIMIT = timedelta(seconds=60)


@workflow.defn
class PublishFromShop:
    """A workflow of a service: it publishes an event as a step of its own, and may wait for it."""

    @workflow.run
    async def run(self, event: EventInput, wait_seconds: float | None) -> Status | Receipt:
        bellwire = workflow.create_nexus_client(service=BellwireService, endpoint=ENDPOINT)
        receipt = await bellwire.execute_operation(BellwireService.publish, event, schedule_to_close_timeout=LIMIT)
        if wait_seconds is None:
            return receipt
        return await bellwire.execute_operation(
            BellwireService.wait, WaitInput.of(receipt, timeout=wait_seconds), schedule_to_close_timeout=LIMIT
        )


@workflow.defn
class CallByNames:
    """What a workflow in another language does: names and JSON, without the models."""

    @workflow.run
    async def run(self, operation: str, content: dict[str, Any], endpoint: str) -> dict[str, Any]:
        bellwire = workflow.create_nexus_client(service="bellwire", endpoint=endpoint)
        result: dict[str, Any] = await bellwire.execute_operation(
            operation, content, output_type=dict[str, Any], schedule_to_close_timeout=LIMIT
        )
        return result


@dataclass
class Shop:
    """A service in a namespace of its own."""

    temporal: Temporal

    async def publish(self, event: EventInput, wait_seconds: float | None = None) -> Any:
        result_type: type = Receipt if wait_seconds is None else Status
        return await self.temporal.execute_workflow(
            "PublishFromShop",
            args=[event, wait_seconds],
            id=f"publish-{uuid.uuid4()}",
            task_queue=QUEUE,
            result_type=result_type,
        )

    async def call(self, operation: str, content: dict[str, Any]) -> dict[str, Any]:
        return await self.temporal.execute_workflow(
            CallByNames.run, args=[operation, content, ENDPOINT], id=f"call-{uuid.uuid4()}", task_queue=QUEUE
        )

    async def refused(self, operation: str, content: dict[str, Any]) -> ApplicationError:
        """The innermost error with which an operation failed."""
        with pytest.raises(WorkflowFailureError) as failed:
            await self.call(operation, content)
        assert isinstance(failed.value.cause, NexusOperationError)
        error: BaseException | None = failed.value.cause
        while error and error.__cause__:
            error = error.__cause__
        assert isinstance(error, ApplicationError)
        return error


@asynccontextmanager
async def _namespace(system: System) -> AsyncIterator[Temporal]:
    service = system.client.temporal.workflow_service
    retention = Duration(seconds=86_400)
    await service.register_namespace(
        RegisterNamespaceRequest(namespace=NAMESPACE, workflow_execution_retention_period=retention)
    )
    address = system.client.temporal.service_client.config.target_host
    async with asyncio.timeout(30):
        while True:
            try:
                await service.describe_namespace(DescribeNamespaceRequest(namespace=NAMESPACE))
                break
            except RPCError:
                await asyncio.sleep(0.1)
    yield await Temporal.connect(address, namespace=NAMESPACE, data_converter=pydantic_data_converter)


@pytest.fixture(scope="module")
async def shop(system: System) -> AsyncIterator[Shop]:
    created = await create_nexus_endpoint(system.client.temporal, ENDPOINT)
    assert created.created
    async with _namespace(system) as temporal:
        worker = Worker(
            temporal,
            task_queue=QUEUE,
            workflows=[PublishFromShop, CallByNames],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        async with worker:
            yield Shop(temporal)


async def test_a_workflow_of_another_namespace_publishes_and_waits_for_its_event(system: System, shop: Shop) -> None:
    await system.hook("/nexus", "nexus.paid")
    event = EventInput(source="/shop", type="nexus.paid", data={"order": "42"}, subject="42")
    status: Status = await shop.publish(event, wait_seconds=30)
    assert (status.settled, status.counts.delivered) == (True, 1)
    (posted,) = [item for item in system.hooks.received if item.path == "/nexus"]
    assert posted.event["data"] == {"order": "42"}
    assert (posted.event["id"], posted.event["subject"]) == (status.id, "42")


async def test_publishing_the_same_id_again_is_a_duplicate(system: System, shop: Shop) -> None:
    event = EventInput.of(Event(source="/shop", id="nexus-1", type="nexus.once", data={"order": "42"}))
    first, again = await shop.publish(event), await shop.publish(event)
    assert [first.duplicate, again.duplicate] == [False, True]
    assert first.workflow_id == again.workflow_id
    assert (await system.client.status(("/shop", "nexus-1"))).counts.matched == 0


async def test_an_event_without_an_id_gets_one_and_two_operations_publish_two(shop: Shop) -> None:
    event = EventInput(source="/shop", type="nexus.anonymous")
    first, second = await shop.publish(event), await shop.publish(event)
    assert first.event_id != second.event_id
    assert first.event_id.startswith("nexus-")


async def test_a_wait_with_a_timeout_completes_with_what_is_unsettled(system: System, shop: Shop) -> None:
    system.hooks.script("/nexus-down", 503, repeat=True)
    await system.hook("/nexus-down", "nexus.down")
    status: Status = await shop.publish(EventInput(source="/shop", type="nexus.down"), wait_seconds=1)
    assert not status.settled
    assert status.unsettled[0].reason == "HTTP 503"


@pytest.mark.slow
async def test_a_wait_goes_on_after_a_retry(system: System, shop: Shop) -> None:
    system.hooks.script("/nexus-recovers", 503)
    await system.hook("/nexus-recovers", "nexus.recovers", retry_schedule=[11])  # longer than one activity waits
    status: Status = await shop.publish(EventInput(source="/shop", type="nexus.recovers"), wait_seconds=50)
    assert (status.settled, status.counts.delivered) == (True, 1)


async def test_other_languages_call_it_by_names_and_json(shop: Shop) -> None:
    content = {"specversion": "1.0", "source": "/shop", "type": "nexus.json", "id": "json-1", "traceparent": "00-1"}
    receipt = await shop.call("publish", content)
    assert (receipt["source"], receipt["event_id"], receipt["duplicate"]) == ("/shop", "json-1", False)
    status = await shop.call("wait", receipt)
    assert (status["settled"], status["counts"]["matched"]) == (True, 0)


async def test_an_invalid_event_a_conflict_and_an_unknown_event_fail_the_operation_with_a_clear_text(
    shop: Shop,
) -> None:
    invalid = await shop.refused("publish", {"source": "/shop", "type": "", "time": "noon"})
    assert (invalid.type, invalid.non_retryable) == ("EventInvalid", True)
    assert "type: must have at least 1 character" in invalid.message
    assert "time: " in invalid.message
    await shop.call("publish", {"source": "/shop", "type": "nexus.conflict", "id": "conflict-1"})
    conflict = await shop.refused("publish", {"source": "/shop", "type": "nexus.other", "id": "conflict-1"})
    assert (conflict.type, conflict.non_retryable) == ("EventConflict", True)
    unknown = await shop.refused("wait", {"source": "/shop", "event_id": "never"})
    assert (unknown.type, unknown.non_retryable) == ("EventNotFound", True)
    missing = await shop.refused("publish", {"source": "/shop"})
    assert "type" in missing.message


async def test_setup_creates_an_endpoint(system: System) -> None:
    made = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "starter", "setup", "--nexus-endpoint", "made-by-setup", "--json"),
            cwd=CHECKOUT,
            env={**os.environ, **system.variables},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        made.append(json.loads(printed)["nexus_endpoint"])
    assert made == [{"name": "made-by-setup", "namespace": "default", "created": created} for created in (True, False)]


async def test_an_endpoint_is_created_once_and_one_that_leads_elsewhere_is_refused(system: System, shop: Shop) -> None:
    again = await create_nexus_endpoint(system.client.temporal, ENDPOINT)
    assert (again.name, again.created) == (ENDPOINT, False)
    with pytest.raises(OperationError, match="exists and leads to namespace default, queue bellwire"):
        await create_nexus_endpoint(shop.temporal, ENDPOINT)
    with pytest.raises(OperationError, match="cannot be created"):
        await create_nexus_endpoint(system.client.temporal, "not a name")


async def test_with_the_same_keys_on_both_sides_histories_hold_no_plain_data(dev_server: WorkflowEnvironment) -> None:
    endpoint, ring = "bellwire-sealed", KeyRing.parse(new_entry("k1"))
    address = dev_server.client.service_client.config.target_host
    temporal = (await Client.connect(target_host=address, keys=ring)).temporal
    await create_nexus_endpoint(temporal, endpoint)
    served = Worker(temporal, task_queue=contract.QUEUE, nexus_service_handlers=await nexus_handlers(temporal))
    caller = Worker(temporal, task_queue=QUEUE, workflows=[CallByNames], workflow_runner=UnsandboxedWorkflowRunner())
    async with served, caller:
        content = {"source": "/shop", "type": "nexus.sealed", "data": "a secret of ann@example.com"}
        for event_type, fails in (("nexus.sealed", False), ("", True)):
            arguments = ["publish", {**content, "type": event_type}, endpoint]
            handle = await temporal.start_workflow(
                CallByNames.run, args=arguments, id=f"sealed-{uuid.uuid4()}", task_queue=QUEUE
            )
            if fails:
                with pytest.raises(WorkflowFailureError):
                    await handle.result()
            else:
                receipt = await handle.result()
                assert receipt["source"] == "/shop"
            history = (await handle.fetch_history()).to_json()
            assert "ann@example.com" not in history
            assert "must have at least" not in history
