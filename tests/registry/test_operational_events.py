"""Publishing the operational events of the registry, with a real Temporal and through outages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire.client import Client
from bellwire.errors import TemporalUnavailable
from bellwire.events import Event
from bellwire.registry import Registry, operational_events
from bellwire.registry.db.engine import Database
from bellwire.service.operational_events import BATCH_SIZE, publish_batch, publishing_operational_events
from bellwire.temporal.connection import connect
from bellwire.temporal.publications import Publication
from tests.factories import event, subscription
from tests.proxy import Proxy
from tests.registry.conftest import execute_sql

Logs = list[Any]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.at(f"sqlite:///{tmp_path}/registry.db", pool=2)
    yield opened
    await opened.close()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    opened = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await opened.migrate()
    for tenant in ("acme", "globex"):
        await opened.subscriptions.create(subscription(tenant=tenant, types=["bellwire.*"]))
    yield opened
    await opened.close()


def new_events(number: int = 1, *, tenant: str = "acme") -> list[Event]:
    new = (
        event(source="bellwire", type="bellwire.subscription.disabled", subject="sub", tenant=tenant)
        for _ in range(number)
    )
    return sorted(new, key=lambda one: one.id)


async def started(client: Client, *events: Event) -> bool:
    """Whether Temporal has a run of these events together."""
    handle = client.temporal.get_workflow_handle(Publication(events=events).workflow_id)
    return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not fact():
            await asyncio.sleep(0.01)


async def emptied(registry: Registry) -> None:
    async with asyncio.timeout(60):
        while await registry.operational_events.list():
            await asyncio.sleep(0.01)


async def test_an_event_that_matches_no_subscription_is_deleted_and_not_published(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    mine = {"exact": {"subject": "mine"}}
    await registry.subscriptions.create(subscription(tenant="initech", types=["bellwire.*"], filters=[mine]))
    client, (unsubscribed,) = Client(dev_server.client), new_events(tenant="hooli")
    kept, *others = (
        event(source="bellwire", type="bellwire.subscription.disabled", subject=subject, tenant="initech")
        for subject in ("mine", "yours", "theirs")
    )
    await database.write(operational_events.add, [*others, kept, unsubscribed])
    with capture_logs() as logs:
        assert await publish_batch(registry, client) == 4
    assert [line["event_id"] for line in logs] == [kept.id]
    assert await started(client, kept)
    assert await registry.operational_events.list() == []


async def test_events_are_published_and_deleted_those_of_a_tenant_in_one_run(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, events, (other,) = Client(dev_server.client), new_events(3), new_events(tenant="globex")
    await database.write(operational_events.add, [*events, other])
    assert await publish_batch(registry, client) == 4
    assert await started(client, *events)
    assert await started(client, other)
    assert await registry.operational_events.list() == []
    assert await publish_batch(registry, client) == 0


async def test_publishing_an_event_twice_starts_one_run(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, (one,) = Client(dev_server.client), new_events()
    await database.write(operational_events.add, [one])
    # As by a worker that was killed before it deleted the event.
    await client.publish((await registry.operational_events.list())[0])
    assert await publish_batch(registry, client) == 1
    assert await registry.operational_events.list() == []
    assert (await client.publish(one)).duplicate


async def test_an_event_whose_id_is_taken_does_not_block_the_others(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, (first,), (second,) = Client(dev_server.client), new_events(tenant="globex"), new_events()
    await client.publish(event(source="bellwire", id=first.id, type="other"))
    await database.write(operational_events.add, [first, second])
    with capture_logs() as logs:
        assert await publish_batch(registry, client) == 2
    assert {log["event"] for log in logs} == {"operational_event.conflict", "operational_event.published"}
    (published,) = [log for log in logs if log["event"] == "operational_event.published"]
    assert (published["event_id"], published["event_type"]) == (second.id, second.type)
    assert await started(client, second)
    assert await registry.operational_events.list() == []


async def test_publishing_continues_after_an_outage_of_the_registry(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    await execute_sql(database, "ALTER TABLE operational_events RENAME TO renamed")
    with capture_logs() as logs:
        async with publishing_operational_events(registry, Client(dev_server.client), every=0.01):
            await until(lambda: len(logs) >= 2)
            await execute_sql(database, "ALTER TABLE renamed RENAME TO operational_events")
            events = new_events(BATCH_SIZE + 5)
            await database.write(operational_events.add, events)
            await emptied(registry)
    assert {log["error"] for log in logs if log["event"] == "operational_events.delayed"} == {"NotSetUp"}
    assert await started(Client(dev_server.client), *events[BATCH_SIZE:])


async def test_an_outage_of_temporal_loses_no_event(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    address = dev_server.client.service_client.config.target_host
    async with Proxy.to_port(address) as proxy:
        client = Client(await connect(target_host=proxy.address, namespace=dev_server.client.namespace))
        await proxy.close()
        (one,) = new_events()
        await database.write(operational_events.add, [one])
        with pytest.raises(TemporalUnavailable):
            await publish_batch(registry, client)
        assert await registry.operational_events.list() == [one]
        await proxy.open()
        async with publishing_operational_events(registry, client, every=0.05):
            await emptied(registry)
    assert await started(Client(dev_server.client), one)


async def test_publishing_ends_with_the_body(registry: Registry, dev_server: WorkflowEnvironment) -> None:
    before = asyncio.all_tasks()
    async with publishing_operational_events(registry, Client(dev_server.client)):
        assert asyncio.all_tasks() - before
    assert asyncio.all_tasks() == before
