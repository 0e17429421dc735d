"""What is wrong with the way to Temporal is one of our errors, and names the variable to look at."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client as Temporal
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from bellwire.client import Client
from bellwire.errors import TemporalUnavailable
from bellwire.registry import Registry
from bellwire.service.readiness import answering_health
from bellwire.service.settings import SettingsInvalid
from bellwire.temporal.connection import check_search_attributes, connect, translated
from starter.local.processes import free_port
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
        async with answering_health(address, dev_server.client, registry, []):
            with pytest.raises(SettingsInvalid, match=f"BELLWIRE_HEALTH_ADDRESS: cannot listen on {address}"):
                async with answering_health(address, dev_server.client, registry, []):
                    raise AssertionError("two listen on one address")
    finally:
        await registry.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Temporal's own client is asked for; nothing is connected."""
    asked: dict[str, Any] = {}

    async def note(**arguments: Any) -> None:
        asked.update(arguments)

    monkeypatch.setattr(Temporal, "connect", note)
    return asked


@pytest.mark.parametrize("target", ["localhost:7233", "127.0.0.1:7233", "127.8.9.10:80", "[::1]:7233"])
async def test_between_processes_of_one_machine_nothing_is_compressed(asked: dict[str, Any], target: str) -> None:
    await connect(target_host=target)
    assert asked["target_host"] == target
    assert asked["grpc_compression"] is GrpcCompression.NONE


@pytest.mark.parametrize(
    "target",
    ["temporal.example:7233", "10.0.0.1:7233", "localhost.example:7233", "127.0.0.1.example:7233", "[::2]:7233"],
)
async def test_to_another_machine_compression_is_left_to_temporal(asked: dict[str, Any], target: str) -> None:
    await connect(target_host=target)
    assert asked["target_host"] == target
    assert "grpc_compression" not in asked


async def test_compression_that_was_asked_for_stays(asked: dict[str, Any]) -> None:
    await connect(target_host="localhost:7233", grpc_compression=GrpcCompression.GZIP)
    assert asked["grpc_compression"] is GrpcCompression.GZIP


async def test_where_the_variable_points_counts_too(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1234")
    await connect()
    assert (asked["target_host"], asked["grpc_compression"]) == ("127.0.0.1:1234", GrpcCompression.NONE)


@pytest.mark.parametrize(
    "status",
    [
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.INTERNAL,
    ],
)
async def test_a_connection_that_breaks_is_no_answer(status: RPCStatusCode) -> None:
    broken = RPCError("transport error", status, b"")
    with pytest.raises(TemporalUnavailable, match=r"transport error.*TEMPORAL_ADDRESS") as raised, translated():
        raise broken
    assert raised.value.__cause__ is broken


@pytest.mark.parametrize(
    "status", [RPCStatusCode.NOT_FOUND, RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.PERMISSION_DENIED]
)
async def test_what_temporal_answered_is_left_to_the_caller(status: RPCStatusCode) -> None:
    with pytest.raises(RPCError, match="no such run"), translated():
        raise RPCError("no such run", status, b"")
