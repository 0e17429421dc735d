"""`setup`: brings the registry's schema up to date and registers the search attributes."""

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.temporal.connection import connect
from starter.cli.terminal import AsJson, command, console, print_json
from starter.operations.platform.setup import migrate, register_search_attributes


@command
async def setup(as_json: AsJson = False) -> None:
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
    if as_json:
        attributes = {"added": list(registered.added), "present": list(registered.present)}
        print_json({"registry": {"migrated": migrated}, "namespace": client.namespace, "search_attributes": attributes})
        return
    added = ", ".join(f"{name} added" for name in registered.added) or "all present"
    console().print(f"search attributes in namespace {client.namespace}: {added}")
