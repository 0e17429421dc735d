"""`subscriptions`: list them; show, test, pause and resume one."""

from typing import Annotated

import typer

from bellwire.conditions import Condition
from bellwire.settings import Settings
from bellwire.subscriptions import Channel, Subscription, SubscriptionState
from starter.durations import in_words
from starter.tables import address_of, print_facts, print_table
from starter.terminal import AsJson, command, opened_registry, remark, say_json
from starter.trials import try_subscription

app = typer.Typer(help="List subscriptions; show, test, pause or resume one.")
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
        wish, _, condition = await registry.receiver(subscription_id)
    _show(wish, condition, as_json=as_json)


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
        wish, _, condition = await registry.receiver(subscription_id)
    _show(wish, condition, as_json=as_json)


@app.command("resume")
@command
async def resume(subscription_id: SubscriptionArgument, as_json: AsJson = False) -> None:
    """Match events again, after a pause or after its target was gone."""
    async with opened_registry(Settings.read()) as registry:
        await registry.set_state(subscription_id, SubscriptionState.ACTIVE)
        wish, _, condition = await registry.receiver(subscription_id)
    _show(wish, condition, as_json=as_json)


def _show(wish: Subscription, condition: Condition, *, as_json: bool) -> None:
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
            ("failing since", condition.failing_since),
            ("failures", condition.failures or None),
            ("throttled until", condition.throttled_until),
            ("types", ", ".join(wish.types)),
            ("filters", ", ".join(item.model_dump_json(by_alias=True) for item in wish.filters)),
            ("channel", wish.channel),
            ("target", address_of(wish)),
            ("template", wish.template),
            ("parts of its own", ", ".join(wish.parts or ())),
            ("locale", wish.locale),
            ("retry schedule", waits or "the channel's default"),
            ("rate limit", None if wish.rate_limit is None else f"{wish.rate_limit:g} per second"),
        ]
    )
