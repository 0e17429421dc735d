"""Retention: delete old events, and erase one recipient."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from temporalio.client import Client as Temporal
from temporalio.service import RPCError

from bellwire.contract import NOTIFY
from bellwire.errors import TemporalUnavailable
from bellwire.registry import Registry
from bellwire.registry.upkeep.results import Erased, Purged
from bellwire.temporal.connection import cause_of
from starter.operations.platform.recipients import Recipient
from starter.operations.problems import InputInvalid

#: A younger event is purged by force only: a publisher that publishes it again must still be recognised.
MIN_AGE = timedelta(days=1)


def purge_time(age: timedelta, *, force: bool) -> datetime:
    """The time before which events are purged. Raises InputInvalid, below MIN_AGE unless `force` is true."""
    if age < MIN_AGE and not force:
        raise InputInvalid(
            "is less than 1 d; a purged event is delivered again if it is published again",
            field="older_than",
            remedy="keep it for longer, or use --force",
        )
    try:
        return datetime.now(UTC) - age
    except OverflowError as error:
        raise InputInvalid("is out of range", field="older_than") from error


async def purge(
    registry: Registry,
    before: datetime,
    *,
    temporal: Temporal | None,
    dry_run: bool = False,
    report: Callable[[Purged], None] = lambda _: None,
) -> Purged:
    """Delete events that were accepted before this time, with their deliveries and attempts.

    An event with an unsettled delivery stays, and so does one whose run is open, if `temporal` is given. Raises
    TemporalUnavailable, RegistryUnavailable.
    """
    open_runs = frozenset[str]() if temporal is None else await _open_runs(temporal)
    if not dry_run:
        # Before, since an interrupted purge has deleted something too.
        await registry.audit_log.record("events.purged", f"before {before.isoformat(timespec='seconds')}")
    return await registry.retention.purge(before, open_workflow_ids=open_runs, dry_run=dry_run, report=report)


async def _open_runs(temporal: Temporal) -> frozenset[str]:
    """Runs of publications that are open. One that was blocked for long may still find subscriptions."""
    try:
        found = temporal.list_workflows(f"WorkflowType = '{NOTIFY}' AND ExecutionStatus = 'Running'", page_size=1000)
        return frozenset([run.id async for run in found])
    except RPCError as error:
        raise TemporalUnavailable(
            f"Temporal does not list its open runs: {cause_of(error)}; --offline skips this check"
        ) from error


async def erase(
    registry: Registry,
    recipient: Recipient,
    *,
    events: bool = False,
    dry_run: bool = False,
    wait: Callable[[], Awaitable[None]] | None = None,
) -> Erased:
    """Erase a recipient's address, and the record of what was sent to it; with `events` also data of events sent to it only.

    `wait` is awaited if attempts may be in flight. Raises RegistryUnavailable.
    """
    if not dry_run:
        # Without the address, which is to be forgotten.
        await registry.audit_log.record("recipient.erased", str(recipient.channel))
    return await registry.retention.erase(
        recipient.channel, recipient.address, events=events, dry_run=dry_run, wait=wait
    )
