"""`setup`: brings the registry's schema up to date and registers the search attributes. Again, it changes nothing."""

from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.errors import NotSetUp, TemporalUnavailable
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.temporal.connection import connect
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    command,
    console,
    print_json,
)


@dataclass(frozen=True)
class Registered:
    """Search attributes that were added now, and those that were there."""

    added: tuple[str, ...]
    present: tuple[str, ...]


async def migrate(registry: Registry) -> bool:
    """Bring the schema to the newest version; False if it was there already."""
    try:
        await registry.check()
    except NotSetUp:
        await registry.migrate()
        return True
    return False


async def register_search_attributes(client: Temporal) -> Registered:
    """Add those of our search attributes that the namespace lacks.

    Raises CommandFailed if one exists with another type, which only an operator can resolve; TemporalUnavailable.
    """
    wanted = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
    try:
        existing = await _existing(client)
        for name, kind in wanted.items():
            if existing.get(name, kind) != kind:
                raise CommandFailed(
                    f"{name}: exists in namespace {client.namespace} as {_kind(existing[name])}, must be {_kind(kind)};"
                    " remove it (temporal operator search-attribute remove) or use another namespace"
                )
        missing = {name: kind for name, kind in wanted.items() if name not in existing}
        if missing:
            await _add(client, missing)
    except RPCError as error:
        raise TemporalUnavailable(f"search attributes cannot be registered in {client.namespace}: {error}") from error
    return Registered(added=tuple(missing), present=tuple(name for name in wanted if name in existing))


async def _existing(client: Temporal) -> dict[str, Any]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def _add(client: Temporal, missing: dict[str, Any]) -> None:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        # Somebody else set the namespace up at the same time.
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


def _kind(value: int) -> str:
    return IndexedValueType.Name(IndexedValueType.ValueType(value)).removeprefix("INDEXED_VALUE_TYPE_").lower()


@command
async def setup(as_json: AsJson = False) -> None:
    """Prepare registry and Temporal.

    Creates or migrates the registry, and registers the search attributes. Safe to run at any time.
    """
    settings = Settings.read()
    registry = await Registry.open(settings.registry_url, pool=settings.registry_pool, ring=settings.ring)
    try:
        migrated = await migrate(registry)
    finally:
        await registry.close()
    if not as_json:
        console().print("registry: " + ("brought to the newest schema" if migrated else "was up to date"))
    client = await connect()
    registered = await register_search_attributes(client)
    if as_json:
        attributes = {"added": list(registered.added), "present": list(registered.present)}
        print_json({"registry": {"migrated": migrated}, "namespace": client.namespace, "search_attributes": attributes})
        return
    told = ", ".join(f"{name} added" for name in registered.added) or "were all there"
    console().print(f"search attributes in namespace {client.namespace}: {told}")
