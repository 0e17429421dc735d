"""`suppressions`: the addresses that get nothing more; list them, add one, lift one."""

from typing import Annotated

import typer

from bellwire.service.settings import Settings
from bellwire.suppressions import Reported, SuppressionReason
from bellwire.targets import Channel
from starter.cli.input.addresses import ADDRESS_HELP
from starter.cli.input.times import parse_time
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, group, note, opened_registry, print_json
from starter.operations.problems import InputInvalid
from starter.operations.subscribers import suppressions as operations

app = group("List suppressed addresses, which get nothing more; add or lift one.", needs_command=False)

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help=ADDRESS_HELP)]
ChannelOption = Annotated[
    Channel | None, typer.Option(help="Its channel; if omitted, email for an address with an @, otherwise sms.")
]


ListedChannel = Annotated[Channel | None, typer.Option(help="Only of this channel.")]
ListedAddress = Annotated[str | None, typer.Option(help="Only this address.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")]
BeforeOption = Annotated[str | None, typer.Option(help="Only those added before this time: the next page.")]


@app.callback(invoke_without_command=True)
def suppressions(
    context: typer.Context,
    channel: ListedChannel = None,
    address: ListedAddress = None,
    limit: LimitOption = 100,
    before: BeforeOption = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        list_suppressions(channel, address, limit, before, as_json)


@app.command("list")
@command
async def list_suppressions(
    channel: ListedChannel = None,
    address: ListedAddress = None,
    limit: LimitOption = 100,
    before: BeforeOption = None,
    as_json: AsJson = False,
) -> None:
    """List suppressions, the newest first."""
    until = None if before is None else parse_time("--before", before)
    address = operations.listed_address(address, channel)
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
async def lift(
    address: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="As in `add`.")] = None,
    channel: ChannelOption = None,
    cause: Annotated[
        str | None, typer.Option(help="All that were reported with this code or feedback type: 5.1.1, abuse.")
    ] = None,
    reason: Annotated[SuppressionReason | None, typer.Option(help="All with this reason.")] = None,
    since: Annotated[str | None, typer.Option(help="Only those added at or after this time.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Lift them, instead of counting and listing them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send to an address again, for all subscriptions; or to all addresses that were suppressed for a cause."""
    if address is None:
        reported = Reported(
            channel=channel, cause=cause, reason=reason, since=None if since is None else parse_time("--since", since)
        )
        await _lift_reported(reported, yes=yes, as_json=as_json)
        return
    if cause is not None or reason is not None or since is not None:
        raise InputInvalid("cannot be combined with --cause, --reason or --since", field="ADDRESS")
    async with opened_registry(Settings.read()) as registry:
        lifted = await operations.lift(registry, address, channel)
    if as_json:
        print_json({"channel": str(lifted.channel), "address": lifted.address, "lifted": True})
    else:
        note(f"{lifted.address} is no longer suppressed on {lifted.channel}")


async def _lift_reported(reported: Reported, *, yes: bool, as_json: bool) -> None:
    async with opened_registry(Settings.read()) as registry:
        count = await operations.lift_reported(registry, reported, dry_run=not yes)
        found = [] if yes else await registry.suppressions.list(reported=reported)
    if as_json:
        listed = [each.model_dump(mode="json") for each in found]
        print_json({"count": count, "lifted": yes, **({} if yes else {"suppressions": listed})})
    elif yes:
        note(f"{count} suppressions were lifted")
    else:
        rows = [(each.created_at, each.channel, each.address, each.reason, each.cause) for each in found]
        print_table(("since", "channel", "address", "reason", "cause"), rows)
        shown = f"; the newest {len(found)} are shown" if len(found) < count else ""
        note(f"{count} suppressions match{shown}. Nothing was changed: add --yes to lift them")
