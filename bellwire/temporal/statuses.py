"""Statuses: what has become of published events, by their workflows, and by the registry once Temporal has deleted these."""

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bellwire import contract
from bellwire.contract import LookupInput, LookupResult, PublishResult, Summary
from bellwire.deliveries import Counts
from bellwire.errors import (
    DeliveryNotFound,
    EventConflict,
    EventNotFound,
    TemporalUnavailable,
    TenantUnknown,
    WaitTimeout,
)
from bellwire.formats.durations import format_duration
from bellwire.receipts import Address, EventReference, Status, address_of
from bellwire.temporal.runs import NotStarted, Runs
from bellwire.temporal.workers import run_short

#: Seconds before the workflow of several events is looked at again; doubled each time, up to the maximum.
POLL_SECONDS = 0.5
MAX_POLL_SECONDS = 5.0
#: Seconds for what is asked once the time of a wait is over.
LAST_LOOK = 1.0
#: Lookups that run concurrently: each is a workflow, so a thousand at once would keep the workers from everything else.
LOOKUPS = 20
#: Seconds for a lookup. The worker tries for some seconds if the registry does not respond.
LOOKUP_TIMEOUT = 30.0

#: What a Lookup may not find, as types of errors.
_NOT_FOUND = {contract.EVENT_NOT_FOUND, contract.DELIVERY_NOT_FOUND}


