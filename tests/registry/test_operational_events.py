"""Publishing what the registry holds for tenants, to a real Temporal and through its outages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire.client import Client
from bellwire.contract import event_workflow_id
from bellwire.errors import TemporalUnavailable
from bellwire.events import Event
from bellwire.registry import Registry, operational_events
from bellwire.registry.db.engine import Database
from bellwire.service.operational_events import AT_A_TIME, claim_attempt, publishing_operational_events
from bellwire.temporal.connection import connect
from tests.factories import event
from tests.proxy import Proxy

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
    yield opened
    await opened.close()


def news(number: int = 1) -> list[Event]:
    return [event(source="bellwire", type="bellwire.subscription.disabled", subject="sub") for _ in range(number)]


async def execute(database: Database, statement: str) -> None:
    async def run(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(statement)

    await database.write(run)


async def started(client: Client, one: Event) -> bool:
    """Whether Temporal has a run of the event."""
    handle = client.temporal.get_workflow_handle(event_workflow_id(one.source, one.id))
    return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.01)


async def emptied(registry: Registry) -> None:
    async with asyncio.timeout(30):
        while await registry.operational_events.list():
            await asyncio.sleep(0.01)


async def test_what_is_waiting_is_published_and_forgotten(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, told = Client(dev_server.client), news(3)
    await database.write(operational_events.add, told)
    assert await claim_attempt(registry, client) == 3
    assert [await started(client, one) for one in told] == [True] * 3
    assert await registry.operational_events.list() == []
    assert await claim_attempt(registry, client) == 0


async def test_published_twice_it_is_one_event(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, (told,) = Client(dev_server.client), news()
    await database.write(operational_events.add, [told])
    # As by a worker that died before it could forget it.
    await client.publish((await registry.operational_events.list())[0])
    assert await claim_attempt(registry, client) == 1
    assert await registry.operational_events.list() == []
    assert (await client.publish(told)).duplicate


async def test_an_id_that_somebody_else_has_used_does_not_hold_up_the_others(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    client, (first, second) = Client(dev_server.client), sorted(news(2), key=lambda one: one.id)
    await client.publish(event(source="bellwire", id=first.id, type="other"))
    await database.write(operational_events.add, [first, second])
    with capture_logs() as logs:
        assert await claim_attempt(registry, client) == 2
    assert [log["event"] for log in logs] == ["announcement.in_conflict", "announcement.published"]
    assert await started(client, second)
    assert await registry.operational_events.list() == []


async def test_while_the_registry_is_away_the_loop_goes_on(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    await execute(database, "ALTER TABLE announcements RENAME TO away")
    with capture_logs() as logs:
        async with publishing_operational_events(registry, Client(dev_server.client), every=0.01):
            await until(lambda: len(logs) >= 2)
            await execute(database, "ALTER TABLE away RENAME TO announcements")
            told = news(AT_A_TIME + 5)
            await database.write(operational_events.add, told)
            await emptied(registry)
    assert {log["error"] for log in logs if log["event"] == "operational_events.delayed"} == {"NotSetUp"}
    assert await started(Client(dev_server.client), told[-1])


async def test_while_temporal_is_away_nothing_is_lost(
    registry: Registry, database: Database, dev_server: WorkflowEnvironment
) -> None:
    address = dev_server.client.service_client.config.target_host
    async with Proxy.to_port(address) as proxy:
        client = Client(await connect(target_host=proxy.address, namespace=dev_server.client.namespace))
        await proxy.close()
        (told,) = news()
        await database.write(operational_events.add, [told])
        with pytest.raises(TemporalUnavailable):
            await claim_attempt(registry, client)
        assert await registry.operational_events.list() == [told]
        await proxy.open()
        async with publishing_operational_events(registry, client, every=0.05):
            await emptied(registry)
    assert await started(Client(dev_server.client), told)


async def test_it_ends_with_its_body(registry: Registry, dev_server: WorkflowEnvironment) -> None:
    before = asyncio.all_tasks()
    async with publishing_operational_events(registry, Client(dev_server.client)):
        assert asyncio.all_tasks() - before
    assert asyncio.all_tasks() == before
