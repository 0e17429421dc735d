"""`limits`: most deliveries per second of each channel, over all workers together; show, set and clear them.

A limit stands in two places. The Temporal server keeps it, counting activities; the registry has it so that runs send one
delivery per activity. With the server alone, a limit would count chunks of up to 200 deliveries as one. So the registry
comes first when a limit is set, and last when it is cleared; whatever fails in between leaves a channel that is slow, not
one that is wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import channel_queue
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.subscriptions import RATE_BOUNDS
from bellwire.targets import Channel
from bellwire.temporal.connection import connect
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

#: Seconds that the server has for each answer.
ANSWER_TIMEOUT = timedelta(seconds=10)

#: Answers by which the server says that it has changed nothing. After any other error it may have.
_REFUSALS = {
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.NOT_FOUND,
}

app = typer.Typer(help="Show the rate limits of channels; set or clear one.")

ChannelArgument = Annotated[Channel, typer.Argument(metavar="CHANNEL", help="email, sms or webhook.")]


class NoSuchLimits(CommandFailed):
    """This Temporal server keeps no limits of task queues; nothing was changed. Upgrade it, or use `subscribe --rate-limit`."""


@dataclass(frozen=True)
class Limit:
    """Deliveries per second of a channel, in the registry and on the server; None: no limit there."""

    channel: Channel
    registry: float | None
    server: float | None

    @property
    def agree(self) -> bool:
        if self.registry is None or self.server is None:
            return self.registry is self.server
        return math.isclose(self.registry, self.server, rel_tol=1e-5)  # the server keeps 32 bits


async def read(registry: Registry, client: Temporal, channels: Sequence[Channel] = tuple(Channel)) -> list[Limit]:
    """The limits in both places. Raises CommandFailed."""
    stored = await registry.limits.by_channel()
    return [Limit(channel, stored.get(channel), await _on_server(client, channel)) for channel in channels]


async def set_limit(registry: Registry, client: Temporal, channel: Channel, per_second: float) -> Limit:
    """Limit a channel in both places.

    Raises CommandFailed. If the server refuses (NoSuchLimits among others), the registry is as before; if it does not answer,
    it may have taken the limit, so the registry keeps it.
    """
    before = (await registry.limits.by_channel()).get(channel)
    await registry.limits.set(channel, per_second)
    try:
        await _tell_server(client, channel, per_second)
    except RPCError as error:
        if error.status in _REFUSALS:
            await (registry.limits.clear(channel) if before is None else registry.limits.set(channel, before))
        raise _failure(error, channel) from error
    return await read_back(registry, client, channel)


async def clear_limit(registry: Registry, client: Temporal, channel: Channel) -> Limit:
    """Leave a channel without a limit in either place. Raises CommandFailed; then the registry is as before."""
    try:
        await _tell_server(client, channel, None)
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:  # such a server has none to clear
            raise _failure(error, channel) from error
    await registry.limits.clear(channel)
    return await read_back(registry, client, channel)


async def read_back(registry: Registry, client: Temporal, channel: Channel) -> Limit:
    """The limit that a channel has now.

    Raises CommandFailed if somebody else has limited the server alone meanwhile; then the registry has the limit as well.
    """
    (found,) = await read(registry, client, [channel])
    if found.server is not None and found.registry is None:
        await registry.limits.set(channel, found.server)
        raise CommandFailed(
            f"{channel}: somebody else changed the limit at the same time, and it is {found.server:g} per second now;"
            " look with `python -m starter limits`, then set or clear it again"
        )
    return found


async def _on_server(client: Temporal, channel: Channel) -> float | None:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=channel_queue(channel)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_config=True,
    )
    try:
        answer = await client.workflow_service.describe_task_queue(request, timeout=ANSWER_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.UNIMPLEMENTED:
            return None
        raise _failure(error, channel) from error
    configured = answer.config.queue_rate_limit
    if not configured.HasField("rate_limit"):
        return None
    return float(f"{configured.rate_limit.requests_per_second:.7g}")  # 0.1 and not 0.10000000149


async def _tell_server(client: Temporal, channel: Channel, per_second: float | None) -> None:
    """Set the limit of the channel's activity queue, or remove it."""
    wanted = UpdateTaskQueueConfigRequest.RateLimitUpdate(reason="python -m starter limits")
    if per_second is not None:
        wanted.rate_limit.CopyFrom(RateLimit(requests_per_second=per_second))
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace,
        identity=client.identity,
        task_queue=channel_queue(channel),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        update_queue_rate_limit=wanted,
    )
    await client.workflow_service.update_task_queue_config(request, timeout=ANSWER_TIMEOUT)


def _failure(error: RPCError, channel: Channel) -> CommandFailed:
    if error.status is RPCStatusCode.UNIMPLEMENTED:
        return NoSuchLimits()
    if error.status in _REFUSALS:
        return CommandFailed(f"{channel}: Temporal refuses: {error}; nothing was changed")
    return CommandFailed(
        f"{channel}: Temporal did not answer: {error}; it may have the limit or not: try again once it runs"
    )


def _rate(text: str) -> float:
    lowest, highest = RATE_BOUNDS
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not lowest <= rate <= highest:
        raise InputInvalid(
            f"PER_SECOND: {text!r} is not a number from {lowest:g} to {highest:,.0f}; `limits clear` removes a limit"
        )
    return rate


def _as_data(limit: Limit) -> dict[str, Any]:
    return {"channel": str(limit.channel), "registry": limit.registry, "server": limit.server}


def _print(limits: Sequence[Limit]) -> None:
    """A table, and a remark on each channel whose limit is not the same in both places."""
    rows = [(limit.channel, _in_words(limit.registry), _in_words(limit.server)) for limit in limits]
    print_table(("channel", "deliveries per second, registry", "Temporal server"), rows)
    for limit in limits:
        if not limit.agree:
            rate = limit.server if limit.registry is None else limit.registry
            note(
                f"{limit.channel}: registry and server disagree; `python -m starter limits set {limit.channel} {rate:g}`"
                f" or `limits clear {limit.channel}` mends it"
            )


def _in_words(rate: float | None) -> str:
    return "no limit" if rate is None else f"{rate:g}"


@app.callback(invoke_without_command=True)
def limits(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@command
async def _list(*, as_json: bool) -> None:
    async with opened_registry(Settings.read()) as registry:
        found = await read(registry, await connect())
    if as_json:
        print_json([_as_data(limit) for limit in found])
    else:
        _print(found)


# A negative number is a bad number, not an option that does not exist.
@app.command("set", context_settings={"ignore_unknown_options": True})
@command
async def set_(
    channel: ChannelArgument,
    per_second: Annotated[str, typer.Argument(metavar="PER_SECOND", help="Most deliveries per second.")],
    as_json: AsJson = False,
) -> None:
    """Limit a channel, for all workers together.

    From then on each of its deliveries is an activity of its own, which costs Temporal far more than the chunks it
    sends otherwise.
    """
    rate = _rate(per_second)
    async with opened_registry(Settings.read()) as registry:
        found = await set_limit(registry, await connect(), channel, rate)
    _answer(found, as_json=as_json)


@app.command("clear")
@command
async def clear(channel: ChannelArgument, as_json: AsJson = False) -> None:
    """Leave a channel without a limit."""
    async with opened_registry(Settings.read()) as registry:
        found = await clear_limit(registry, await connect(), channel)
    _answer(found, as_json=as_json)


def _answer(found: Limit, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_data(found))
    else:
        _print([found])
