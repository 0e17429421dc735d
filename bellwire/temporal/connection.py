"""Connects to Temporal, with Temporal's own configuration and the same converter for publishers, workers and operators."""

import asyncio
import atexit
import functools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.errors import BellwireError, EventInvalid, KeysInvalid, NotSetUp, TemporalUnavailable, WorkerUnavailable
from bellwire.keys.keyring import KeyRing, ring_of
from bellwire.temporal.codec import data_converter

#: Seconds to connect. A server that runs takes milliseconds.
CONNECT_TIMEOUT = 10.0
#: Seconds that Temporal's threads have to release the last response when the process exits. They need microseconds.
EXIT_DELAY = 0.02


DEFAULT_ADDRESS = "localhost:7233"
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]):")


@functools.cache
def _delay_exit() -> None:
    """Keep a process that exits right after a response from crashing.

    A thread of temporalio still releases objects after the caller has the response. If the interpreter is shutting down by
    then, it aborts (status 134) or crashes: one short program in twenty, on a busy machine. A delay at exit prevents that.
    """
    atexit.register(time.sleep, EXIT_DELAY)


async def connect(*, keys: KeyRing | str | None = None, **overrides: Any) -> Client:
    """Return a Temporal client, configured by TEMPORAL_* variables or Temporal's TOML file; by default for localhost:7233.

    With `keys`, a KeyRing or its text (`id:base64,…`), all payloads are encrypted. `overrides` are arguments of
    `temporalio.client.Client.connect` (target_host, namespace, tls, …) and take precedence. Raises TemporalUnavailable and
    KeysInvalid.
    """
    _delay_exit()
    ring = ring_of(keys)
    if ring and "data_converter" in overrides:
        raise KeysInvalid(
            "keys and data_converter: give only one; bellwire.temporal.codec.data_converter creates one from a ring"
        )
    arguments = {"target_host": DEFAULT_ADDRESS, **_configured(), **overrides}
    if _LOOPBACK.match(arguments["target_host"]):
        # Between processes on one machine, compression takes more time than it saves.
        arguments.setdefault("grpc_compression", GrpcCompression.NONE)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await Client.connect(**{"data_converter": data_converter(ring), **arguments})
    except (RuntimeError, ValueError, RPCError, TimeoutError) as error:
        raise unavailable(error, arguments["target_host"]) from error


def namespace() -> str:
    """Return the namespace that `connect` uses. Raises TemporalUnavailable."""
    return str(_configured().get("namespace", "default"))


def address() -> str:
    """Return the address that `connect` uses. Raises TemporalUnavailable."""
    return str(_configured().get("target_host", DEFAULT_ADDRESS))


def _configured() -> Any:
    try:
        return ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        raise TemporalUnavailable(f"{error}; check TEMPORAL_CONFIG_FILE and TEMPORAL_PROFILE") from error


async def check_search_attributes(client: Client) -> None:
    """Raise NotSetUp if a search attribute is not registered: upserting it would block a workflow forever."""
    with translated(client):
        response = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
    missing = [key.name for key in SEARCH_ATTRIBUTES if key.name not in response.custom_attributes]
    if missing:
        raise NotSetUp(
            f"namespace {client.namespace} lacks the search attributes {', '.join(missing)}; run `python -m starter setup`"
        )


_UNREACHABLE = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
    # A broken connection, or a response of a server that is not Temporal.
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
}
_REFUSED = {RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED}

#: What errors of temporalio's Rust client mean, by words in their text. Earlier ones take precedence.
_CAUSES = {
    "connection refused": "connection refused",
    "dns error": "the host name cannot be resolved",
    "lookup address": "the host name cannot be resolved",
    "certificate": "its TLS certificate is not accepted",
    "unknownca": "its TLS certificate is not accepted",
    "invalidcontenttype": "it does not use TLS, or is not Temporal",
    "tls": "the TLS handshake failed",
    "timeout expired": "no response in time",
    "deadline": "no response in time",
    "timed out": "no response in time",
    "h2 protocol": "the connection was lost, or it is not Temporal, or it needs TLS",
    "http2": "the connection was lost, or it is not Temporal, or it needs TLS",
    "status header missing": "it is not Temporal",
    "transport error": "the connection was lost",
    "broken pipe": "the connection was lost",
    "connection reset": "the connection was lost",
    "invalid target": "it is not a valid host:port",
    "invalid uri": "it is not a valid host:port",
    "parse": "it is not a valid host:port",
}


def unavailable(error: Exception, address: str) -> TemporalUnavailable:
    """Return the error that tells people that Temporal did not respond: where, why in plain words, and what to check."""
    return TemporalUnavailable(
        f"cannot reach Temporal at {address}: {cause_of(error)}; check TEMPORAL_ADDRESS and that the server runs, "
        "then try again (with the same ids)"
    )


def cause_of(error: Exception) -> str:
    """Return why Temporal did not respond, in plain words."""
    if isinstance(error, TimeoutError):
        return f"no response within {CONNECT_TIMEOUT:g} s"
    text = " ".join(str(error).split())
    if isinstance(error, RPCError) and error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return f"the server is overloaded ({text[:200]})"
    known = next((cause for words, cause in _CAUSES.items() if words in text.lower()), None)
    # What is not known is shown without the dump of the Rust structures that hold it.
    said = re.search(r'message: "([^"]*)"', text)
    return known or (said.group(1) if said else text)[:200] or "no reason given"


@contextmanager
def translated(client: Client) -> Iterator[None]:
    """Translate RPC errors into errors that name a remedy. NOT_FOUND of a workflow is raised as it is."""
    try:
        yield
    except RuntimeError as error:
        # A lazy client connects with its first call.
        if not str(error).startswith("Failed client connect"):
            raise
        raise unavailable(error, client.service_client.config.target_host) from error
    except RPCError as error:
        known = translate(error, client.service_client.config.target_host)
        if known is None:
            raise
        raise known from error


def translate(error: RPCError, address: str) -> BellwireError | None:
    """Return the error that names a remedy; None for an RPC error that says something else, such as NOT_FOUND of a workflow."""
    if error.status is RPCStatusCode.INVALID_ARGUMENT and "exceed" in str(error).lower():
        return EventInvalid(
            f"Temporal refused the publication as too large: {error}; shorten id, type or data, or raise the server's limit"
        )
    if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in str(error).lower():
        return NotSetUp(f"{error}; run `python -m starter setup`")
    if error.status is RPCStatusCode.FAILED_PRECONDITION and "poller" in str(error):
        return WorkerUnavailable()
    if error.status is RPCStatusCode.NOT_FOUND and str(error).startswith("Namespace "):
        return TemporalUnavailable(f"{error} Check TEMPORAL_NAMESPACE, or create it")
    if error.status in _REFUSED:
        return TemporalUnavailable(
            f"Temporal at {address} refused: {str(error)[:200]}; check TEMPORAL_API_KEY and TEMPORAL_TLS_*"
        )
    return unavailable(error, address) if error.status in _UNREACHABLE else None