@dataclass
class Statuses:
    """Reads and awaits the statuses of events. Methods raise EventConflict, EventNotFound and TemporalUnavailable."""

    temporal: Temporal
    _runs: Runs = field(init=False)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKUPS))

    def __post_init__(self) -> None:
        self._runs = Runs(self.temporal)

    async def of(self, event: EventReference) -> Status:
        """The status of an event now."""
        address = address_of(event)
        return await self._status(address, await self._runs.summary(address.workflow_id))

    async def settled(
        self, events: Sequence[EventReference], timeout: float | None, *, look: bool = False
    ) -> list[Status]:
        """Wait until the events are settled; their statuses, in order. Raises WaitTimeout, with `statuses` if `look` is true."""
        if timeout is not None and not isinstance(timeout, int | float):
            raise TypeError(f"timeout: must be seconds as a number, not a value of type {type(timeout).__name__}")
        if timeout is not None and math.isnan(timeout):
            raise ValueError("timeout: must be seconds as a number, not NaN")
        addresses = [address_of(event) for event in events]
        found: dict[str, Status] = {}
        runs: dict[str, dict[str, Address]] = {}
        for address in addresses:
            runs.setdefault(address.workflow_id, {})[address.key] = address
        try:
            async with asyncio.timeout(timeout):
                await _together(
                    self._follow(workflow_id, list(of_run.values()), found) for workflow_id, of_run in runs.items()
                )
        except TimeoutError as error:
            if timeout is None:
                raise
            if timeout <= 0:  # nothing could be asked yet
                await self._look_at(addresses, found)
                if all(address.key in found and found[address.key].settled for address in addresses):
                    return [found[address.key] for address in addresses]
            polled = await self._is_polled()
            late = WaitTimeout(_why(timeout, polled=polled))
            if look:
                if polled:  # otherwise nothing answers
                    await self._look_at(addresses, found)
                late.statuses = [found.get(address.key) for address in addresses]
            raise late from error
        return [found[address.key] for address in addresses]

    async def lookup(self, request: LookupInput) -> LookupResult:
        try:
            async with self._slots:
                found = await run_short(
                    self.temporal,
                    contract.LOOKUP,
                    request,
                    id=contract.new_lookup_id(),
                    result_type=LookupResult,
                    timeout=LOOKUP_TIMEOUT,
                )
        except WorkflowFailureError as error:
            cause: BaseException | None = error.cause
            while (
                cause
            ):  # a worker of an earlier version fails the workflow, with or without an ActivityError in between
                if isinstance(cause, ApplicationError) and cause.type in _NOT_FOUND:
                    raise _not_found(cause.type, request) from None
                cause = cause.__cause__
            raise TemporalUnavailable(f"the worker could not look the event up: {error.cause}") from error
        if found.not_found:
            raise _not_found(found.not_found, request)
        return found

    async def _status(self, address: Address, summary: Summary | None, *, shared: bool = False) -> Status:
        """The status of an event by the summary of its workflow, and by other workflows where that one points to them."""
        source, event_id, workflow_id = address
        if summary is None:
            found = await self.lookup(LookupInput(source=source, id=event_id))
            workflow_id, summary = found.workflow_id, await self._runs.summary(found.workflow_id, shared=shared)
            if summary is None:
                return Status.recorded(source, event_id, found)
        if isinstance(summary, NotStarted):
            return Status(
                source=source,
                id=event_id,
                workflow_id=workflow_id,
                counts=Counts(),
                resolved=summary.cancelled,
                settled=summary.cancelled,
                scheduled=not summary.cancelled,
                deliver_at=summary.deliver_at,
                cancelled=summary.cancelled,
            )
        known = summary.events.get(address.key)
        if known and known.result is PublishResult.CONFLICT:
            raise EventConflict(
                f"event {event_id} of {source} was published before with other content, by {known.workflow_id}"
            )
        if known and known.result is PublishResult.REFUSED:
            raise TenantUnknown(
                f"event {event_id} of {source} was refused: its tenant never had a subscription; "
                "correct `tenant`, and publish it with a new id"
            )
        if known and known.result is PublishResult.DUPLICATE:
            if (
                known.workflow_id == workflow_id
            ):  # a later run with the same workflow id; Temporal has deleted the first
                return Status.recorded(source, event_id, await self.lookup(LookupInput(source=source, id=event_id)))
            other = address._replace(workflow_id=known.workflow_id)
            return await self._status(other, await self._runs.summary(other.workflow_id, shared=shared), shared=shared)
        counts, unsettled, failed = await self._runs.of_event(summary, address.key, shared=shared)
        return Status(
            source=source,
            id=event_id,
            workflow_id=workflow_id,
            counts=counts,
            resolved=known is not None and summary.resolved,
            settled=known is not None and summary.resolved and not summary.open_children and not counts.unsettled,
            unsettled=tuple(unsettled),
            failed=tuple(failed),
            unknown_tenant=known is not None and known.unknown_tenant,
        )

    async def _follow(self, workflow_id: str, addresses: Sequence[Address], found: dict[str, Status]) -> None:
        """Wait until these events of one workflow are settled, and add their statuses to `found`.

        The workflow of a single event ends when it is settled. One of several events is looked at from time to time as well:
        its other events may take days.
        """
        end = asyncio.ensure_future(self._runs.ended(workflow_id))
        pause = POLL_SECONDS
        elsewhere: dict[str, list[Address]] = {}
        try:
            while True:
                await asyncio.wait({end}, timeout=pause if contract.is_batch(workflow_id) else None)
                pause, ended = min(pause * 2, MAX_POLL_SECONDS), end.done()
                try:
                    summary = end.result() if ended else await self._runs.summary(workflow_id, shared=True)
                    statuses = [(each, await self._status(each, summary, shared=True)) for each in addresses]
                except TemporalUnavailable:
                    # Also that no worker polls. `end` fails if it lasts.
                    if ended:
                        raise
                    continue
                for address, status in statuses:
                    if status.settled or (ended and status.workflow_id == workflow_id):
                        found[address.key] = status
                    elif status.workflow_id != workflow_id:
                        moved = address._replace(workflow_id=status.workflow_id)
                        elsewhere.setdefault(status.workflow_id, []).append(moved)
                moved_keys = {each.key for those in elsewhere.values() for each in those}
                addresses = [each for each in addresses if each.key not in found and each.key not in moved_keys]
                if not addresses:
                    break
        finally:
            end.cancel()
        await _together(self._follow(other, those, found) for other, those in elsewhere.items())

    async def _look_at(self, addresses: Sequence[Address], found: dict[str, Status]) -> None:
        """Add the status of events that are not settled, as far as it is known within LAST_LOOK seconds."""

        async def look(address: Address) -> None:
            with suppress(TemporalUnavailable, EventNotFound):
                summary = await self._runs.summary(address.workflow_id, shared=True)
                found[address.key] = await self._status(address, summary, shared=True)

        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                await _together(look(address) for address in addresses if address.key not in found)

    async def _is_polled(self) -> bool:
        """Whether a worker polls; True if the server does not say so within LAST_LOOK seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                return await self._runs.is_polled()
        return True


def _why(timeout: float, *, polled: bool) -> str:
    """Why events have not settled in time."""
    text = f"not settled within {format_duration(timeout)}"
    if not polled:
        return f"{text}: no worker polls the task queue `{contract.QUEUE}`; start `python worker.py`"
    return f"{text}; `python -m starter events show` and `Client.status` say what is unsettled"


def _not_found(kind: str, request: LookupInput) -> EventNotFound | DeliveryNotFound:
    """The error for an event, or for its delivery, that a Lookup did not find."""
    event = f"event {request.id} of {request.source}"
    if kind == contract.DELIVERY_NOT_FOUND:
        return DeliveryNotFound(
            f"{event} has no delivery for subscription {request.subscription_id}; "
            "`python -m starter events show` lists its deliveries"
        )
    return EventNotFound(f"no {event} is known; check both, and that it was published to this namespace")


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; the first error, or a cancellation, cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
