"""`subscriptions`: list them, show one, pause, resume and delete."""

from typing import Annotated

import typer

from bellwire.settings import Settings
from bellwire.subscriptions import Channel, Subscription, SubscriptionState
from starter.durations import in_words
from starter.tables import address_of, print_facts, print_table
from starter.terminal import AsJson, CommandFailed, command, console, opened_registry, remark, say_json

app = typer.Typer(help="List subscriptions; show, pause, resume or delete one.")

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
        found = await registry.subscriptions(tenant=tenant, channel=channel, state=state, after=after, limit=limit)
    if as_json:
        say_json([wish.model_dump(mode="json", by_alias=True) for wish in found])
        return
    rows = [(wish.id, wish.tenant, ", ".join(wish.types), wish.channel, address_of(wish), wish.state) for wish in found]
    print_table(("subscription", "tenant", "types", "channel", "target", "state"), rows)
    if len(found) == limit:
        remark(f"there may be more: --after {found[-1].id}")


@app.command("show")
@command
async def show(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Show one subscription with all its fields."""
    async with opened_registry(Settings.read()) as registry:
        _show(await registry.subscription(subscription_id), as_json=as_json)


@app.command("pause")
@command
async def pause(
    subscription_id: SubscriptionArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match no more events; those that come meanwhile are not delivered later."""
    async with opened_registry(Settings.read()) as registry:
        await registry.set_state(subscription_id, SubscriptionState.PAUSED, reason=reason)
        _show(await registry.subscription(subscription_id), as_json=as_json)


@app.command("resume")
@command
async def resume(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Match events again, after a pause or after its target was gone."""
    async with opened_registry(Settings.read()) as registry:
        await registry.set_state(subscription_id, SubscriptionState.ACTIVE)
        _show(await registry.subscription(subscription_id), as_json=as_json)


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
        say_json({"id": subscription_id, **numbers})
        return
    cancelled = f", {deleted.unsettled:,} of them cancelled" if deleted.unsettled else ""
    console().print(f"{subscription_id} is deleted, with {deleted.deliveries:,} deliveries{cancelled}")


def _show(wish: Subscription, *, as_json: bool) -> None:
    if as_json:
        say_json(wish.model_dump(mode="json", by_alias=True))
        return
    schedule = wish.retry_schedule
    waits = None if schedule is None else ", ".join(map(in_words, schedule)) or "one attempt only"
    print_facts(
        [
            ("subscription", wish.id),
            ("tenant", wish.tenant),
            ("state", wish.state),
            ("reason", wish.state_reason),
            ("types", ", ".join(wish.types)),
            ("filters", ", ".join(item.model_dump_json(by_alias=True) for item in wish.filters)),
            ("channel", wish.channel),
            ("target", address_of(wish)),
            ("template", wish.template),
            ("locale", wish.locale),
            ("retry schedule", waits or "the channel's default"),
            ("rate limit", None if wish.rate_limit is None else f"{wish.rate_limit:g} per second"),
        ]
    )
