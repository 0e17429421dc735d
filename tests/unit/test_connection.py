"""What is wrong with the way to Temporal is one of our errors, and names the variable to look at."""

from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

import worker
from bellwire.client import Client
from bellwire.connection import check_search_attributes, connect
from bellwire.errors import TemporalUnavailable
from bellwire.registry import Registry
from bellwire.settings import SettingsInvalid
from starter.processes import free_port
from tests.factories import event


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "a b", ""])
async def test_an_address_that_leads_nowhere_is_named(address: str) -> None:
    with pytest.raises(TemporalUnavailable, match="TEMPORAL_ADDRESS"):
        await connect(target_host=address)


async def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "nope")
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_PROFILE"):
        await connect()


async def test_a_configuration_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_bytes(b"\xff = [")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    with pytest.raises(TemporalUnavailable, match="TEMPORAL_CONFIG_FILE"):
        await connect()


async def test_a_namespace_that_does_not_exist_is_named(dev_server: WorkflowEnvironment) -> None:
    address = dev_server.client.service_client.config.target_host
    client = await connect(target_host=address, namespace="nope", tls=False, api_key=None)
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_NAMESPACE"):
        await Client(client).publish(event())
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_NAMESPACE"):
        await check_search_attributes(client)


async def test_a_health_address_that_is_taken_is_named(dev_server: WorkflowEnvironment, tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    address = f"127.0.0.1:{free_port()}"
    try:
        async with worker.answering_health(address, dev_server.client, registry, []):
            with pytest.raises(SettingsInvalid, match=f"BELLWIRE_HEALTH_ADDRESS: cannot listen on {address}"):
                async with worker.answering_health(address, dev_server.client, registry, []):
                    raise AssertionError("two listen on one address")
    finally:
        await registry.close()
