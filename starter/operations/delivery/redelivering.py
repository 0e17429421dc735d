"""Redelivering: sending many settled deliveries again, in batches, no faster than a rate.

A batch is one Dispatch. It takes only deliveries that are still settled and were not attempted since they were selected, so
a run that is interrupted can be started again, and two that overlap send nothing twice.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from bellwire import contract
from bellwire.client import Client
from bellwire.contract import DispatchInput, Group, Summary
from bellwire.deliveries import SETTLED, DeliveryState
from bellwire.formats.counts import counted
from bellwire.registry import Registry
from bellwire.registry.redeliverable import Redeliverable
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from bellwire.temporal.connection import translated
from starter.operations.problems import InputInvalid, OperationError

#: Deliveries that are sent again per second by default: a load that endpoints and workers hardly notice beside their own.
DEFAULT_RATE = 50.0
#: Bounds of the rate.
MIN_RATE, MAX_RATE = 0.01, 1_000.0
#: Deliveries read from the registry at a time.
PAGE = 1_000
#: Seconds that a worker has to take a batch.
TAKEN_WITHIN = 60.0
#: Seconds between two questions whether a worker has taken it, and the timeout of one.
_POLL_SECONDS, _QUERY_TIMEOUT = 0.2, timedelta(seconds=5)
#: What the server answers before a worker has taken a run.
_NOT_TAKEN_YET = {RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}
_GLOB = "*?["


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which settled deliveries are sent again. What is None selects all."""

    states: Sequence[DeliveryState] = (DeliveryState.REJECTED, DeliveryState.EXHAUSTED)
    subscription_id: str | None = None
    event_key: str | None = None
    #: Tenants of subscriptions, as a glob.
    tenant: str | None = None
    #: Event types, as a glob.
    type: str | None = None
    channel: Channel | None = None
    #: When they settled: from the first, before the second.
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if unsettled := [state for state in self.states if state not in SETTLED]:
            raise InputInvalid(
                f"{', '.join(unsettled)} is not a settled state",
                field="states",
                remedy=f"give {', '.join(sorted(SETTLED))}; deliveries that wait are attempted by their own runs",
            )

    @property
    def resource(self) -> str:
        """What the audit log names."""
        return self.subscription_id or self.event_key or "many"

    def selects(self, found: Redeliverable) -> bool:
        return _matches(self.tenant, found.tenant) and _matches(self.type, found.event_type)


@dataclass(frozen=True, kw_only=True)
class Selected:
    """How many deliveries a selection holds, by state, and how many it leaves out, by the state of their subscription."""

    states: Mapping[DeliveryState, int]
    inactive: Mapping[SubscriptionState, int]

    @property
    def total(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run has done so far."""

    #: Deliveries that a worker sends again, or has sent.
    redelivered: int = 0
    #: Deliveries that were changed meanwhile: something else has sent them, or sends them now.
    left_out: int = 0

    @property
    def done(self) -> int:
        return self.redelivered + self.left_out


async def count_selected(registry: Registry, selection: Selection) -> Selected:
    """Count, page by page, what `redeliver` would send."""
    states, inactive = Counter[DeliveryState](), Counter[SubscriptionState]()
    async for state, found in _pages(registry, selection):
        for each in found:
            if each.subscription_state is SubscriptionState.ACTIVE:
                states[state] += 1
            else:
                inactive[each.subscription_state] += 1
    return Selected(states=states, inactive=inactive)


async def redeliver(
    client: Client, registry: Registry, selection: Selection, *, rate: float = DEFAULT_RATE
) -> AsyncGenerator[Progress, None]:
    """Send the deliveries of active subscriptions again, up to `rate` per second, and give the progress after each batch.

    Each starts its schedule again, and keeps its id. Raises OperationError if no worker takes a batch, TemporalUnavailable.
    """
    check_rate(rate)
    progress, loop = Progress(), asyncio.get_running_loop()
    next_start = loop.time()
    async for batch in _batches(registry, selection, size=max(1, min(int(rate), contract.PAGE_SIZE))):
        await asyncio.sleep(max(0.0, next_start - loop.time()))
        next_start = max(next_start, loop.time() - 1.0) + len(batch) / rate
        taken = await _redeliver_batch(client, batch)
        if not progress.done:
            await registry.audit_log.record("deliveries.redelivered", selection.resource)
        progress = Progress(redelivered=progress.redelivered + taken, left_out=progress.left_out + len(batch) - taken)
        yield progress


def check_rate(rate: float) -> None:
    """Raise InputInvalid unless the rate is one that a batch can have."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputInvalid(f"must be {MIN_RATE:g} to {MAX_RATE:,.0f} per second", field="rate")


async def _batches(registry: Registry, selection: Selection, *, size: int) -> AsyncIterator[list[Redeliverable]]:
    batch: list[Redeliverable] = []
    async for _, found in _pages(registry, selection):
        for each in found:
            if each.subscription_state is not SubscriptionState.ACTIVE:
                continue
            batch.append(each)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


async def _pages(registry: Registry, selection: Selection) -> AsyncIterator[tuple[DeliveryState, list[Redeliverable]]]:
    tenant = selection.tenant
    for state in dict.fromkeys(selection.states):
        after = None
        while True:
            page = await registry.redeliverable.page(
                state,
                subscription_id=selection.subscription_id,
                event_key=selection.event_key,
                tenant=None if tenant is None or set(tenant) & set(_GLOB) else tenant,
                channel=selection.channel,
                since=selection.since,
                until=selection.until,
                after=after,
                limit=PAGE,
            )
            yield state, [each for each in page if selection.selects(each)]
            if len(page) < PAGE:
                break
            after = page[-1].key


async def _redeliver_batch(client: Client, batch: Sequence[Redeliverable]) -> int:
    """Start the Dispatch of a batch, wait until a worker has taken it, and return how many deliveries it sends."""
    groups = _groups(batch)
    with translated(client.temporal):
        handle = await client.temporal.start_workflow(
            contract.DISPATCH,
            DispatchInput(redeliver=groups, unchanged_only=True),
            id=contract.bulk_redelivery_workflow_id(groups),
            task_queue=contract.QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"redelivery of {counted(len(batch), 'delivery')}",
        )
    try:
        async with asyncio.timeout(TAKEN_WITHIN):
            summary = await _taken(client, handle)
    except TimeoutError:
        raise OperationError(
            f"no worker has taken {counted(len(batch), 'delivery')} within {TAKEN_WITHIN:.0f} s",
            remedy="start a worker, which sends them, then run the command again for the others",
        ) from None
    return sum(counts.matched for counts in summary.counts.values())


async def _taken(client: Client, handle: WorkflowHandle[Any, Any]) -> Summary:
    """The summary of a Dispatch once it has its deliveries."""
    while True:
        try:
            summary: Summary = await handle.query("status", result_type=Summary, rpc_timeout=_QUERY_TIMEOUT)
        except RPCError as error:
            if error.status not in _NOT_TAKEN_YET:
                with translated(client.temporal):
                    raise
        else:
            if summary.resolved:
                return summary
        await asyncio.sleep(_POLL_SECONDS)


def _groups(batch: Sequence[Redeliverable]) -> tuple[Group, ...]:
    ids = defaultdict[tuple[str, Channel, int], list[str]](list)
    for each in batch:
        ids[each.key.event_key, each.channel, each.attempts + 1].append(each.key.subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(names), attempt=attempt)
        for (event_key, channel, attempt), names in ids.items()
    )


def _matches(glob: str | None, text: str) -> bool:
    return glob is None or fnmatchcase(text, glob)
