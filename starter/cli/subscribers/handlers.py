"""`handlers`: functions of services that are called for events; list them, or remove one."""

from typing import Annotated

import typer

from bellwire.service.settings import Settings
from bellwire.temporal.connection import connect
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, group, note, opened_registry, print_json
from starter.operations.subscribers import handlers as operations

app = group("List the handlers that services have registered in code; remove one.", needs_command=False)

ServiceOption = Annotated[str | None, typer.Option(help="Only those of this service.")]


@app.callback(invoke_without_command=True)
def handlers(context: typer.Context, service: ServiceOption = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_handlers(service, as_json)


@app.command("list")
@command
async def list_handlers(service: ServiceOption = None, as_json: AsJson = False) -> None:
    """List handlers, and whether a process of their service runs. If none does, their deliveries wait."""
    async with opened_registry(Settings.read()) as registry:
        found = await operations.list_handlers(registry, await connect(), service)
    if as_json:
        print_json(
            [
                {
                    "service": each.service,
                    "name": each.name,
                    "subscription": each.subscription.id,
                    "tenant": each.subscription.tenant,
                    "types": each.subscription.types,
                    "state": str(each.subscription.state),
                    "application": each.application,
                    "alive": each.is_alive,
                    "last_seen": each.last_seen and each.last_seen.isoformat(),
                }
                for each in found
            ]
        )
        return
    rows = [
        (
            each.service,
            each.name,
            each.subscription.id,
            ", ".join(each.subscription.types),
            each.subscription.state,
            "yes" if each.is_alive else "no",
            each.last_seen,
        )
        for each in found
    ]
    print_table(("service", "handler", "subscription", "types", "state", "alive", "last seen"), rows)
    if absent := sorted({each.service for each in found if not each.is_alive}):
        note(f"no process runs for {', '.join(absent)}: deliveries to its handlers wait")


@app.command("remove")
@command
async def remove(
    handler: Annotated[str, typer.Argument(metavar="HANDLER", help="service/name, or a service for all of it.")],
    force: Annotated[bool, typer.Option("--force", help="Cancel its unsettled deliveries first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a handler with its deliveries. A service that still declares it registers it again when it starts."""
    async with opened_registry(Settings.read()) as registry:
        removed = await operations.remove_handler(registry, handler, cancel=force)
    if as_json:
        print_json({"removed": removed})
    else:
        note(f"removed {', '.join(removed)}")
