"""The one way to connect to Temporal: same converter for publishers, workers and operators, and Temporal's own configuration."""

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
from bellwire.errors import KeysInvalid, NotSetUp, TemporalUnavailable
from bellwire.keys.keyring import KeyRing, ring_of
from bellwire.temporal.codec import data_converter

#: Seconds that Temporal's threads have, when the process ends, to let go of what they answered last. Microseconds do.
LEAVING_SECONDS = 0.02


_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]):")


@functools.cache
def _leave_in_order() -> None:
    """See to it that the process does not abort when it ends soon after an answer, though all went well.

    A thread of temporalio still releases what it carried after the caller has its answer. If the interpreter is shutting
    down by then, it aborts (status 134) or crashes: one short program in twenty, on a busy machine. A pause lets it finish.
    """
    atexit.register(time.sleep, LEAVING_SECONDS)


async def connect(*, keys: KeyRing | str | None = None, **overrides: Any) -> Client:
    """A Temporal client, configured by TEMPORAL_* variables or Temporal's TOML file; localhost:7233 if neither says.

    With `keys`, a ring or the text of one (`id:base64,…`), all that it sends is encrypted. `overrides` are arguments of
    `temporalio.client.Client.connect` (target_host, namespace, tls, …) and win. Raises TemporalUnavailable, KeysInvalid.
    """
    _leave_in_order()
    ring = ring_of(keys)
    if ring and "data_converter" in overrides:
        raise KeysInvalid(
            "keys and data_converter: give one; bellwire.temporal.codec.data_converter makes one of a ring"
        )
    found = _configured()
    arguments = {"target_host": "localhost:7233", **found, **overrides}
    if _LOOPBACK.match(arguments["target_host"]):
        # Between two processes of one machine, compressing takes more time than it saves.
        arguments.setdefault("grpc_compression", GrpcCompression.NONE)
    try:
        return await Client.connect(**{"data_converter": data_converter(ring), **arguments})
    except (RuntimeError, ValueError, RPCError) as error:
        raise TemporalUnavailable(
            f"cannot reach Temporal at {arguments['target_host']}: {error}; check TEMPORAL_ADDRESS and that the server runs"
        ) from error


def namespace() -> str:
    """The namespace that `connect` uses. Raises TemporalUnavailable."""
    return str(_configured().get("namespace", "default"))


def _configured() -> Any:
    try:
        return ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        raise TemporalUnavailable(f"{error}; check TEMPORAL_CONFIG_FILE and TEMPORAL_PROFILE") from error


async def check_search_attributes(client: Client) -> None:
    """Raise NotSetUp if the namespace lacks one of our search attributes: upserting it would wedge a workflow for ever."""
    with translated():
        answer = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
    missing = [key.name for key in SEARCH_ATTRIBUTES if key.name not in answer.custom_attributes]
    if missing:
        raise NotSetUp(
            f"namespace {client.namespace} lacks the search attributes {', '.join(missing)}; run `python -m starter setup`"
        )


_UNREACHABLE = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
    # What the transport says of a connection that breaks, or is answered by something that is no Temporal.
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Temporal's transport raises into errors that say what to do; NOT_FOUND of a run is left to the caller."""
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in str(error).lower():
            raise NotSetUp(f"{error}; run `python -m starter setup`") from error
        if error.status is RPCStatusCode.FAILED_PRECONDITION and "poller" in str(error):
            raise TemporalUnavailable(
                "no worker polls the queue `bellwire`, so no run can answer; start `python worker.py`"
            ) from error
        if error.status is RPCStatusCode.NOT_FOUND and str(error).startswith("Namespace "):
            raise TemporalUnavailable(f"{error} Check TEMPORAL_NAMESPACE, or create it") from error
        if error.status in _UNREACHABLE:
            raise TemporalUnavailable(
                f"Temporal did not answer: {error}; check TEMPORAL_ADDRESS, the server and the worker, "
                "then try again (the same ids are safe)"
            ) from error
        raise
