"""The Nexus endpoint of Bellwire: the name by which workflows of other namespaces find its service."""

from dataclasses import dataclass

from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import CreateNexusEndpointRequest, ListNexusEndpointsRequest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import QUEUE
from bellwire.errors import TemporalUnavailable
from bellwire.temporal.connection import cause_of
from starter.operations.problems import OperationError


@dataclass(frozen=True)
class NexusEndpoint:
    """An endpoint that leads to Bellwire's workers."""

    name: str
    namespace: str
    #: False: it existed before.
    created: bool


async def create_nexus_endpoint(client: Temporal, name: str) -> NexusEndpoint:
    """Create an endpoint of this name for the namespace of the client, unless it exists.

    Raises OperationError if one exists that leads elsewhere, or if the server refuses the name; TemporalUnavailable.
    """
    worker = EndpointTarget.Worker(namespace=client.namespace, task_queue=QUEUE)
    spec = EndpointSpec(name=name, target=EndpointTarget(worker=worker))
    try:
        try:
            await client.operator_service.create_nexus_endpoint(CreateNexusEndpointRequest(spec=spec))
            return NexusEndpoint(name, client.namespace, created=True)
        except RPCError as error:
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise
        listed = await client.operator_service.list_nexus_endpoints(ListNexusEndpointsRequest(name=name))
    except RPCError as error:
        if error.status in {
            RPCStatusCode.INVALID_ARGUMENT,
            RPCStatusCode.UNIMPLEMENTED,
            RPCStatusCode.PERMISSION_DENIED,
        }:
            raise OperationError(
                f"the Nexus endpoint {name} cannot be created: {error}",
                remedy="correct the name, or create it as an operator of Temporal (temporal operator nexus endpoint create)",
            ) from error
        raise TemporalUnavailable(f"the Nexus endpoint {name} cannot be created: {cause_of(error)}") from error
    for endpoint in listed.endpoints:
        target = endpoint.spec.target.worker
        if (target.namespace, target.task_queue) != (client.namespace, QUEUE):
            raise OperationError(
                f"the Nexus endpoint {name} exists and leads to namespace {target.namespace}, queue {target.task_queue}",
                remedy="choose another name, or delete it (temporal operator nexus endpoint delete)",
            )
    return NexusEndpoint(name, client.namespace, created=False)
