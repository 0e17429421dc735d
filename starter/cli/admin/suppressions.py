"""`suppressions`: the addresses that are written to no more; list them, add one, lift one."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from bellwire.errors import fields_in_error
from bellwire.service.settings import Settings
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import SPECS, Channel
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    InputInvalid,
    command,
    note,
    opened_registry,
    print_json,
)

app = typer.Typer(help="List addresses that are written to no more; add or lift one.")


AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="ann@example.com or +14155550123.")]
ChannelOption = Annotated[
    Channel | None, typer.Option(help="Its channel; if left out, email for what holds an @, else sms.")
]


@app.callback(invoke_without_command=True)
def suppressions(
    context: typer.Context,
    channel: Annotated[Channel | None, typer.Option(help="Only this channel's.")] = None,
    address: Annotated[str | None, typer.Option(help="Only this address.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    before: Annotated[
        str | None, typer.Option(help="Only those put on the list before this time: the next page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        _list(channel=channel, address=address, limit=limit, before=before, as_json=as_json)


@command
async def _list(*, channel: Channel | None, address: str | None, limit: int, before: str | None, as_json: bool) -> None:
    until = None if before is None else _time(before)
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
    """Write to an address no more, for any subscription."""
    wanted = _suppression(address, channel)
    async with opened_registry(Settings.read()) as registry:
        await registry.suppressions.add(wanted)
        found = await registry.suppressions.list(channel=wanted.channel, address=wanted.address, limit=1000)
    # One that was there already stays as it was.
    (stored,) = (each for each in found if each.subscription_id == EVERYWHERE)
    if as_json:
        print_json(stored.model_dump(mode="json"))
    else:
        note(f"{stored.address} is suppressed on {stored.channel}: {stored.reason}")


@app.command("lift")
@command
async def lift(address: AddressArgument, channel: ChannelOption = None, as_json: AsJson = False) -> None:
    """Write to an address again, for all subscriptions."""
    wanted = _suppression(address, channel)
    async with opened_registry(Settings.read()) as registry:
        lifted = await registry.suppressions.lift(wanted.channel, wanted.address)
    if not lifted:
        raise CommandFailed(f"ADDRESS: {wanted.address} is not on the list of {wanted.channel}; nothing was changed")
    if as_json:
        print_json({"channel": str(wanted.channel), "address": wanted.address, "lifted": True})
    else:
        note(f"{wanted.address} is written to again on {wanted.channel}")


def _suppression(address: str, channel: Channel | None) -> Suppression:
    """Raises InputInvalid unless a target of the channel could have the address."""
    channel = channel or (Channel.EMAIL if "@" in address else Channel.SMS)
    spec = SPECS[channel]
    if not spec.example.recipients:
        raise InputInvalid(f"--channel: a {channel} has no address to suppress; pause its subscription")
    try:
        target = spec.target.model_validate({"channel": channel, "to": address.strip()})
    except ValidationError as error:
        raise InputInvalid(f"ADDRESS: {fields_in_error(error)}") from error
    return Suppression(channel=channel, address=target.recipients[0], reason=SuppressionReason.OPERATOR)


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputInvalid(f"--before: {text[:40]!r} is not a time, such as 2026-11-23T08:00:00+00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
