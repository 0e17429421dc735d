"""MemoryHandlers: the activities around calls of handlers, over the dictionaries of a MemoryRegistry."""

from collections import Counter, defaultdict
from datetime import datetime

from temporalio import activity

from bellwire.contract import (
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
from bellwire.deliveries import DeliveryState, Failed, OutcomeKind
from bellwire.subscriptions import Subscription
from bellwire.targets import HandlerTarget
from bellwire.testing.registry import MemoryRegistry

_STATES = {OutcomeKind.DELIVERED: DeliveryState.DELIVERED, OutcomeKind.REJECTED: DeliveryState.REJECTED}


class MemoryHandlers(MemoryRegistry):
    """`open_calls`, `record_calls` and `register_handlers`."""

    @activity.defn
    async def open_calls(self, chunk: Chunk) -> OpenedCalls:
        calls: dict[str, list[HandlerCall]] = defaultdict(list)
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        for group in chunk.groups:
            for name in group.subscription_ids:
                delivery = self.deliveries.get((group.event_key, name))
                if delivery is None or delivery.state.settled:
                    settled[group.event_key][delivery.state if delivery else DeliveryState.CANCELLED] += 1
                    continue
                target = self._target(name)
                calls[target.service].append(
                    HandlerCall(
                        event_key=group.event_key, subscription_id=name, handler=target.name, attempt=group.attempt
                    )
                )
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
        outcomes = {(each.event_key, each.subscription_id): each for each in records.outcomes}
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        deferred, failed = list[Deferred](), list[Failed]()
        for group in records.groups:
            for name in group.subscription_ids:
                delivery, outcome = self.deliveries[group.event_key, name], outcomes[group.event_key, name]
                own = self.stored[name].retry_schedule if name in self.stored else None
                schedule = records.schedule if own is None else own
                delivery.attempts, delivery.reason = group.attempt, outcome.reason
                uncounted = group.extra and group.attempt > delivery.schedule_from + 1
                delivery.schedule_from += uncounted
                step = group.attempt - delivery.schedule_from - 1
                common = {
                    "event_key": group.event_key,
                    "subscription_id": name,
                    "attempts": group.attempt,
                    "reason": outcome.reason,
                }
                if outcome.kind in _STATES:
                    delivery.state = _STATES[outcome.kind]
                elif step >= len(schedule):
                    delivery.state = DeliveryState.EXHAUSTED
                else:
                    delivery.state, asked = DeliveryState.WAITING, outcome.retry_after is not None
                    delay = schedule[step] if outcome.retry_after is None else outcome.retry_after
                    deferred.append(Deferred.model_validate({**common, "delay": delay, "from_retry_after": asked}))
                self.capture(delivery, outcome.kind, await self.now())
                if delivery.state.settled:
                    settled[group.event_key][delivery.state] += 1
                if delivery.state in {DeliveryState.REJECTED, DeliveryState.EXHAUSTED}:
                    of_channel = {"channel": delivery.channel, "state": delivery.state}
                    failed.append(Failed.model_validate({**common, **of_channel}))
        return ChunkResult(
            settled={key: dict(states) for key, states in settled.items()},
            deferred=tuple(deferred),
            failed=tuple(failed),
        )

    @activity.defn
    async def register_handlers(self, registration: HandlerRegistration) -> HandlerRegistrationResult:
        ids = dict[str, str]()
        for handler in registration.handlers:
            subscription = Subscription(
                id=handler_subscription_id(registration.service, handler.name),
                tenant=registration.tenant,
                types=handler.types,
                filters=handler.filters,
                target=HandlerTarget(service=registration.service, name=handler.name),
                retry_schedule=handler.retry_schedule,
                rate_limit=handler.rate_limit,
            )
            is_new = subscription.id not in self.stored
            self.subscribe(subscription)
            if is_new and handler.since is not None:
                await self.deliver_past(subscription, handler.since)
            ids[handler.name] = subscription.id
        return HandlerRegistrationResult(subscriptions=ids, created=tuple(ids))

    async def deliver_past(self, subscription: Subscription, since: datetime) -> None:
        """Deliver to a new subscription what happened since then; without workflows, nothing does."""

    def _target(self, subscription_id: str) -> HandlerTarget:
        """The target of a stored subscription; of one that is only an id, service and handler are in it: service_handler."""
        if stored := self.stored.get(subscription_id):
            assert isinstance(stored.target, HandlerTarget)
            return stored.target
        service, _, handler = subscription_id.partition("_")
        return HandlerTarget(service=service, name=handler)
