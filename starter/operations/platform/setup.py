"""Set-up: brings the registry's schema up to date and registers the search attributes. Repeating it changes nothing."""

from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.errors import NotSetUp, TemporalUnavailable
from bellwire.registry import Registry
from bellwire.temporal.connection import cause_of
from starter.operations.problems import OperationError


@dataclass(frozen=True)
class Registered:
    """Search attributes that were added now, and those that existed before."""

    added: tuple[str, ...]
    present: tuple[str, ...]


async def migrate(registry: Registry) -> bool:
    """Bring the schema to the newest version; False if it was up to date. Raises RegistryUnavailable."""
    try:
        await registry.check()
    except NotSetUp:
        await registry.migrate()
        return True
    return False


async def register_search_attributes(client: Temporal) -> Registered:
    """Add the search attributes that the namespace lacks.

    Raises OperationError if one exists with another type, which only an operator can resolve; TemporalUnavailable.
    """
    wanted = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
    try:
        existing = await _existing(client)
        for name, kind in wanted.items():
            if existing.get(name, kind) != kind:
                raise OperationError(
                    f"{name}: exists in namespace {client.namespace} as {_kind(existing[name])}, must be {_kind(kind)}",
                    remedy="remove it (temporal operator search-attribute remove) or use another namespace",
                )
        missing = {name: kind for name, kind in wanted.items() if name not in existing}
        if missing:
            await _add(client, missing)
    except RPCError as error:
        raise TemporalUnavailable(
            f"search attributes cannot be registered in {client.namespace}: {cause_of(error)}"
        ) from error
    return Registered(added=tuple(missing), present=tuple(name for name in wanted if name in existing))


async def _existing(client: Temporal) -> dict[str, Any]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def _add(client: Temporal, missing: dict[str, Any]) -> None:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        # Another process set the namespace up at the same time.
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


def _kind(value: int) -> str:
    return IndexedValueType.Name(IndexedValueType.ValueType(value)).removeprefix("INDEXED_VALUE_TYPE_").lower()
