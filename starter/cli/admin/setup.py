"""`setup`: brings the registry's schema up to date and registers the search attributes."""

from dataclasses import asdict
from typing import Annotated

from typer import Option

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.temporal.connection import connect
from starter.cli.terminal import AsJson, command, console, print_json
from starter.operations.platform.nexus import create_nexus_endpoint
from starter.operations.platform.setup import migrate, register_search_attributes


@command
async def setup(
    nexus_endpoint: Annotated[
        str | None,
        Option(metavar="NAME", help="Also create the Nexus endpoint by which workflows of other namespaces publish."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prepare registry and Temporal.

    Creates or migrates the registry, and registers the search attributes. It can be repeated at any time.
    """
    settings = Settings.read()
    registry = await Registry.open(settings.registry_url, pool=settings.registry_pool, ring=settings.ring)
    try:
        migrated = await migrate(registry)
    finally:
        await registry.close()
    if not as_json:
        console().print("registry: " + ("migrated to the newest schema" if migrated else "up to date"))
    client = await connect()
    registered = await register_search_attributes(client)
    endpoint = None if nexus_endpoint is None else await create_nexus_endpoint(client, nexus_endpoint)
    if as_json:
        attributes = {"added": list(registered.added), "present": list(registered.present)}
        done = {"registry": {"migrated": migrated}, "namespace": client.namespace, "search_attributes": attributes}
        print_json(done if endpoint is None else {**done, "nexus_endpoint": asdict(endpoint)})
        return
    added = ", ".join(f"{name} added" for name in registered.added) or "all present"
    console().print(f"search attributes in namespace {client.namespace}: {added}")
    if endpoint is not None:
        console().print(f"Nexus endpoint {endpoint.name}: {'created' if endpoint.created else 'exists'}")
