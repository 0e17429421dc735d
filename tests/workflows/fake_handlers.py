"""The activities around calls of handlers, over the dictionaries of a fake registry. Each subscription is a handler's name."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from temporalio import activity

from bellwire.contract import (
    CallOutcome,
    CallRecords,
    Chunk,
    ChunkResult,
    Deferred,
    HandlerCall,
    HandlerCalls,
    HandlerRegistration,
    HandlerRegistrationResult,
    OpenedCalls,
    handler_subscription_id,
)
from bellwire.deliveries import DeliveryState, OutcomeKind
from tests.workflows.fake_registry import FakeDelivery, FakeEvent

#: The service of handlers whose subscription is a bare name. A subscription `service_name` has one of its own.
SERVICE = "fake"

_STATES = {OutcomeKind.DELIVERED: DeliveryState.DELIVERED, OutcomeKind.REJECTED: DeliveryState.REJECTED}


class FakeHandlers:
    """`open_calls`, `record_calls` and `register_handlers`."""

    events: dict[str, FakeEvent]
    deliveries: dict[tuple[str, str], FakeDelivery]

    @activity.defn
    async def open_calls(self, chunk: Chunk) -> OpenedCalls:
        calls: dict[str, list[HandlerCall]] = defaultdict(list)
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        for group in chunk.groups:
            for name in group.subscription_ids:
                delivery = self.deliveries[group.event_key, name]
                if delivery.state.settled:
                    settled[group.event_key][delivery.state] += 1
                    continue
                service, _, handler = name.rpartition("_")
                call = HandlerCall(
                    event_key=group.event_key, subscription_id=name, handler=handler, attempt=group.attempt
                )
                calls[service or SERVICE].append(call)
        return OpenedCalls(
            settled={key: dict(states) for key, states in settled.items()},
            batches=tuple(
                HandlerCalls(
                    service=service,
                    events={call.event_key: self.events[call.event_key].event for call in of_service},
                    calls=tuple(of_service),
                )
                for service, of_service in calls.items()
            ),
        )

    @activity.defn
    async def record_calls(self, records: CallRecords) -> ChunkResult:
        outcomes: Mapping[tuple[str, str], CallOutcome]
        outcomes = {(each.event_key, each.subscription_id): each for each in records.outcomes}
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        deferred = []
        for group in records.groups:
            for name in group.subscription_ids:
                delivery, outcome = self.deliveries[group.event_key, name], outcomes[group.event_key, name]
                delivery.attempts, delivery.reason = group.attempt, outcome.reason
                if outcome.kind in _STATES:
                    delivery.state = _STATES[outcome.kind]
                elif group.attempt > len(records.schedule):
                    delivery.state = DeliveryState.EXHAUSTED
                else:
                    delivery.state = DeliveryState.WAITING
                    asked = outcome.retry_after is not None
                    delay = outcome.retry_after or 0.0 if asked else records.schedule[group.attempt - 1]
                    deferred.append(
                        Deferred(
                            event_key=group.event_key,
                            subscription_id=name,
                            attempts=group.attempt,
                            delay=delay,
                            from_retry_after=asked,
                            reason=outcome.reason,
                        )
                    )
                if delivery.state.settled:
                    settled[group.event_key][delivery.state] += 1
        return ChunkResult(settled={key: dict(states) for key, states in settled.items()}, deferred=tuple(deferred))

    @activity.defn
    async def register_handlers(self, registration: HandlerRegistration) -> HandlerRegistrationResult:
        ids = {each.name: handler_subscription_id(registration.service, each.name) for each in registration.handlers}
        return HandlerRegistrationResult(subscriptions=ids, created=tuple(ids))
