"""`subscriptions`: list them; show, update, test, pause, resume and delete one, rotate its signing secret."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from bellwire.contract import TestSendInput
from bellwire.deliveries import OutcomeKind
from bellwire.events import Event
from bellwire.formats.counts import counted
from bellwire.keys.signing import KeyKind
from bellwire.service.settings import Settings
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from starter.cli.delivery.exchanges import exchanges_as_json, print_exchanges
from starter.cli.input.documents import read_items
from starter.cli.input.durations import parse_duration
from starter.cli.subscribers.details import print_details
from starter.cli.subscribers.pausing import pause, resume
from starter.cli.subscribers.simulate import simulate
from starter.cli.subscribers.update import update
from starter.cli.tables import cell, print_facts, print_table
from starter.cli.terminal import AsJson, command, connected, console, group, note, opened_registry, print_json
from starter.operations.delivery.publishing import read_events
from starter.operations.problems import InputInvalid, OperationError
from starter.operations.subscribers import subscriptions as operations
from starter.operations.subscribers.test_sends import send_test

#: Seconds: longer than the longest overlap allowed, and short enough for a timedelta.
_VERY_LONG = 365.0 * 86_400

app = group(
    "List subscriptions; show, update, test, pause, resume or delete one, or rotate its secret.", needs_command=False
)
app.command("update")(update)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("simulate")(simulate)

SubscriptionArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the subscription.")]


TenantOption = Annotated[str | None, typer.Option(help="Only of this tenant.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", help="Only those with this type pattern, as it was given: order.*.")
]
ChannelOption = Annotated[Channel | None, typer.Option(help="Only of this channel.")]
StateOption = Annotated[SubscriptionState | None, typer.Option(help="Only in this state.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")]
AfterOption = Annotated[str, typer.Option(help="Only after this id: the next page.")]


@app.callback(invoke_without_command=True)
def subscriptions(
    context: typer.Context,
    tenant: TenantOption = None,
    event_type: TypeOption = None,
    channel: ChannelOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    after: AfterOption = "",
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        list_subscriptions(tenant, event_type, channel, state, limit, after, as_json)


@app.command("list")
@command
async def list_subscriptions(
    tenant: TenantOption = None,
    event_type: TypeOption = None,
    channel: ChannelOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    after: AfterOption = "",
    as_json: AsJson = False,
) -> None:
    """List subscriptions, by id."""
    async with opened_registry(Settings.read()) as registry:
        found = await registry.subscriptions.list(
            tenant=tenant, pattern=event_type, channel=channel, state=state, after=after, limit=limit
        )
    if as_json:
        print_json([each.model_dump(mode="json", by_alias=True) for each in found])
        return
    rows = [
        (each.id, each.tenant, ", ".join(each.types), each.channel, each.target.address, each.state) for each in found
    ]
    print_table(("subscription", "tenant", "types", "channel", "target", "state"), rows)
    if len(found) == limit:
        note(f"there may be more: --after {found[-1].id}")


@app.command("show")
@command
async def show(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Show one subscription with all its fields."""
    async with opened_registry(Settings.read()) as registry:
        print_details(await operations.show_subscription(registry, subscription_id), as_json=as_json)


@app.command("test")
@command
async def send(
    subscription_id: SubscriptionArgument,
    event: Annotated[
        Path | None, typer.Option(help="A file with the event to send, as JSON; - reads stdin. A sample if omitted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send an event to one subscription now, in any state, and print the outcome with what was sent and what came back.

    It is not recorded as a delivery.
    """
    given = None if event is None else _read_event(str(event))
    async with opened_registry(Settings.read()) as registry:
        subscription = await registry.subscriptions.get(subscription_id)
        request = TestSendInput(subscription_id=subscription.id, channel=subscription.channel, event=given)
        report = await send_test((await connected()).temporal, registry, request)
    result = report.result
    if as_json:
        print_json({**result.model_dump(mode="json"), "exchanges": exchanges_as_json(report.exchanges)})
    else:
        print_facts(
            [
                ("outcome", result.kind),
                ("reason", result.reason),
                ("cause", result.cause),
                ("duration", f"{result.duration * 1000:.0f} ms"),
            ]
        )
        print_exchanges(report.exchanges)
    if result.kind is not OutcomeKind.DELIVERED:
        raise OperationError(f"{subscription.id}: the test was not delivered: {result.reason}")


def _read_event(name: str) -> Event:
    events = read_events(read_items(name))
    if len(events) != 1:
        raise InputInvalid(f"{name} holds {len(events)} events", field="--event", remedy="give one")
    return events[0]


@app.command("delete")
@command
async def delete(
    subscription_id: SubscriptionArgument,
    force: Annotated[bool, typer.Option("--force", help="Cancel unsettled deliveries.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a subscription with its deliveries and attempts, unless a delivery is unsettled."""
    async with opened_registry(Settings.read()) as registry:
        deleted = await operations.delete_subscription(registry, subscription_id, cancel=force)
    if as_json:
        numbers = {"deliveries": deleted.deliveries, "attempts": deleted.attempts, "cancelled": deleted.unsettled}
        print_json({"id": subscription_id, **numbers})
        return
    cancelled = f", {deleted.unsettled:,} of them cancelled" if deleted.unsettled else ""
    console().print(f"{subscription_id} is deleted, with {counted(deleted.deliveries, 'delivery')}{cancelled}")


@app.command("rotate")
@command
async def rotate(
    subscription_id: SubscriptionArgument,
    overlap: Annotated[
        str | None, typer.Option(help="How long the old secrets sign as well: 24h if omitted, at most 30d.")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="The new secret (whsec_… or whsk_…); generated if omitted.")
    ] = None,
    asymmetric: Annotated[
        bool | None,
        typer.Option(
            "--asymmetric/--symmetric", help="Sign with a key pair, or with a shared secret; as before if omitted."
        ),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Stop signing with the old secrets at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign a webhook with another secret, shown once. The old ones sign as well for some time."""
    lasting = None if overlap is None else timedelta(seconds=min(parse_duration("--overlap", overlap), _VERY_LONG))
    kind = None if asymmetric is None else KeyKind.ASYMMETRIC if asymmetric else KeyKind.SYMMETRIC
    async with opened_registry(Settings.read()) as registry:
        rotated = await operations.rotate_secret(
            registry, subscription_id, overlap=lasting, secret=secret, kind=kind, revoke=revoke
        )
    if as_json:
        keys = [key.model_dump(mode="json") for key in rotated.keys]
        print_json({"id": subscription_id, **rotated.credentials, "keys": keys})
        return
    titles = {"secret": "signing secret, shown once", "public_key": "public key, for receivers"}
    print_facts(
        [("subscription", subscription_id), *((titles[name], text) for name, text in rotated.credentials.items())]
    )
    for key in rotated.keys[1:]:
        note(f"an old {key.kind} key signs as well until {cell(key.expires_at)} UTC")
