"""`subscriptions`: list them; show, test, pause, resume and delete one, rotate its signing secret."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

import typer

from bellwire.keys.certificates import expires_at
from bellwire.keys.signing import KeyKind
from bellwire.registry import Registry
from bellwire.registry.signing_secrets import OVERLAP, KeyInUse
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel, WebhookTarget
from starter.cli.input.durations import in_words, parse_duration
from starter.cli.subscriptions.subscribe import shown_once
from starter.cli.subscriptions.test_send import try_subscription
from starter.cli.tables import (
    cell,
    print_facts,
    print_table,
)
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    InputInvalid,
    command,
    console,
    note,
    opened_registry,
    print_json,
)

#: Seconds; longer than any overlap may be, and not too long to be said.
_VERY_LONG = 365.0 * 86_400

app = typer.Typer(help="List subscriptions; show, test, pause, resume or delete one, or rotate its secret.")
app.command("test")(try_subscription)

SubscriptionArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the subscription.")]


@app.callback(invoke_without_command=True)
def subscriptions(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Only this channel's.")] = None,
    state: Annotated[SubscriptionState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    after: Annotated[str, typer.Option(help="Only those after this id: the next page.")] = "",
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
        print_json([wish.model_dump(mode="json", by_alias=True) for wish in found])
        return
    rows = [
        (wish.id, wish.tenant, ", ".join(wish.types), wish.channel, wish.target.address, wish.state) for wish in found
    ]
    print_table(("subscription", "tenant", "types", "channel", "target", "state"), rows)
    if len(found) == limit:
        note(f"there may be more: --after {found[-1].id}")


@app.command("show")
@command
async def show(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Show one subscription with all its fields."""
    async with opened_registry(Settings.read()) as registry:
        await _show(registry, subscription_id, as_json=as_json)


@app.command("pause")
@command
async def pause(
    subscription_id: SubscriptionArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match no more events; those that come meanwhile are not delivered later."""
    async with opened_registry(Settings.read()) as registry:
        await registry.subscriptions.set_state(subscription_id, SubscriptionState.PAUSED, reason=reason)
        await _show(registry, subscription_id, as_json=as_json)


@app.command("resume")
@command
async def resume(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Match events again, after a pause or after its target was gone."""
    async with opened_registry(Settings.read()) as registry:
        await registry.subscriptions.set_state(subscription_id, SubscriptionState.ACTIVE)
        await _show(registry, subscription_id, as_json=as_json)


@app.command("delete")
@command
async def delete(
    subscription_id: SubscriptionArgument,
    force: Annotated[bool, typer.Option("--force", help="Cancel what is unsettled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a subscription with its deliveries and attempts, unless something of it is unsettled."""
    async with opened_registry(Settings.read()) as registry:
        deleted = await registry.retention.delete(subscription_id, cancel=force)
    if not deleted.gone:
        raise CommandFailed(
            f"{subscription_id}: {deleted.unsettled:,} of its deliveries are unsettled; wait until they settle, after "
            "`subscriptions pause` if new ones come, or cancel them with --force"
        )
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
        str | None, typer.Option(help="How long the old secrets go on signing: 24h if left out, at most 30d.")
    ] = None,
    secret: Annotated[str | None, typer.Option(help="The new secret (whsec_… or whsk_…); made if left out.")] = None,
    asymmetric: Annotated[
        bool | None,
        typer.Option(
            "--asymmetric/--symmetric", help="Sign by a key pair, or by a shared secret; as before if left out."
        ),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Stop signing with the old secrets at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign a webhook subscription's requests with another secret, shown this once, and for a while with the old ones too."""
    if revoke and overlap is not None:
        raise InputInvalid("--revoke: stops the old secrets at once; leave --overlap out")
    lasting = OVERLAP if overlap is None else timedelta(seconds=min(parse_duration("--overlap", overlap), _VERY_LONG))
    kind = None if asymmetric is None else KeyKind.ASYMMETRIC if asymmetric else KeyKind.SYMMETRIC
    async with opened_registry(Settings.read()) as registry:
        made = await registry.signing_secrets.rotate(
            subscription_id, overlap=timedelta() if revoke else lasting, secret=secret, kind=kind
        )
        keys = await registry.signing_secrets.in_use(subscription_id)
    shown = shown_once(made.get_secret_value())
    if as_json:
        print_json({"id": subscription_id, **shown, "keys": [key.model_dump(mode="json") for key in keys]})
        return
    named = {"secret": "signing secret, shown once", "public_key": "public key, for receivers"}
    print_facts([("subscription", subscription_id), *((named[name], text) for name, text in shown.items())])
    for key in keys[1:]:
        note(f"an old {key.kind} key signs as well until {cell(key.expires_at)} UTC")


async def _show(registry: Registry, subscription_id: str, *, as_json: bool) -> None:
    wish, _, condition = await registry.subscriptions.context(subscription_id)
    keys = await registry.signing_secrets.in_use(subscription_id)
    if as_json:
        shown = wish.model_dump(mode="json", by_alias=True)
        print_json({**shown, "keys": [key.model_dump(mode="json") for key in keys]} if keys else shown)
        return
    schedule = wish.retry_schedule
    waits = None if schedule is None else ", ".join(map(in_words, schedule)) or "one attempt only"
    print_facts(
        [
            ("subscription", wish.id),
            ("tenant", wish.tenant),
            ("state", wish.state),
            ("reason", wish.state_reason),
            ("failing since", condition.failing_since),
            ("failures", condition.failures or None),
            ("throttled until", condition.throttled_until),
            ("types", ", ".join(wish.types)),
            ("filters", ", ".join(item.model_dump_json(by_alias=True) for item in wish.filters)),
            ("channel", wish.channel),
            ("target", wish.target.address),
            ("template", wish.template),
            ("own templates", ", ".join(wish.templates or ())),
            ("locale", wish.locale),
            ("retry schedule", waits or "the channel's default"),
            ("rate limit", None if wish.rate_limit is None else f"{wish.rate_limit:g} per second"),
            *_of_webhook(wish),
            *(("signed by", _named(key)) for key in keys),
        ]
    )


def _of_webhook(wish: Subscription) -> Iterable[tuple[str, object]]:
    """What only webhooks have. Values of headers and certificates are named, never shown."""
    if not isinstance(target := wish.target, WebhookTarget):
        return
    yield "format", target.format
    yield "headers", ", ".join(target.headers)
    yield "timeout", None if target.timeout is None else in_words(target.timeout)
    if target.client_certificate is not None:
        yield "client certificate", f"runs out {cell(expires_at(target.client_certificate.get_secret_value()))} UTC"


def _named(key: KeyInUse) -> str:
    name = key.public_key or "a shared secret"
    return name if key.expires_at is None else f"{name}, until {cell(key.expires_at)} UTC"
