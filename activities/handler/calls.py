"""HandlerCalling: the two activities around a call, which read the registry before it and write what it came to after it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from temporalio import activity

from activities.sending.attempt import DISABLED, EndedAttempt, finish_attempt
from activities.sending.ledger import AttemptLedger
from bellwire.contract import (
    MAX_PUBLICATION_BYTES,
    CallOutcome,
    CallRecords,
    Chunk,
    ChunkResult,
    HandlerCall,
    HandlerCalls,
    OpenedCalls,
)
from bellwire.deliveries import Fault, Outcome
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import HandlerTarget


class HandlerCalling:
    """The activities `open_calls` and `record_calls`. Each can be retried at any point: what is recorded is skipped."""

    def __init__(self, registry: Registry, *, max_bytes: int = MAX_PUBLICATION_BYTES) -> None:
        """`max_bytes`: of all events that one call of `open_calls` returns; the first one always fits."""
        self._registry, self._max_bytes = registry, max_bytes

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """Both, to be registered with a worker."""
        return [self.open_calls, self.record_calls]

    @activity.defn
    async def open_calls(self, chunk: Chunk) -> OpenedCalls:
        """Return the calls of handlers that are due, by service. Deliveries of disabled subscriptions are rejected."""
        ledger = AttemptLedger(self._registry)
        requests = await ledger.load_due(chunk.groups)
        finish = partial(finish_attempt, default_schedule=chunk.schedule, published_at=chunk.published_at)
        wanted = []
        for request in requests:
            if request.subscription.state is SubscriptionState.DISABLED:
                ledger.add(finish(request, EndedAttempt(DISABLED, datetime.now(UTC), 0.0)))
            else:
                wanted.append(request)
        await ledger.write()
        fitting, others = self._divide(wanted)
        return OpenedCalls(
            **dict(ledger.result), batches=_batches(fitting), remaining=tuple(request.group for request in others)
        )

    @activity.defn
    async def record_calls(self, records: CallRecords) -> ChunkResult:
        """Record what calls of handlers came to."""
        ledger = AttemptLedger(self._registry)
        outcomes = {(each.event_key, each.subscription_id): each for each in records.outcomes}
        for request in await ledger.load_unrecorded(records.groups):
            ended = _ended(outcomes[request.delivery.event_key, request.delivery.subscription_id])
            ledger.add(finish_attempt(request, ended, records.schedule, published_at=records.published_at))
        await ledger.write()
        return ledger.result

    def _divide(self, requests: Sequence[SendRequest]) -> tuple[list[SendRequest], list[SendRequest]]:
        """Those whose events fit into one payload together, and the others."""
        fitting, others, events, size = list[SendRequest](), list[SendRequest](), set[str](), 0
        for request in requests:
            key, added = request.event.key, len(request.events_json[0].encode())
            if key not in events and events and size + added > self._max_bytes:
                others.append(request)
                continue
            size += 0 if key in events else added
            events.add(key)
            fitting.append(request)
        return fitting, others


def _batches(requests: Sequence[SendRequest]) -> tuple[HandlerCalls, ...]:
    by_service = defaultdict[str, list[SendRequest]](list)
    for request in requests:
        by_service[_target(request).service].append(request)
    return tuple(
        HandlerCalls(
            service=service,
            events=_events(own),
            calls=tuple(
                HandlerCall(
                    event_key=request.delivery.event_key,
                    subscription_id=request.delivery.subscription_id,
                    handler=_target(request).name,
                    attempt=request.number,
                )
                for request in own
            ),
        )
        for service, own in by_service.items()
    )


def _events(requests: Sequence[SendRequest]) -> dict[str, Event]:
    return {request.delivery.event_key: request.event for request in requests}


def _target(request: SendRequest) -> HandlerTarget:
    assert isinstance(request.subscription.target, HandlerTarget)
    return request.subscription.target


def _ended(outcome: CallOutcome) -> EndedAttempt:
    came_to = Outcome(kind=outcome.kind, reason=outcome.reason, retry_after=outcome.retry_after, fault=Fault.RECEIVER)
    return EndedAttempt(came_to, outcome.started_at, outcome.duration)
