"""`subscriptions pause` and `subscriptions resume`: of one subscription, or of many that match."""

from typing import Annotated

import typer

from bellwire.formats.counts import counted
from bellwire.service.settings import Settings
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from starter.cli.subscribers.details import print_details
from starter.cli.terminal import AsJson, command, confirm, console, note, opened_registry, print_json
from starter.operations.problems import InputInvalid
from starter.operations.subscribers import subscriptions as operations
from starter.operations.subscribers.pausing import (
    SubscriptionSelection,
    count_subscriptions,
    pause_many,
    resume_many,
)

_Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of one subscription.")]
_Tenant = Annotated[
    str | None, typer.Option(metavar="GLOB", help="Many: of tenants whose name matches, such as 'acme*'.")
]
_Type = Annotated[
    str | None,
    typer.Option("--type", metavar="GLOB", help="Many: with a type, as it was given, that matches: 'order.*'."),
]
_Channel = Annotated[Channel | None, typer.Option(help="Many: of this channel.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Many: count them, and change nothing.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Many: do not ask.")]


@command
async def pause(
    subscription_id: _Id = None,
    reason: Annotated[str | None, typer.Option(help="Why, for later readers.")] = None,
    tenant: _Tenant = None,
    event_type: _Type = None,
    channel: _Channel = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Match no more events: one subscription, or all active ones that the options select.

    Events published during the pause are not delivered later.
    """
    selection = SubscriptionSelection(tenant=tenant, type=event_type, channel=channel)
    _check(subscription_id, selection, dry_run=dry_run, yes=yes)
    async with opened_registry(Settings.read()) as registry:
        if subscription_id is not None:
            details = await operations.pause_subscription(registry, subscription_id, reason=reason)
            print_details(details, as_json=as_json)
            return
        number = await count_subscriptions(registry, selection, SubscriptionState.ACTIVE)
        if _wanted(number, "pause", dry_run=dry_run, yes=yes):
            number = await pause_many(registry, selection, reason=reason)
    _print(number, "paused", dry_run=dry_run, as_json=as_json)


@command
async def resume(
    subscription_id: _Id = None,
    reason: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Many: paused for a reason that matches, such as 'maintenance'.")
    ] = None,
    tenant: _Tenant = None,
    event_type: _Type = None,
    channel: _Channel = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Match events again: one subscription, paused or disabled, or all paused ones that the options select."""
    selection = SubscriptionSelection(tenant=tenant, type=event_type, channel=channel, reason=reason)
    _check(subscription_id, selection, dry_run=dry_run, yes=yes)
    async with opened_registry(Settings.read()) as registry:
        if subscription_id is not None:
            print_details(await operations.resume_subscription(registry, subscription_id), as_json=as_json)
            return
        number = await count_subscriptions(registry, selection, SubscriptionState.PAUSED)
        if _wanted(number, "resume", dry_run=dry_run, yes=yes):
            number = await resume_many(registry, selection)
    _print(number, "resumed", dry_run=dry_run, as_json=as_json)


def _check(subscription_id: str | None, selection: SubscriptionSelection, *, dry_run: bool, yes: bool) -> None:
    selects = selection != SubscriptionSelection()
    if subscription_id is None and not selects:
        raise InputInvalid("give a subscription's id, or options that select many", field="ID")
    if subscription_id is not None and (selects or dry_run or yes):
        raise InputInvalid("cannot be combined with options that select many", field="ID", remedy="omit one of them")


def _wanted(number: int, verb: str, *, dry_run: bool, yes: bool) -> bool:
    """Whether to go on, after the count was shown and, unless `yes`, the question was asked."""
    note(f"{counted(number, 'subscription')} to {verb}")
    if not number or dry_run:
        return False
    if not yes:
        confirm(f"{verb} them?")
    return True


def _print(number: int, done: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"selected" if dry_run else done: number})
    elif number and not dry_run:
        console().print(f"{counted(number, 'subscription')} {done}")
