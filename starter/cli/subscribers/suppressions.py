"""`suppressions`: the addresses that get nothing more; list them, add one, lift one."""

from typing import Annotated

import typer

from bellwire.service.settings import Settings
from bellwire.targets import Channel
from starter.cli.input.times import parse_time
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.subscribers import suppressions as operations

app = typer.Typer(help="List suppressed addresses, which get nothing more; add or lift one.")

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="ann@example.com or +14155550123.")]
ChannelOption = Annotated[
    Channel | None, typer.Option(help="Its channel; if omitted, email for an address with an @, otherwise sms.")
]


@app.callback(invoke_without_command=True)
def suppressions(
    context: typer.Context,
    channel: Annotated[Channel | None, typer.Option(help="Only of this channel.")] = None,
    address: Annotated[str | None, typer.Option(help="Only this address.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 100,
    before: Annotated[str | None, typer.Option(help="Only those added before this time: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        _list(channel=channel, address=address, limit=limit, before=before, as_json=as_json)


@command
async def _list(*, channel: Channel | None, address: str | None, limit: int, before: str | None, as_json: bool) -> None:
    until = None if before is None else parse_time("--before", before)
    async with opened_registry(Settings.read()) as registry:
        found = await registry.suppressions.list(channel=channel, address=address, before=until, limit=limit)
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    rows = [(each.created_at, each.channel, each.address, each.reason, each.subscription_id or "all") for each in found]
    print_table(("since", "channel", "address", "reason", "for subscription"), rows)
    if len(found) == limit and (last := found[-1].created_at):
        note(f"there may be more: --before {last.isoformat()}")


@app.command("add")
@command
async def add(address: AddressArgument, channel: ChannelOption = None, as_json: AsJson = False) -> None:
    """Send nothing more to an address, for any subscription."""
    async with opened_registry(Settings.read()) as registry:
        stored = await operations.suppress(registry, address, channel)
    if as_json:
        print_json(stored.model_dump(mode="json"))
    else:
        note(f"{stored.address} is suppressed on {stored.channel}: {stored.reason}")


@app.command("lift")
@command
async def lift(address: AddressArgument, channel: ChannelOption = None, as_json: AsJson = False) -> None:
    """Send to an address again, for all subscriptions."""
    async with opened_registry(Settings.read()) as registry:
        lifted = await operations.lift(registry, address, channel)
    if as_json:
        print_json({"channel": str(lifted.channel), "address": lifted.address, "lifted": True})
    else:
        note(f"{lifted.address} is no longer suppressed on {lifted.channel}")
