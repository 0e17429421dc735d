"""Rate limits of channels: maximum deliveries per second, over all workers together.

A limit is kept in two places. The Temporal server enforces it by counting activities; the registry has it so that runs send
one delivery per activity. Without the registry, the server's limit would count chunks of up to 200 deliveries as one. So the
registry is written first when a limit is set, and last when it is cleared: a failure in between leaves a channel that is
slow, never one that exceeds its limit.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import channel_queue
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.subscriptions import RATE_BOUNDS
from bellwire.targets import WORKER_CHANNELS, Channel
from bellwire.temporal.connection import cause_of
from starter.operations.problems import InputInvalid, OperationError

#: Seconds that the server has for each response.
RESPONSE_TIMEOUT = timedelta(seconds=10)

#: Seconds that the server has to report a new limit: it reads from a cache that follows an update within moments.
VISIBLE_TIMEOUT = 5.0
POLL_SECONDS = 0.05

#: Errors after which the server has changed nothing. After any other error it may have.
_REFUSALS = {
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.NOT_FOUND,
}


class LimitsUnsupported(OperationError):
    """This Temporal server has no task-queue limits; nothing was changed. Upgrade it, or use `subscribe --rate-limit`."""


@dataclass(frozen=True)
class Limit:
    """Deliveries per second of a channel, in the registry and on the server; None: no limit there."""

    channel: Channel
    registry: float | None
    server: float | None

    @property
    def agree(self) -> bool:
        return _same(self.registry, self.server)


def parse_rate(text: str, *, field: str) -> float:
    """A limit that `set_limit` accepts. Raises InputInvalid, which names the field."""
    lowest, highest = RATE_BOUNDS
    try:
        rate = float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        rate = math.nan
    if not lowest <= rate <= highest:
        raise InputInvalid(
            f"{text!r} is not a number from {lowest:g} to {highest:,.0f}",
            field=field,
            remedy="`limits clear` removes a limit",
        )
    return rate


async def list_limits(
    registry: Registry, client: Temporal, channels: Sequence[Channel] = WORKER_CHANNELS
) -> list[Limit]:
    """The limits in both places. Raises OperationError."""
    stored = await registry.limits.by_channel()
    return [Limit(channel, stored.get(channel), await _on_server(client, channel)) for channel in channels]


async def set_limit(registry: Registry, client: Temporal, channel: Channel, per_second: float) -> Limit:
    """Limit a channel in both places.

    Raises OperationError. If the server refuses (LimitsUnsupported among others), the registry is as before. If it does not
    respond, it may have accepted the limit, so the registry keeps it.
    """
    if channel not in WORKER_CHANNELS:
        raise InputInvalid(
            f"{channel} has no limit as a whole", field="CHANNEL", remedy="give each handler a rate_limit"
        )
    before = (await registry.limits.by_channel()).get(channel)
    with change("limit.set", str(channel)):
        await registry.limits.set(channel, per_second)
    try:
        await update_server(client, channel, per_second)
    except RPCError as error:
        if error.status in _REFUSALS:
            await (registry.limits.clear(channel) if before is None else registry.limits.set(channel, before))
        raise _failure(error, channel) from error
    await _until_visible(client, channel, per_second)
    return await read_back(registry, client, channel)


async def clear_limit(registry: Registry, client: Temporal, channel: Channel) -> Limit:
    """Remove a channel's limit in both places. Raises OperationError; then the registry is as before."""
    try:
        await update_server(client, channel, None)
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:  # such a server has none to clear
            raise _failure(error, channel) from error
    with change("limit.cleared", str(channel)):
        await registry.limits.clear(channel)
    await _until_visible(client, channel, None)
    return await read_back(registry, client, channel)


async def read_back(registry: Registry, client: Temporal, channel: Channel) -> Limit:
    """The limit that a channel has now.

    Raises OperationError if another client has limited the server alone meanwhile; the registry gets that limit as well.
    """
    (found,) = await list_limits(registry, client, [channel])
    if found.server is not None and found.registry is None:
        await registry.limits.set(channel, found.server)
        raise OperationError(
            f"{channel}: the limit was changed at the same time by another client, and is {found.server:g} per second now",
            remedy="check `python -m starter limits`, then set or clear it again",
        )
    return found


async def update_server(client: Temporal, channel: Channel, per_second: float | None) -> None:
    """Set the limit of the channel's activity queue, or remove it. Raises RPCError."""
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
    await client.workflow_service.update_task_queue_config(request, timeout=RESPONSE_TIMEOUT)


async def _until_visible(client: Temporal, channel: Channel, expected: float | None) -> None:
    """Wait until the server reports the limit, or for VISIBLE_TIMEOUT: another client may have changed it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(VISIBLE_TIMEOUT):
            while True:
                if _same(await _on_server(client, channel), expected):
                    return
                await asyncio.sleep(POLL_SECONDS)


async def _on_server(client: Temporal, channel: Channel) -> float | None:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=channel_queue(channel)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_config=True,
    )
    try:
        response = await client.workflow_service.describe_task_queue(request, timeout=RESPONSE_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.UNIMPLEMENTED:
            return None
        raise _failure(error, channel) from error
    configured = response.config.queue_rate_limit
    if not configured.HasField("rate_limit"):
        return None
    return float(f"{configured.rate_limit.requests_per_second:.7g}")  # 0.1 and not 0.10000000149


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-5)  # the server keeps 32 bits


def _failure(error: RPCError, channel: Channel) -> OperationError:
    if error.status is RPCStatusCode.UNIMPLEMENTED:
        return LimitsUnsupported()
    if error.status in _REFUSALS:
        return OperationError(f"{channel}: Temporal refused: {error}; nothing was changed")
    return OperationError(
        f"{channel}: Temporal did not respond: {cause_of(error)}",
        remedy="it may have the limit or not; try again once it runs",
    )
