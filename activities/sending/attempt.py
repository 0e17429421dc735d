"""One attempt: the call of the channel, what follows from its outcome, and the log line and metrics of it."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from temporalio import activity

from activities.sending.settled import count_settled
from bellwire.deliveries import Attempt, DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import RETRY_AFTER_BOUNDS
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import SPECS

log = structlog.get_logger("bellwire")

#: What a channel provides: it sends one request. Whatever the receiver or the provider does is an outcome; an exception is a
#: fault of the platform, such as a registry that is down.
ChannelAttempt = Callable[[SendRequest], Awaitable[Outcome]]


#: Of every attempt for a disabled subscription.
DISABLED = Outcome(kind=OutcomeKind.REJECTED, reason="subscription disabled", fault=Fault.OPERATOR)


class RetryDecision(NamedTuple):
    """What an outcome means for its delivery."""

    state: DeliveryState
    #: Seconds until the next attempt, before jitter; None once settled.
    delay: float | None = None
    from_retry_after: bool = False


class EndedAttempt(NamedTuple):
    """What an attempt came to, wherever it was made."""

    outcome: Outcome
    started_at: datetime
    #: Seconds.
    duration: float


async def run_attempt(
    request: SendRequest,
    attempt: ChannelAttempt,
    default_schedule: Sequence[float],
    *,
    published_at: datetime | None = None,
) -> Attempt:
    """Run one attempt and decide what follows. The default schedule is for subscriptions without one of their own.

    `published_at` is when Temporal took the event, if that is known.
    """
    started_at, start = datetime.now(UTC), time.perf_counter()
    if request.subscription.state is SubscriptionState.DISABLED:
        outcome = DISABLED
    else:
        outcome = await attempt(request)
    ended = EndedAttempt(outcome, started_at, time.perf_counter() - start)
    return finish_attempt(request, ended, default_schedule, published_at=published_at)


def finish_attempt(
    request: SendRequest,
    ended: EndedAttempt,
    default_schedule: Sequence[float],
    *,
    published_at: datetime | None = None,
) -> Attempt:
    """Decide what follows from an attempt, log it and count it."""
    outcome = ended.outcome
    decision = decide_retry(outcome, request, default_schedule)
    done = Attempt(
        event_key=request.delivery.event_key,
        subscription_id=request.delivery.subscription_id,
        number=request.number,
        started_at=ended.started_at,
        duration=ended.duration,
        outcome=outcome,
        state=decision.state,
        delay=decision.delay,
        from_retry_after=decision.from_retry_after,
        degraded=request.health.degraded,
        extra=request.is_uncounted,
        subscription_version=request.subscription.version,
        receipts=SPECS[request.delivery.channel].receipts,
    )
    _log(request, done)
    _measure(request, done, published_at)
    return done


def decide_retry(outcome: Outcome, request: SendRequest, default_schedule: Sequence[float]) -> RetryDecision:
    """The state of a delivery after an outcome, and when it is attempted again.

    The longer of Retry-After and the schedule's delay counts, so that a receiver can postpone attempts but not use them up. A
    handler is the platform's own code: the delay that it asks for counts, whatever the schedule's is.
    """
    if outcome.kind is OutcomeKind.DELIVERED:
        return RetryDecision(DeliveryState.DELIVERED)
    if outcome.kind is OutcomeKind.REJECTED:
        return RetryDecision(DeliveryState.REJECTED)
    own = request.own_schedule
    schedule = default_schedule if own is None else own
    step = request.schedule_step
    if step >= len(schedule):
        return RetryDecision(DeliveryState.EXHAUSTED)
    delay, requested = schedule[step], min(outcome.retry_after or 0.0, RETRY_AFTER_BOUNDS[1])
    if SPECS[request.delivery.channel].in_services and outcome.retry_after is not None:
        return RetryDecision(DeliveryState.WAITING, outcome.retry_after, from_retry_after=True)
    return RetryDecision(DeliveryState.WAITING, max(delay, requested), from_retry_after=requested > delay)


def _log(request: SendRequest, done: Attempt) -> None:
    """One wide line per attempt."""
    sent = done.outcome.provider_id
    log.info(
        "delivery.attempted",
        delivery=request.id,
        event_source=request.event.source,
        event_id=request.event.id,
        event_type=request.event.type,
        tenant=request.subscription.tenant,
        subscription=request.subscription.id,
        channel=str(request.delivery.channel),
        attempt=done.number,
        outcome=str(done.outcome.kind),
        reason=done.outcome.reason,
        state=str(done.state),
        duration_ms=round(done.duration * 1000),
        next_attempt_in=done.delay,
        # Of others, the last part: before it, Slack's has the conversation.
        provider_id=sent if sent is None or done.receipts else sent.rpartition("/")[2],
        workflow=request.delivery.workflow_id,
    )


def _measure(request: SendRequest, done: Attempt, published_at: datetime | None) -> None:
    meter = activity.metric_meter()
    channel = str(request.delivery.channel)
    labels = {"channel": channel, "outcome": str(done.outcome.kind)}
    meter.create_counter("bellwire_attempts", "Attempts at deliveries").add(1, labels)
    meter.create_histogram_float("bellwire_attempt_duration_seconds", "Duration of attempts").record(
        done.duration, labels
    )
    if done.outcome.fault is Fault.OPERATOR and done.outcome.kind in {OutcomeKind.DEFERRED, OutcomeKind.UNKNOWN}:
        meter.create_counter("bellwire_attempts_blocked", "Attempts that wait for the operator").add(
            1, {"channel": channel}
        )
    if done.state.settled:
        count_settled(request.delivery.channel, done.state)
    if published_at is not None and done.number == 1:
        latency = max((done.started_at - published_at).total_seconds(), 0.0)
        meter.create_histogram_float(
            "bellwire_publish_to_first_attempt_seconds", "Time from publishing to the start of the first attempt"
        ).record(latency, {"channel": channel})
