"""Client: publishes events and follows them. It connects to Temporal only, and needs neither the registry nor workflow code."""

import asyncio
from collections.abc import Container, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, overload

from temporalio.client import Client as Temporal
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import (
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from bellwire import contract
from bellwire.contract import Action, ControlResult, DispatchInput, LookupInput, NotifyInput, Recalled
from bellwire.errors import (
    ApiKeyRefused,
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    TemporalUnavailable,
)
from bellwire.events import Event, event_key
from bellwire.keys.keyring import KeyRing
from bellwire.receipts import DeprecationLog, EventReference, Receipt, Status, address_of
from bellwire.temporal.connection import connect, translated
from bellwire.temporal.group_commit import GroupCommit, Lookup
from bellwire.temporal.publications import Publication, ScheduledKeys, many_events, one_event, publications
from bellwire.temporal.recalling import recall
from bellwire.temporal.start_times import Delay, DeliverAt, start_time
from bellwire.temporal.statuses import Statuses
from bellwire.temporal.workers import answered

if TYPE_CHECKING:
    from bellwire.catalog import Catalog
    from bellwire.http.client import HttpClient

#: Publications that publish_many starts concurrently.
CONCURRENCY = 20
#: Timeout of one call that starts a publication. temporalio retries a call that fails at once for up to 10 s, and does not retry
#: one that times out. So publishing fails after 10 s if Temporal is unreachable or stalls, and after up to 20 s if it does both.
START_TIMEOUT = timedelta(seconds=10)
#: Seconds that a worker has to answer an update. It takes milliseconds.
UPDATE_TIMEOUT = 15.0


class Client:
    """Publishes events and follows them.

    ```python
    client = await Client.connect()
    receipt = await client.publish(Event(source="/shop", type="order.paid", data={"order": "42"}))
    status = await client.wait(receipt, timeout=30)
    ```
    """

    def __init__(
        self,
        temporal: Temporal,
        *,
        batching: bool = True,
        lookup: Lookup | None = None,
        catalog: "Catalog | None" = None,
    ) -> None:
        """With `batching`, concurrent calls of `publish` share workflows; `lookup` lets them know of earlier publications.
        `catalog` checks events before they are published; deprecated types are logged."""
        #: The underlying Temporal client. It must use the data converter of `connect`.
        self.temporal = temporal
        self._statuses = Statuses(temporal)
        self._catalog = catalog
        self._deprecations = DeprecationLog()
        self._scheduled = ScheduledKeys()
        self._commits = GroupCommit(self._start, lookup=lookup) if batching else None

    @overload
    @classmethod
    async def connect(cls, *, url: str, key: str) -> "HttpClient": ...

    @overload
    @classmethod
    async def connect(
        cls,
        *,
        keys: KeyRing | str | None = None,
        batching: bool = True,
        catalog: "Catalog | None" = None,
        **overrides: Any,
    ) -> Self: ...

    @classmethod
    async def connect(
        cls,
        *,
        url: str | None = None,
        key: str | None = None,
        keys: KeyRing | str | None = None,
        batching: bool = True,
        catalog: "Catalog | None" = None,
        **overrides: Any,
    ) -> "Self | HttpClient":
        """Connect as configured by Temporal's environment variables or TOML file; `overrides` are arguments of temporalio's
        Client.connect and take precedence.

        `keys` must equal the worker's BELLWIRE_ENCRYPTION_KEYS, if it has any. With `batching`, concurrent calls of `publish`
        share workflows. With a `catalog`, events are checked before they are published. Raises TemporalUnavailable, KeysInvalid.

        With `url` and `key`, an API key, return a client of that gateway's HTTP API instead; nothing is sent before the first
        call. It needs `pip install bellwire[http]`.
        """
        if url is not None:
            from bellwire.http.client import HttpClient  # its library is optional

            if key is None:
                raise ApiKeyRefused("url: needs `key`, an API key of that gateway")
            return HttpClient(url, key)
        return cls(await connect(keys=keys, **overrides), batching=batching, catalog=catalog)

    async def publish(
        self, event: Event, *, delay: Delay | None = None, deliver_at: DeliverAt | None = None
    ) -> Receipt:
        """Publish one event. Once this returns, the event is durable. Publishing it again is safe and returns `duplicate`.

        With `delay` (seconds, a timedelta, or text such as 2h) or `deliver_at` (an aware datetime, or text of RFC 3339), it is
        delivered then, up to 365 days later, to the subscriptions that match it then. `cancel` takes it back before.

        While a call waits for Temporal, and up to 60 ms after it, events of other tasks' calls are collected and go together in
        the next workflow. Then it is not known whether one of them is a duplicate (None) or a conflict, which `status` and `wait`
        report. A cancelled call may have published its event. Raises EventInvalid if the catalog refuses it, or if a time is not
        valid; EventConflict if its (source, id) was used for other content; NotSetUp; and TemporalUnavailable if Temporal did not
        respond within 10 to 20 s. In that case Temporal may have stored the event or not, so publish it again.
        """
        event, starts_at = one_event(event), start_time(delay, deliver_at)
        if self._catalog is not None:
            self._catalog.check(event)
        if starts_at:
            self._scheduled.add([event])
        if starts_at and self._commits and (known := await self._commits.find(event)):
            return self._noted(event, known)
        if self._commits is None or event.key in self._scheduled:
            return (await self.publish_many([event], deliver_at=starts_at))[0]
        return self._noted(event, await self._commits.publish(event))

    async def publish_many(
        self, events: Iterable[Event], *, delay: Delay | None = None, deliver_at: DeliverAt | None = None
    ) -> list[Receipt]:
        """Publish events, with one workflow for up to 100 events and 1 MB. The receipts are in the order of the events.

        `delay` and `deliver_at` are those of `publish`; events for later have a workflow each, so that each can be cancelled.

        Raises EventConflict before anything starts if two events have the same (source, id) and different content, and
        EventInvalid if the catalog refuses one; otherwise as `publish`. After an error some events may have been published:
        publish the same events again. After the first TemporalUnavailable no more are started, so a long list fails as fast as a
        single event.
        """
        events, starts_at = many_events(events), start_time(delay, deliver_at)
        if self._catalog is not None:
            for position, event in enumerate(events):
                self._catalog.check(event, place=f"events[{position}]")
        alone: Container[str] = self._scheduled
        if starts_at:
            alone = {event.key for event in events}
            self._scheduled.add(events)
        slots = asyncio.Semaphore(CONCURRENCY)
        unavailable: list[TemporalUnavailable] = []

        async def start(publication: Publication) -> tuple[Publication, bool]:
            async with slots:
                if unavailable:
                    raise unavailable[0]
                try:
                    return publication, await self._start(publication, starts_at)
                except TemporalUnavailable as error:
                    unavailable.append(error)
                    raise

        results = await asyncio.gather(*map(start, publications(events, alone=alone)), return_exceptions=True)
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
            receipt = Receipt(
                source=event.source,
                event_id=event.id,
                workflow_id=workflow_id,
                duplicate=repeated,
                deliver_at=None if duplicate else starts_at,
            )
            receipts.append(self._noted(event, receipt))
            seen.add(event.key)
        return receipts

    def _noted(self, event: Event, receipt: Receipt) -> Receipt:
        """The receipt, which says whether the catalog deprecates the event's type. That is logged, once for each type."""
        reason = self._catalog.deprecation(event.type) if self._catalog is not None else None
        self._deprecations.note(event.type, reason)
        return receipt if reason is None else receipt.model_copy(update={"deprecated": reason})

    async def status(self, event: EventReference) -> Status:
        """The event's status now: from its workflow, or from the registry, through a worker, once Temporal has deleted it.

        Raises EventNotFound, EventConflict, TenantUnknown, TemporalUnavailable; WorkerUnavailable if the event is unsettled and
        no worker polls.
        """
        return await self._statuses.of(event)

    async def wait(self, event: EventReference, timeout: float | None = None) -> Status:
        """Wait until every delivery of the event is settled, for up to `timeout` seconds, or without limit if None.

        Waits for events of one publication share their calls. While no worker polls, it goes on waiting. Raises WaitTimeout and
        what `status` raises.
        """
        return (await self._statuses.settled([event], timeout))[0]

    async def wait_many(self, events: Iterable[EventReference], timeout: float | None = None) -> list[Status]:
        """Wait until every delivery of all the events is settled, and return their statuses in the order of the events.

        It asks once for all events of a publication. Raises what `wait` raises; `statuses` of a WaitTimeout has what is known
        of each event: None for one whose worker did not answer.
        """
        if isinstance(events, Event | Receipt):
            raise TypeError("wait_many takes a list of events, not one event; write wait(event)")
        return await self._statuses.settled(list(events), timeout, look=True)

    async def cancel(self, event: EventReference, subscription_id: str | None = None) -> None:
        """Stop delivering the event, to one subscription or to all: unsettled deliveries settle as cancelled.

        One that was published for later is never delivered. What was sent stays sent. Raises EventNotFound, TemporalUnavailable;
        with a subscription id, what `pause` raises.
        """
        if subscription_id is not None:
            await self._control(Action.CANCEL, event, subscription_id)
            return
        status = await self.status(event)
        if status.settled:
            return
        handle = self.temporal.get_workflow_handle(status.workflow_id)
        with translated(self.temporal):
            if contract.is_batch(status.workflow_id):
                key = event_key(status.source, status.id)
                await handle.signal("control", contract.ControlRequest(action=Action.CANCEL, event_key=key))
            else:
                await handle.cancel()

    async def recall(
        self, event: EventReference, subscription_id: str | None = None, *, timeout: float | None = None
    ) -> Recalled:
        """Take the event's messages back, from one subscription or from all. What is not sent is cancelled.

        One that runs is joined, and a repeated one asks again for what was not taken back. Raises WaitTimeout after `timeout`
        seconds, while the recall goes on; NotRecallable, EventNotFound, DeliveryNotFound, TemporalUnavailable.
        """
        if (status := await self.status(event)).scheduled:
            await self.cancel(event, subscription_id)
            status = await self.wait(event, timeout)
        if status.cancelled:
            return Recalled()
        return await recall(self.temporal, status, subscription_id, timeout=timeout)

    async def pause(self, event: EventReference, subscription_id: str | None = None) -> ControlResult:
        """Make no more attempts for the event, to one subscription or to all, until `resume`.

        Raises EventNotFound, DeliveryNotFound if the subscription has no unsettled delivery of it, TemporalUnavailable.
        """
        return await self._control(Action.PAUSE, event, subscription_id)

    async def resume(self, event: EventReference, subscription_id: str | None = None) -> ControlResult:
        """Continue the event's paused deliveries, to one subscription or to all. Raises what `pause` raises."""
        return await self._control(Action.RESUME, event, subscription_id)

    async def retry(self, event: EventReference, subscription_id: str, *, end_pause: bool = False) -> str:
        """Attempt the event's delivery for this subscription now, and return the id of the workflow that attempts it.

        A delivery that waits is attempted at once; if that attempt is deferred, as many attempts are left as before. A paused
        delivery is attempted only with `end_pause`, which resumes it. A settled delivery is redelivered, with a new schedule.
        Raises EventNotFound, DeliveryNotFound, DeliveryPaused, TemporalUnavailable.
        """
        source, event_id, _ = address_of(event)
        if not isinstance(subscription_id, str):
            raise TypeError(f"subscription_id: must be a string, not a value of type {type(subscription_id).__name__}")
        found = await self._statuses.lookup(LookupInput(source=source, id=event_id, subscription_id=subscription_id))
        assert found.delivery
        assert found.delivery_state
        assert found.delivery_workflow_id
        abandoned = False
        if not found.delivery_state.settled:
            if await self._retry_now(found.delivery_workflow_id, subscription_id, end_pause=end_pause):
                return found.delivery_workflow_id
            abandoned = True
        workflow_id = contract.redelivery_workflow_id(found.event_key, subscription_id, found.delivery.attempt)
        with translated(self.temporal):
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
            update = handle.execute_update("retry_now", args=arguments, result_type=ControlResult)
            result = await answered(self.temporal, update, timeout=UPDATE_TIMEOUT)
        except WorkflowUpdateFailedError as error:
            raise DeliveryNotFound(f"the delivery has settled or is being attempted: {error.cause}") from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        if result.paused and not result.deliveries:
            raise DeliveryPaused
        return True

    async def _control(self, action: Action, event: EventReference, subscription_id: str | None) -> ControlResult:
        """Apply an action to the event's unsettled deliveries, to one subscription or to all."""
        source, event_id, _ = address_of(event)
        if subscription_id is None:
            status = await self.status(event)
            if status.scheduled:
                raise DeliveryNotFound("the event has no deliveries before it starts; it can only be cancelled")
            workflow_id, settled = status.workflow_id, status.settled
        else:
            found = await self._statuses.lookup(
                LookupInput(source=source, id=event_id, subscription_id=subscription_id)
            )
            assert found.delivery_state
            assert found.delivery_workflow_id
            workflow_id, settled = found.delivery_workflow_id, found.delivery_state.settled
        if settled and subscription_id is None:
            return ControlResult(deliveries=0)
        if settled:
            raise DeliveryNotFound("the delivery has settled; nothing was changed")
        # The workflow of several events must know which; a worker of an earlier version takes one argument.
        more = [event_key(source, event_id)] if contract.is_batch(workflow_id) else []
        handle = self.temporal.get_workflow_handle(workflow_id)
        update = handle.execute_update(str(action), args=[subscription_id, *more], result_type=ControlResult)
        try:
            return await answered(self.temporal, update, timeout=UPDATE_TIMEOUT)
        except WorkflowUpdateFailedError as error:
            raise DeliveryNotFound(f"nothing was changed: {error.cause}") from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise DeliveryNotFound("the delivery has settled; nothing was changed") from error

    async def _start(self, publication: Publication, starts_at: datetime | None = None) -> bool:
        """Start the workflow of a publication, at once or then; True if it was started before."""
        first = publication.events[0]
        memo: dict[str, Any] = {contract.DIGEST_MEMO: publication.digest}
        start_delay = None
        if starts_at is not None and (ahead := starts_at - datetime.now(UTC)) > timedelta():
            memo[contract.EVENT_MEMO], start_delay = [first.source, first.id], ahead
        try:
            with translated(self.temporal):
                await self.temporal.start_workflow(
                    contract.NOTIFY,
                    NotifyInput(events=publication.events),
                    id=publication.workflow_id,
                    task_queue=contract.QUEUE,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo=memo,
                    start_delay=start_delay,
                    search_attributes=publication.search_attributes,
                    priority=publication.priority,
                    static_summary=publication.summary,
                    rpc_timeout=START_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            with translated(self.temporal):
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
