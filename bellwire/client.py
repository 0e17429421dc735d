"""Client: publishes events and follows them. It connects to Temporal only, and needs neither the registry nor workflow code."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple, Self

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import (
    Priority,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from bellwire import contract
from bellwire.contract import (
    ControlResult,
    DispatchInput,
    LookupInput,
    LookupResult,
    NotifyInput,
    PublishResult,
    Summary,
)
from bellwire.deliveries import Counts, Failed, Unsettled
from bellwire.errors import (
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    EventNotFound,
    TemporalUnavailable,
    TenantUnknown,
    WaitTimeout,
)
from bellwire.events import Event, event_key
from bellwire.formats.durations import format_duration
from bellwire.keys.keyring import KeyRing
from bellwire.receipts import EventReference, Receipt, Status, address_of
from bellwire.temporal.connection import connect, translated
from bellwire.temporal.publications import Publication, many_events, one_event, publications

#: Publications that publish_many starts concurrently, and workflows that status queries concurrently.
CONCURRENCY = 20
#: Timeout of one call that starts a publication. temporalio retries a call that fails at once for up to 10 s, and does not retry
#: one that times out. So publishing fails after 10 s if Temporal is unreachable or stalls, and after up to 20 s if it does both.
START_TIMEOUT = timedelta(seconds=10)
#: Seconds between two queries for an event whose workflow also delivers others.
POLL_SECONDS = 0.5
#: Timeout of a query. It takes milliseconds; after a worker was killed, the server waits 10 s for it first.
QUERY_TIMEOUT = timedelta(seconds=20)


#: What a Lookup may not find, as types of errors.
_NOT_FOUND = {contract.EVENT_NOT_FOUND, contract.DELIVERY_NOT_FOUND}


class _OfEvent(NamedTuple):
    """What workflows have of one event."""

    counts: Counts
    unsettled: list[Unsettled]
    failed: list[Failed]


class Client:
    """Publishes events and follows them.

    ```python
    client = await Client.connect()
    receipt = await client.publish(Event(source="/shop", type="order.paid", data={"order": "42"}))
    status = await client.wait(receipt, timeout=30)
    ```
    """

    def __init__(self, temporal: Temporal) -> None:
        #: The underlying Temporal client. It must use the data converter of `connect`.
        self.temporal = temporal

    @classmethod
    async def connect(cls, *, keys: KeyRing | str | None = None, **overrides: Any) -> Self:
        """Connect as configured by Temporal's environment variables or TOML file; `overrides` are arguments of temporalio's
        Client.connect and take precedence.

        `keys` must equal the worker's BELLWIRE_ENCRYPTION_KEYS, if it has any. Raises TemporalUnavailable, KeysInvalid.
        """
        return cls(await connect(keys=keys, **overrides))

    async def publish(self, event: Event) -> Receipt:
        """Publish one event. Once this returns, the event is durable. Publishing it again is safe and returns `duplicate`.

        Raises EventConflict if its (source, id) was used for other content; NotSetUp; and TemporalUnavailable if Temporal did
        not respond within 10 to 20 s. In that case Temporal may have stored the event or not, so publish it again.
        """
        return (await self.publish_many([one_event(event)]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Publish events, with one workflow for up to 100 events and 1 MB. The receipts are in the order of the events.

        Raises EventConflict before anything starts if two events have the same (source, id) and different content; otherwise as
        `publish`. After an error some events may have been published: publish the same events again. After the first
        TemporalUnavailable no more are started, so a long list fails as fast as a single event.
        """
        events = many_events(events)
        slots = asyncio.Semaphore(CONCURRENCY)
        unavailable: list[TemporalUnavailable] = []

        async def start(publication: Publication) -> tuple[Publication, bool]:
            async with slots:
                if unavailable:
                    raise unavailable[0]
                try:
                    return publication, await self._start(publication)
                except TemporalUnavailable as error:
                    unavailable.append(error)
                    raise

        results = await asyncio.gather(*map(start, publications(events)), return_exceptions=True)
        started: dict[str, tuple[str, bool]] = {}
        for result in results:
            if isinstance(result, BaseException):
                raise result
            publication, duplicate = result
            started.update({event.key: (publication.workflow_id, duplicate) for event in publication.events})
        receipts, seen = [], set[str]()
        for event in events:
            workflow_id, duplicate = started[event.key]
            repeated = duplicate or event.key in seen
            receipts.append(
                Receipt(source=event.source, event_id=event.id, workflow_id=workflow_id, duplicate=repeated)
            )
            seen.add(event.key)
        return receipts

    async def status(self, event: EventReference) -> Status:
        """The event's status now: from its workflow, or from the registry, through a worker, once Temporal has deleted it.

        Raises EventNotFound, EventConflict, TenantUnknown, TemporalUnavailable.
        """
        source, event_id, workflow_id = address_of(event)
        key = event_key(source, event_id)
        summary = await self._summary(workflow_id)
        if summary is None:
            found = await self._lookup(LookupInput(source=source, id=event_id))
            workflow_id, summary = found.workflow_id, await self._summary(found.workflow_id)
            if summary is None:
                return Status.recorded(source, event_id, found)
        known = summary.events.get(key)
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
                return Status.recorded(source, event_id, await self._lookup(LookupInput(source=source, id=event_id)))
            return await self.status(Receipt(source=source, event_id=event_id, workflow_id=known.workflow_id))
        counts, unsettled, failed = await self._with_children(summary, key)
        settled = known is not None and summary.resolved and not summary.open_children and not counts.unsettled
        return Status(
            source=source,
            id=event_id,
            workflow_id=workflow_id,
            counts=counts,
            settled=settled,
            unsettled=tuple(unsettled),
            failed=tuple(failed),
            unknown_tenant=known is not None and known.unknown_tenant,
        )

    async def wait(self, event: EventReference, timeout: float | None = None) -> Status:
        """Wait until every delivery of the event is settled, for up to `timeout` seconds, or without limit if None.

        Raises WaitTimeout and what `status` raises.
        """
        workflow_id = address_of(event).workflow_id
        if timeout is not None and not isinstance(timeout, int | float):
            raise TypeError(f"timeout: must be seconds as a number, not a value of type {type(timeout).__name__}")
        try:
            async with asyncio.timeout(timeout):
                while True:
                    shared = contract.is_batch(workflow_id)
                    if not shared:
                        await self._wait_for_end(workflow_id)
                    status = await self.status(event)
                    if status.settled or (status.workflow_id == workflow_id and not shared):
                        return status
                    # Another workflow delivers it, or one that delivers other events too.
                    workflow_id = status.workflow_id
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            if timeout is None:
                raise
            text = f"not settled within {format_duration(timeout)}; see `status` for what is unsettled"
            raise WaitTimeout(text) from error

    async def cancel(self, event: EventReference) -> None:
        """Stop delivering the event: its unsettled deliveries settle as cancelled. What was sent stays sent.

        Raises EventNotFound, TemporalUnavailable.
        """
        status = await self.status(event)
        if status.settled:
            return
        handle = self.temporal.get_workflow_handle(status.workflow_id)
        with translated():
            if contract.is_batch(status.workflow_id):
                key = event_key(status.source, status.id)
                await handle.signal("control", contract.ControlRequest(action=contract.Action.CANCEL, event_key=key))
            else:
                await handle.cancel()

    async def retry(self, event: EventReference, subscription_id: str, *, end_pause: bool = False) -> str:
        """Attempt the event's delivery for this subscription now, and return the id of the workflow that attempts it.

        A delivery that waits is attempted at once; if that attempt is deferred, as many attempts are left as before. A paused
        delivery is attempted only with `end_pause`, which resumes it. A settled delivery is redelivered, with a new schedule.
        Raises EventNotFound, DeliveryNotFound, DeliveryPaused, TemporalUnavailable.
        """
        source, event_id, _ = address_of(event)
        if not isinstance(subscription_id, str):
            raise TypeError(f"subscription_id: must be a string, not a value of type {type(subscription_id).__name__}")
        found = await self._lookup(LookupInput(source=source, id=event_id, subscription_id=subscription_id))
        assert found.delivery
        assert found.delivery_state
        assert found.delivery_workflow_id
        abandoned = False
        if not found.delivery_state.settled:
            if await self._retry_now(found.delivery_workflow_id, subscription_id, end_pause=end_pause):
                return found.delivery_workflow_id
            abandoned = True
        workflow_id = contract.redelivery_workflow_id(found.event_key, subscription_id, found.delivery.attempt)
        with translated():
            await self.temporal.start_workflow(
                contract.DISPATCH,
                DispatchInput(redeliver=(found.delivery,), abandoned=abandoned),
                id=workflow_id,
                task_queue=contract.QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary="redelivery",
            )
        return workflow_id

    async def _retry_now(self, workflow_id: str, subscription_id: str, *, end_pause: bool) -> bool:
        """Attempt a waiting delivery now; False if its workflow was terminated or deleted. Raises DeliveryPaused."""
        # A worker of an earlier version takes one argument.
        arguments = [subscription_id, True] if end_pause else [subscription_id]
        handle = self.temporal.get_workflow_handle(workflow_id)
        try:
            with translated():
                result = await handle.execute_update("retry_now", args=arguments, result_type=ControlResult)
        except WorkflowUpdateFailedError as error:
            raise DeliveryNotFound(f"the delivery has settled or is being attempted: {error.cause}") from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        if result.paused and not result.deliveries:
            raise DeliveryPaused
        return True

    async def _start(self, publication: Publication) -> bool:
        """Start the workflow of a publication; True if it was started before."""
        first = publication.events[0]
        try:
            with translated():
                await self.temporal.start_workflow(
                    contract.NOTIFY,
                    NotifyInput(events=publication.events),
                    id=publication.workflow_id,
                    task_queue=contract.QUEUE,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo={contract.DIGEST_MEMO: publication.digest},
                    search_attributes=publication.search_attributes,
                    priority=Priority(fairness_key=first.tenant),
                    static_summary=publication.summary,
                    rpc_timeout=START_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            with translated():
                description = await self.temporal.get_workflow_handle(publication.workflow_id).describe(
                    rpc_timeout=START_TIMEOUT
                )
            digest = await description.memo_value(contract.DIGEST_MEMO, None)
            if digest is None:
                raise EventConflict(
                    f"{publication.workflow_id} is a workflow that published no event; give the event another id"
                ) from None
            if digest != publication.digest:
                raise EventConflict(
                    f"event {first.id} of {first.source} was published before with other content, by {publication.workflow_id}; "
                    "give the new event an id of its own"
                ) from None
            return True
        return False

    async def _summary(self, workflow_id: str) -> Summary | None:
        """The summary of a workflow; None if Temporal does not know it."""
        handle: WorkflowHandle[Any, Summary] = self.temporal.get_workflow_handle(workflow_id, result_type=Summary)
        try:
            with translated():
                summary: Summary = await handle.query("status", result_type=Summary, rpc_timeout=QUERY_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        return summary

    async def _with_children(self, summary: Summary, key: str) -> "_OfEvent":
        """What a workflow and, level by level, its open children have of an event."""
        counts = summary.counts.get(key, Counts())
        unsettled = [item for item in summary.unsettled if item.event_key == key]
        failed = [item for item in summary.failed if item.event_key == key]
        slots = asyncio.Semaphore(CONCURRENCY)

        async def query(workflow_id: str) -> "_OfEvent":
            async with slots:
                child = await self._summary(workflow_id)
            return await self._with_children(child, key) if child else _OfEvent(Counts(), [], [])

        for of_child in await asyncio.gather(*map(query, summary.open_children)):
            counts = counts.plus(of_child.counts)
            unsettled += of_child.unsettled
            failed += of_child.failed
        return _OfEvent(counts, unsettled, failed)

    async def _wait_for_end(self, workflow_id: str) -> None:
        """Wait until a workflow has ended, with or without success. One that Temporal does not know has ended."""
        try:
            with translated():
                await self.temporal.get_workflow_handle(workflow_id).result()
        except WorkflowFailureError:
            return
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def _lookup(self, request: LookupInput) -> LookupResult:
        try:
            with translated():
                found: LookupResult = await self.temporal.execute_workflow(
                    contract.LOOKUP,
                    request,
                    id=contract.new_lookup_id(),
                    task_queue=contract.QUEUE,
                    result_type=LookupResult,
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


def _not_found(kind: str, request: LookupInput) -> EventNotFound | DeliveryNotFound:
    """The error for an event, or for its delivery, that a Lookup did not find."""
    event = f"event {request.id} of {request.source}"
    if kind == contract.DELIVERY_NOT_FOUND:
        return DeliveryNotFound(
            f"{event} has no delivery for subscription {request.subscription_id}; "
            "`python -m starter events show` lists its deliveries"
        )
    return EventNotFound(f"no {event} is known; check both, and that it was published to this namespace")
