"""Connects to Temporal, with Temporal's own configuration and the same converter for publishers, workers and operators."""

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
from bellwire.errors import EventInvalid, KeysInvalid, NotSetUp, TemporalUnavailable
from bellwire.keys.keyring import KeyRing, ring_of
from bellwire.temporal.codec import data_converter

#: Seconds that Temporal's threads have to release the last response when the process exits. They need microseconds.
EXIT_DELAY = 0.02


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
    arguments = {"target_host": "localhost:7233", **_configured(), **overrides}
    if _LOOPBACK.match(arguments["target_host"]):
        # Between processes on one machine, compression takes more time than it saves.
        arguments.setdefault("grpc_compression", GrpcCompression.NONE)
    try:
        return await Client.connect(**{"data_converter": data_converter(ring), **arguments})
    except (RuntimeError, ValueError, RPCError) as error:
        raise TemporalUnavailable(
            f"cannot reach Temporal at {arguments['target_host']}: {error}; check TEMPORAL_ADDRESS and that the server runs"
        ) from error


def namespace() -> str:
    """Return the namespace that `connect` uses. Raises TemporalUnavailable."""
    return str(_configured().get("namespace", "default"))


def _configured() -> Any:
    try:
        return ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        raise TemporalUnavailable(f"{error}; check TEMPORAL_CONFIG_FILE and TEMPORAL_PROFILE") from error


async def check_search_attributes(client: Client) -> None:
    """Raise NotSetUp if a search attribute is not registered: upserting it would block a workflow forever."""
    with translated():
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


@contextmanager
def translated() -> Iterator[None]:
    """Translate RPC errors into errors that name a remedy. NOT_FOUND of a workflow is raised as it is."""
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT and "exceed" in str(error).lower():
            raise EventInvalid(
                f"Temporal refused the publication as too large: {error}; shorten id, type or data, or raise the server's limit"
            ) from error
        if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in str(error).lower():
            raise NotSetUp(f"{error}; run `python -m starter setup`") from error
        if error.status is RPCStatusCode.FAILED_PRECONDITION and "poller" in str(error):
            raise TemporalUnavailable(
                "no worker polls the task queue `bellwire`, so workflows cannot respond; start `python worker.py`"
            ) from error
        if error.status is RPCStatusCode.NOT_FOUND and str(error).startswith("Namespace "):
            raise TemporalUnavailable(f"{error} Check TEMPORAL_NAMESPACE, or create it") from error
        if error.status in _UNREACHABLE:
            raise TemporalUnavailable(
                f"Temporal did not respond: {error}; check TEMPORAL_ADDRESS, the server and the worker, "
                "then try again (with the same ids)"
            ) from error
        raise
