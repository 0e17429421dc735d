"""`subscriptions`: list them; show, update, test, pause, resume and delete one, rotate its signing secret."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from bellwire.contract import TestSendInput
from bellwire.deliveries import OutcomeKind
from bellwire.events import Event
from bellwire.formats.durations import format_duration
from bellwire.keys.certificates import expires_at
from bellwire.keys.signing import KeyKind
from bellwire.registry.signing_secrets import KeyInUse
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel, WebhookTarget
from starter.cli.delivery.exchanges import exchanges_as_json, print_exchanges
from starter.cli.input.documents import read_items
from starter.cli.input.durations import parse_duration
from starter.cli.subscribers.update import update
from starter.cli.tables import cell, print_facts, print_table
from starter.cli.terminal import AsJson, command, connected, console, note, opened_registry, print_json
from starter.operations.delivery.publishing import read_events
from starter.operations.problems import InputInvalid, OperationError
from starter.operations.subscribers import subscriptions as operations
from starter.operations.subscribers.subscriptions import SubscriptionDetails
from starter.operations.subscribers.test_sends import send_test

#: Seconds: longer than the longest overlap allowed, and short enough for a timedelta.
_VERY_LONG = 365.0 * 86_400

app = typer.Typer(help="List subscriptions; show, update, test, pause, resume or delete one, or rotate its secret.")
app.command("update")(update)

SubscriptionArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the subscription.")]


@app.callback(invoke_without_command=True)
def subscriptions(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Only of this channel.")] = None,
    state: Annotated[SubscriptionState | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number.")] = 100,
    after: Annotated[str, typer.Option(help="Only after this id: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        _list(tenant=tenant, channel=channel, state=state, limit=limit, after=after, as_json=as_json)


@command
async def _list(
    *,
    tenant: str | None,
    channel: Channel | None,
    state: SubscriptionState | None,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    async with opened_registry(Settings.read()) as registry:
        found = await registry.subscriptions.list(tenant=tenant, channel=channel, state=state, after=after, limit=limit)
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
        _print(await operations.show_subscription(registry, subscription_id), as_json=as_json)


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


@app.command("pause")
@command
async def pause(
    subscription_id: SubscriptionArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for later readers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match no more events. Events published during the pause are not delivered later."""
    async with opened_registry(Settings.read()) as registry:
        _print(await operations.pause_subscription(registry, subscription_id, reason=reason), as_json=as_json)


@app.command("resume")
@command
async def resume(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Match events again, after a pause or after the subscription was disabled."""
    async with opened_registry(Settings.read()) as registry:
        _print(await operations.resume_subscription(registry, subscription_id), as_json=as_json)


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
    console().print(f"{subscription_id} is deleted, with {deleted.deliveries:,} deliveries{cancelled}")


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


def _print(details: SubscriptionDetails, *, as_json: bool) -> None:
    subscription, health, keys = details.subscription, details.health, details.keys
    if as_json:
        shown = subscription.model_dump(mode="json", by_alias=True)
        print_json({**shown, "keys": [key.model_dump(mode="json") for key in keys]} if keys else shown)
        return
    schedule = subscription.retry_schedule
    delays = None if schedule is None else ", ".join(map(format_duration, schedule)) or "one attempt only"
    print_facts(
        [
            ("subscription", subscription.id),
            ("tenant", subscription.tenant),
            ("state", subscription.state),
            ("reason", subscription.state_reason),
            ("failing since", health.failing_since),
            ("failures", health.failures or None),
            ("throttled until", health.throttled_until),
            ("version", subscription.version),
            ("updated", subscription.updated_at),
            ("types", ", ".join(subscription.types)),
            ("filters", ", ".join(item.model_dump_json(by_alias=True) for item in subscription.filters)),
            ("channel", subscription.channel),
            ("target", subscription.target.address),
            ("template", subscription.template),
            ("own templates", ", ".join(subscription.templates or ())),
            ("locale", subscription.locale),
            ("retry schedule", delays or "the channel's default"),
            ("rate limit", None if subscription.rate_limit is None else f"{subscription.rate_limit:g} per second"),
            *_webhook_facts(subscription),
            *(("signed by", _named(key)) for key in keys),
        ]
    )


def _webhook_facts(subscription: Subscription) -> Iterable[tuple[str, object]]:
    """What only webhooks have. Headers and certificates are named; their values are secret."""
    if not isinstance(target := subscription.target, WebhookTarget):
        return
    yield "format", target.format
    yield "headers", ", ".join(target.headers)
    yield "timeout", None if target.timeout is None else format_duration(target.timeout)
    if target.client_certificate is not None:
        yield "client certificate", f"expires {cell(expires_at(target.client_certificate.get_secret_value()))} UTC"


def _named(key: KeyInUse) -> str:
    name = key.public_key or "a shared secret"
    return name if key.expires_at is None else f"{name}, until {cell(key.expires_at)} UTC"
