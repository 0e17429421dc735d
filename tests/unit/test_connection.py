"""Connecting to Temporal: errors name the variable to check; compression between processes on one machine."""

import asyncio
import re
import socket
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
from bellwire.service.telemetry import runtime
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
async def unconnected() -> Temporal:
    """A client that has not connected yet; nothing listens at its address."""
    return await Temporal.connect("127.0.0.1:1", lazy=True)


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
async def test_a_broken_connection_is_translated(status: RPCStatusCode, unconnected: Temporal) -> None:
    broken = RPCError("transport error", status, b"")
    said = r"cannot reach Temporal at 127\.0\.0\.1:1: .*(lost|overloaded).*TEMPORAL_ADDRESS"
    with pytest.raises(TemporalUnavailable, match=said) as raised, translated(unconnected):
        raise broken
    assert raised.value.__cause__ is broken


def test_a_metrics_address_in_use_names_the_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            SettingsInvalid, match=f"BELLWIRE_METRICS_ADDRESS: cannot listen on {address}: Address already"
        ):
            runtime(address)


async def test_a_lazy_client_that_cannot_connect_names_the_variable() -> None:
    client = await connect(target_host="127.0.0.1:1", tls=False, api_key=None, lazy=True)
    with pytest.raises(TemporalUnavailable, match=r"127\.0\.0\.1:1: connection refused; check TEMPORAL_ADDRESS"):
        await Client(client).publish(event())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h2 protocol error: http2 error", "the connection was lost, or it is not Temporal, or it needs TLS"),
        ("Timeout expired", "no response in time"),
        ("tcp connect error: Connection refused (os error 111)", "connection refused"),
        ('Failed client connect: Status { code: Internal, message: "odd", source: Some(tonic::Error) }', ": odd;"),
    ],
)
async def test_what_the_network_says_is_in_plain_words(text: str, said: str, unconnected: Temporal) -> None:
    with pytest.raises(TemporalUnavailable) as raised, translated(unconnected):
        raise RPCError(text, RPCStatusCode.UNKNOWN, b"")
    assert said in str(raised.value)
    assert not re.search(r"tonic|h2 protocol|Status \{|os error", str(raised.value))


@pytest.mark.parametrize("status", [RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED])
async def test_refused_credentials_name_the_variables(status: RPCStatusCode, unconnected: Temporal) -> None:
    with pytest.raises(TemporalUnavailable, match="TEMPORAL_API_KEY"), translated(unconnected):
        raise RPCError("Request unauthorized.", status, b"")


@pytest.mark.parametrize("status", [RPCStatusCode.NOT_FOUND, RPCStatusCode.ALREADY_EXISTS])
async def test_other_errors_are_raised_as_they_are(status: RPCStatusCode, unconnected: Temporal) -> None:
    with pytest.raises(RPCError, match="no such workflow"), translated(unconnected):
        raise RPCError("no such workflow", status, b"")


async def test_a_server_that_accepts_and_stays_silent_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(60):
            with pytest.raises(TemporalUnavailable, match=r"no response within 10 s.*TEMPORAL_ADDRESS"):
                await connect(target_host=f"127.0.0.1:{silent.getsockname()[1]}")
