"""Checking events by the catalog before they are published: by the client, by the command line, by a process of its own."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from bellwire import Client, Event
from bellwire.catalog import Catalog, NewEventType
from bellwire.errors import EventInvalid
from bellwire.registry import Registry
from starter.cli.main import main
from starter.operations.catalog.checking import PublishedTypes, deprecations_of, problems_of_events
from tests.unit.test_catalog import event_type
from tests.unit.test_cli import registry_url

__all__ = ["registry_url"]

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}}}
GOOD = Event(source="/shop", type="order.paid", data={"order": "42"})
BAD = Event(source="/shop", type="order.paid", data={"order": 42})


@pytest.mark.parametrize("batching", [True, False])
async def test_the_client_publishes_nothing_that_the_catalog_refuses(batching: bool) -> None:
    temporal = Mock()
    client = Client(temporal, batching=batching, catalog=Catalog([event_type(SCHEMA)]))
    with pytest.raises(EventInvalid, match=r'^data\.order: is not of type "string"$'):
        await client.publish(BAD)
    with pytest.raises(EventInvalid, match=r"^events\[1\]: data\.order: is not of type"):
        await client.publish_many([GOOD, BAD])
    temporal.start_workflow.assert_not_called()


@pytest.fixture
async def registry(tmp_path: Path) -> Any:
    opened = await Registry.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    await opened.migrate()
    yield opened
    await opened.close()


async def test_a_process_reads_a_type_once_and_again_when_that_is_old(registry: Registry) -> None:
    await registry.event_types.put(NewEventType.model_validate({"type": "order.paid", "schema": SCHEMA}))
    types = PublishedTypes(registry)
    assert [one.field for one in await types.problems(BAD)] == ["data.order"]
    await registry.event_types.remove("order.paid")
    assert await types.problems(BAD)
    types = PublishedTypes(registry, trust=0)
    assert not await types.problems(BAD)
    await registry.event_types.put(NewEventType.model_validate({"type": "order.paid", "schema": SCHEMA}))
    assert await types.problems(BAD)


async def test_unknown_types_are_refused_where_that_is_set(registry: Registry) -> None:
    await registry.event_types.put(NewEventType(type="order.paid"))
    refusing = PublishedTypes(registry, refuse_unknown=True)
    assert not await refusing.problems(BAD)
    other = Event(source="/shop", type="order.pade")
    found = await problems_of_events(refusing, [GOOD, other])
    assert [(one.place, one.field) for one in found] == [("event 2", "type")]
    assert not await problems_of_events(PublishedTypes(registry), [other])


def test_the_command_line_refuses_what_the_catalog_refuses(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*options: str) -> str:
        assert main(["publish", "--source", "/shop", *options]) == 2
        return capsys.readouterr().err

    within(registry_url, NewEventType.model_validate({"type": "order.paid", "schema": SCHEMA}))
    assert 'data.order: is not of type "string"' in refused("--type", "order.paid", "--data", '{"order": 42}')
    monkeypatch.setenv("BELLWIRE_UNKNOWN_TYPES", "refuse")
    assert "type: order.pade is not in the catalog" in refused("--type", "order.pade")


def within(url: str, new: NewEventType) -> None:
    async def store() -> None:
        registry = await Registry.open(url)
        await registry.event_types.put(new)
        await registry.close()

    asyncio.run(store())


OLD = event_type(SCHEMA).model_copy(update={"deprecated": "use order.settled"})


@pytest.mark.parametrize("batching", [True, False])
async def test_the_client_warns_once_of_a_deprecated_type(batching: bool, caplog: pytest.LogCaptureFixture) -> None:
    temporal = Mock()
    temporal.start_workflow = AsyncMock()
    client = Client(temporal, batching=batching, catalog=Catalog([OLD]))
    other = Event(source="/shop", type="order.other")
    receipts = [await client.publish(GOOD), *await client.publish_many([GOOD, other])]
    assert [receipt.deprecated for receipt in receipts] == ["use order.settled", "use order.settled", None]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "event type order.paid is deprecated: use order.settled"
    ]


async def test_a_process_knows_which_types_are_deprecated(registry: Registry) -> None:
    await registry.event_types.put(NewEventType(type="order.paid", deprecated="use order.settled"))
    await registry.event_types.put(NewEventType(type="order.sent"))
    types, events = (
        PublishedTypes(registry),
        [GOOD, GOOD, *(Event(source="/s", type=f"order.{n}") for n in ("sent", "x"))],
    )
    assert await deprecations_of(types, events) == {"order.paid": "use order.settled"}
