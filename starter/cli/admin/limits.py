"""`limits`: maximum deliveries per second of each channel, over all workers together; show, set and clear them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bellwire.service.settings import Settings
from bellwire.targets import Channel
from bellwire.temporal.connection import connect
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, group, note, opened_registry, print_json
from starter.operations.platform.limits import Limit, clear_limit, list_limits, parse_rate, set_limit

app = group("Show the rate limits of channels; set or clear one.", needs_command=False)

ChannelArgument = Annotated[Channel, typer.Argument(metavar="CHANNEL", help=f"One of {', '.join(Channel)}.")]


@app.callback(invoke_without_command=True)
def limits(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@command
async def _list(*, as_json: bool) -> None:
    async with opened_registry(Settings.read()) as registry:
        found = await list_limits(registry, await connect())
    if as_json:
        print_json([_as_json(limit) for limit in found])
    else:
        _print(found)


# With ignore_unknown_options, a negative number is a bad number and not an unknown option.
@app.command("set", context_settings={"ignore_unknown_options": True})
@command
async def set_(
    channel: ChannelArgument,
    per_second: Annotated[str, typer.Argument(metavar="PER_SECOND", help="Maximum deliveries per second.")],
    as_json: AsJson = False,
) -> None:
    """Limit a channel, for all workers together.

    Each of its deliveries then is an activity of its own, which costs Temporal far more than the usual chunks.
    """
    rate = parse_rate(per_second, field="PER_SECOND")
    async with opened_registry(Settings.read()) as registry:
        found = await set_limit(registry, await connect(), channel, rate)
    _print_one(found, as_json=as_json)


@app.command("clear")
@command
async def clear(channel: ChannelArgument, as_json: AsJson = False) -> None:
    """Remove a channel's limit."""
    async with opened_registry(Settings.read()) as registry:
        found = await clear_limit(registry, await connect(), channel)
    _print_one(found, as_json=as_json)


def _print_one(found: Limit, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(found))
    else:
        _print([found])


def _as_json(limit: Limit) -> dict[str, Any]:
    return {"channel": str(limit.channel), "registry": limit.registry, "server": limit.server}


def _print(limits: Sequence[Limit]) -> None:
    """Print a table, and a note on each channel whose limit differs between registry and server."""
    rows = [(limit.channel, _in_words(limit.registry), _in_words(limit.server)) for limit in limits]
    print_table(("channel", "deliveries per second, registry", "Temporal server"), rows)
    for limit in limits:
        if not limit.agree:
            rate = limit.server if limit.registry is None else limit.registry
            note(
                f"{limit.channel}: registry and server differ; `python -m starter limits set {limit.channel} {rate:g}`"
                f" or `limits clear {limit.channel}` fixes it"
            )


def _in_words(rate: float | None) -> str:
    return "no limit" if rate is None else f"{rate:g}"
