"""Waiting for many published events at once. `Client.wait` waits for one; here the events of one run are one call."""

import asyncio
from collections.abc import Sequence

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from bellwire.client import Client
from bellwire.contract import PublishResult, Summary
from bellwire.deliveries import Counts
from bellwire.errors import WaitTimeout
from bellwire.events import event_key
from bellwire.receipts import Receipt, Status

#: Runs that are queried at the same time. A query costs the server some 10 ms.
CONCURRENCY = 10


async def wait_for_all(client: Client, receipts: Sequence[Receipt], seconds: float) -> list[Status]:
    """The status of each event, in the order of the receipts, once all are settled or `seconds` have passed.

    Raises EventConflict, TemporalUnavailable.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    runs: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        runs.setdefault(receipt.workflow_id, []).append(receipt)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def of_event(receipt: Receipt) -> Status:
        remaining = end - loop.time()
        if remaining > 1:
            try:
                return await client.wait(receipt, timeout=remaining)
            except WaitTimeout:
                pass
        return await client.status(receipt)

    async def of_run(workflow_id: str, held: list[Receipt]) -> list[Status]:
        async with slots:
            summary = await _summary(client, workflow_id, end - loop.time()) if len(held) > 1 else None
            known = [_status(summary, receipt) if summary else None for receipt in held]
            return [status or await of_event(receipt) for status, receipt in zip(known, held, strict=True)]

    by_run = await asyncio.gather(*(of_run(workflow_id, held) for workflow_id, held in runs.items()))
    found = {(status.source, status.id): status for statuses in by_run for status in statuses}
    return [found[receipt.source, receipt.event_id] for receipt in receipts]


async def _summary(client: Client, workflow_id: str, seconds: float) -> Summary | None:
    """The result of a run that carries many events; None if it has not completed in time."""
    handle = client.temporal.get_workflow_handle(workflow_id, result_type=Summary)
    try:
        async with asyncio.timeout(max(seconds, 0)):
            summary: Summary = await handle.result()
    except (TimeoutError, WorkflowFailureError, RPCError):
        return None
    return summary


def _status(summary: Summary, receipt: Receipt) -> Status | None:
    """The status of an event by the result of its run; None if another run delivers it."""
    key = event_key(receipt.source, receipt.event_id)
    known = summary.events.get(key)
    if known is None or known.result is not PublishResult.OWNED:
        return None
    return Status(
        source=receipt.source,
        id=receipt.event_id,
        workflow_id=receipt.workflow_id,
        counts=summary.counts.get(key, Counts()),
        settled=True,
        unknown_tenant=known.unknown_tenant,
    )
