"""Connecting to Temporal: errors name the variable to check; compression between processes on one machine."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client as Temporal
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from bellwire.client import Client
from bellwire.errors import TemporalUnavailable
from bellwire.registry import Registry
from bellwire.service.readiness import serving_readiness
from bellwire.service.settings import SettingsInvalid
from bellwire.temporal.connection import check_search_attributes, connect, translated
from starter.local.processes import free_port
from tests.factories import event


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "a b", ""])
async def test_an_unreachable_address_names_the_variable(address: str) -> None:
    with pytest.raises(TemporalUnavailable, match="TEMPORAL_ADDRESS"):
        await connect(target_host=address)


async def test_an_unknown_profile_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "nope")
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_PROFILE"):
        await connect()


async def test_an_unreadable_configuration_names_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_bytes(b"\xff = [")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    with pytest.raises(TemporalUnavailable, match="TEMPORAL_CONFIG_FILE"):
        await connect()


async def test_an_unknown_namespace_names_the_variable(dev_server: WorkflowEnvironment) -> None:
    address = dev_server.client.service_client.config.target_host
    client = await connect(target_host=address, namespace="nope", tls=False, api_key=None)
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_NAMESPACE"):
        await Client(client).publish(event())
    with pytest.raises(TemporalUnavailable, match=r"nope.*TEMPORAL_NAMESPACE"):
        await check_search_attributes(client)


async def test_a_health_address_in_use_names_the_variable(dev_server: WorkflowEnvironment, tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    address = f"127.0.0.1:{free_port()}"
    try:
        async with serving_readiness(address, dev_server.client, registry, []):
            with pytest.raises(SettingsInvalid, match=f"BELLWIRE_HEALTH_ADDRESS: cannot listen on {address}"):
                async with serving_readiness(address, dev_server.client, registry, []):
                    raise AssertionError("both listen on one address")
    finally:
        await registry.close()


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of temporalio's connect, which connects to nothing."""
    arguments: dict[str, Any] = {}

    async def record(**given: Any) -> None:
        arguments.update(given)

    monkeypatch.setattr(Temporal, "connect", record)
    return arguments


@pytest.mark.parametrize("target", ["localhost:7233", "127.0.0.1:7233", "127.8.9.10:80", "[::1]:7233"])
async def test_nothing_is_compressed_between_processes_on_one_machine(arguments: dict[str, Any], target: str) -> None:
    await connect(target_host=target)
    assert arguments["target_host"] == target
    assert arguments["grpc_compression"] is GrpcCompression.NONE


@pytest.mark.parametrize(
    "target",
    ["temporal.example:7233", "10.0.0.1:7233", "localhost.example:7233", "127.0.0.1.example:7233", "[::2]:7233"],
)
async def test_compression_to_another_machine_is_temporals_default(arguments: dict[str, Any], target: str) -> None:
    await connect(target_host=target)
    assert arguments["target_host"] == target
    assert "grpc_compression" not in arguments


async def test_a_given_compression_is_kept(arguments: dict[str, Any]) -> None:
    await connect(target_host="localhost:7233", grpc_compression=GrpcCompression.GZIP)
    assert arguments["grpc_compression"] is GrpcCompression.GZIP


async def test_the_address_of_the_variable_decides_too(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1234")
    await connect()
    assert (arguments["target_host"], arguments["grpc_compression"]) == ("127.0.0.1:1234", GrpcCompression.NONE)


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
async def test_a_broken_connection_is_translated(status: RPCStatusCode) -> None:
    broken = RPCError("transport error", status, b"")
    with pytest.raises(TemporalUnavailable, match=r"transport error.*TEMPORAL_ADDRESS") as raised, translated():
        raise broken
    assert raised.value.__cause__ is broken


@pytest.mark.parametrize(
    "status", [RPCStatusCode.NOT_FOUND, RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.PERMISSION_DENIED]
)
async def test_other_errors_are_raised_as_they_are(status: RPCStatusCode) -> None:
    with pytest.raises(RPCError, match="no such workflow"), translated():
        raise RPCError("no such workflow", status, b"")
