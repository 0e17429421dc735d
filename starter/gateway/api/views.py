"""What the API shows of events and deliveries. Every field is the field's standard term, and times are RFC 3339 in UTC."""

from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from bellwire.contract import Recalled
from bellwire.deliveries import Attempt, Counts, Delivery, Failed, Unsettled, delivery_id
from bellwire.receipts import Status
from bellwire.registry import StoredEvent


class AttemptView(BaseModel):
    """One try at a delivery."""

    number: int
    started_at: datetime
    duration: float = Field(description="Seconds.")
    outcome: str = Field(description="`delivered`, `rejected`, `deferred` or `unknown`.")
    reason: str
    response: str | None = Field(description="The start of the response, or of the reply.")
    provider_id: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptView":
        return cls(
            number=attempt.number,
            started_at=attempt.started_at,
            duration=attempt.duration,
            outcome=attempt.outcome.kind,
            reason=attempt.outcome.reason,
            response=attempt.outcome.response,
            provider_id=attempt.outcome.provider_id,
        )


class DeliveryView(BaseModel):
    """One event for one subscription."""

    id: str = Field(description="The id on which receivers deduplicate.")
    event: str = Field(description="The key of the event.")
    subscription: str
    channel: str
    state: str = Field(
        description="`pending`, `sending`, `waiting`, `delivered`, `rejected`, `exhausted` or `cancelled`."
    )
    attempts: int = Field(description="How many were made.")
    reason: str = Field(
        description="Of the last attempt; empty before the first. `recalled` once its message was taken back."
    )
    next_attempt_at: datetime | None = Field(description="About when the next attempt is due; null if none is.")
    updated_at: datetime
    attempt_log: list[AttemptView] | None = Field(default=None, description="With `include=attempts`.")

    @classmethod
    def of(cls, delivery: Delivery, attempts: list[Attempt] | None = None) -> "DeliveryView":
        due = None
        if not delivery.state.settled and delivery.delay is not None:
            due = delivery.not_before or delivery.updated_at + timedelta(seconds=delivery.delay)
        return cls(
            id=delivery.id,
            event=delivery.event_key,
            subscription=delivery.subscription_id,
            channel=delivery.channel,
            state=delivery.state,
            attempts=delivery.attempts,
            reason=delivery.reason,
            next_attempt_at=due,
            updated_at=delivery.updated_at,
            attempt_log=None if attempts is None else [AttemptView.of(attempt) for attempt in attempts],
        )


class CountsView(BaseModel):
    """How many deliveries an event has, by state."""

    matched: int
    delivered: int
    rejected: int
    exhausted: int
    cancelled: int
    unsettled: int

    @classmethod
    def of(cls, counts: Counts) -> "CountsView":
        return cls(**counts.model_dump(), unsettled=counts.unsettled)


class EventView(BaseModel):
    """A published event."""

    key: str = Field(description="Identifies source and id.")
    event: dict[str, Any] = Field(description="In the CloudEvents JSON format.")
    accepted_at: datetime
    workflow_id: str = Field(description="The workflow that delivers it, as operators see it in the Temporal UI.")
    counts: CountsView
    settled: bool
    deliveries: list[DeliveryView] | None = Field(default=None, description="With `include=deliveries`.")

    @classmethod
    def of(cls, stored: StoredEvent, deliveries: list[DeliveryView] | None = None) -> "EventView":
        return cls(
            key=stored.event.key,
            event=stored.event.structured(),
            accepted_at=stored.accepted_at,
            workflow_id=stored.workflow_id,
            counts=CountsView.of(stored.counts),
            settled=not stored.counts.unsettled,
            deliveries=deliveries,
        )


class UnsettledView(BaseModel):
    """A delivery that is to be attempted again."""

    delivery: str
    subscription: str
    channel: str
    attempts: int
    reason: str
    due_at: datetime | None = Field(description="Null during an attempt, and while paused.")
    paused: bool

    @classmethod
    def of(cls, unsettled: Unsettled) -> "UnsettledView":
        return cls(
            delivery=unsettled.delivery_id,
            subscription=unsettled.subscription_id,
            channel=unsettled.channel,
            attempts=unsettled.attempts,
            reason=unsettled.reason,
            due_at=unsettled.due,
            paused=unsettled.paused,
        )


class FailedView(BaseModel):
    """A delivery that was rejected or exhausted."""

    delivery: str
    subscription: str
    channel: str
    state: str
    attempts: int
    reason: str

    @classmethod
    def of(cls, failed: Failed) -> "FailedView":
        return cls(
            delivery=failed.delivery_id,
            subscription=failed.subscription_id,
            channel=failed.channel,
            state=failed.state,
            attempts=failed.attempts,
            reason=failed.reason,
        )


class StatusView(BaseModel):
    """An event's status now, as its workflow has it."""

    source: str
    id: str
    workflow_id: str
    counts: CountsView
    settled: bool = Field(description="Whether every delivery is delivered, rejected, exhausted or cancelled.")
    scheduled: bool = Field(description="Whether it is to be delivered later; subscriptions are matched then.")
    deliver_at: datetime | None = Field(description="When it starts, or would have; null once it has started.")
    cancelled: bool = Field(description="Whether it was cancelled before it started, so that nothing was sent.")
    unsettled: list[UnsettledView] = Field(description="The first ones, the earliest due first.")
    failed: list[FailedView] = Field(description="The first ones.")

    @classmethod
    def of(cls, status: Status) -> "StatusView":
        return cls(
            source=status.source,
            id=status.id,
            workflow_id=status.workflow_id,
            counts=CountsView.of(status.counts),
            settled=status.settled,
            scheduled=status.scheduled,
            deliver_at=status.deliver_at,
            cancelled=status.cancelled,
            unsettled=[UnsettledView.of(each) for each in status.unsettled],
            failed=[FailedView.of(each) for each in status.failed],
        )


class RecalledView(BaseModel):
    """What became of taking one message back."""

    delivery: str
    subscription: str
    channel: str
    result: str = Field(
        description="`taken back`, `too late`, `cannot be taken back`, `not delivered`, `unknown`, `busy` or `refused`."
    )
    detail: str = Field(description="Why, as far as the provider says it.")


class RecallView(BaseModel):
    """What became of the messages of an event that were to be taken back."""

    event: str = Field(description="The key of the event.")
    ended: bool = Field(description="Whether all messages were asked for. If not, repeat the request for the results.")
    results: dict[str, int] = Field(description="How many deliveries have which result.")
    deliveries: list[RecalledView] = Field(description="The first 500, those first that were not taken back.")

    @classmethod
    def of(cls, event_key: str, recalled: Recalled | None) -> "RecallView":
        """`recalled`: None while it goes on."""
        found = recalled or Recalled()
        return cls(
            event=event_key,
            ended=recalled is not None,
            results={str(result): number for result, number in found.results.items()},
            deliveries=[
                RecalledView(
                    delivery=delivery_id(event_key, each.subscription_id),
                    subscription=each.subscription_id,
                    channel=each.channel,
                    result=each.result,
                    detail=each.detail,
                )
                for each in found.deliveries
            ],
        )
