"""AttemptLedger: what became of the deliveries of one chunk, and which attempts the registry does not have yet."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from activities.sending.throttling import Hold, screen, throttled_until
from bellwire.contract import MAX_FAILED, ChunkResult, Deferred, Group, HoldReason
from bellwire.deliveries import FAILED, Attempt, DeliveryState, Failed
from bellwire.endpoint_health import throttle_window
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel


class AttemptLedger:
    """Adds up the result of a chunk while its deliveries are attempted, and writes attempts to the registry in batches."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._unwritten: list[Attempt] = []
        self._settled: dict[str, dict[DeliveryState, int]] = defaultdict(lambda: defaultdict(int))
        self._deferred: list[Deferred] = []
        self._failed: list[Failed] = []
        #: By subscription, the channel of its deliveries.
        self._channels: dict[str, Channel] = {}
        #: By subscription, until when an attempt of this chunk has had it throttled.
        self._throttled_until: dict[str, datetime] = {}
        #: Attempts added so far.
        self.added = 0

    @property
    def result(self) -> ChunkResult:
        return ChunkResult(
            settled={key: dict(states) for key, states in self._settled.items()},
            deferred=tuple(self._deferred),
            failed=tuple(self._failed[:MAX_FAILED]),
        )

    async def load_due(self, groups: Sequence[Group]) -> list[SendRequest]:
        """Load the deliveries of the groups and return those to attempt now: neither recorded already nor held by a gate."""
        passed, held = await screen(self._registry, await self.load_unrecorded(groups), now=datetime.now(UTC))
        self._deferred += held
        return passed

    async def load_unrecorded(self, groups: Sequence[Group]) -> list[SendRequest]:
        """Load the deliveries of the groups and return those whose attempt is not recorded yet."""
        self._channels.update((name, group.channel) for group in groups for name in group.subscription_ids)
        loaded = await self._registry.attempts.load(groups)
        if len(loaded) < sum(len(group.subscription_ids) for group in groups):
            found = Counter(request.delivery.event_key for request in loaded)
            expected = Counter(group.event_key for group in groups for _ in group.subscription_ids)
            for event_key, number in (expected - found).items():
                self.count_missing(event_key, number)
        return self.skip_recorded(loaded)

    def skip_recorded(self, requests: Sequence[SendRequest]) -> list[SendRequest]:
        """Count what the registry has already, from an earlier try of the activity, and return the rest."""
        remaining = []
        for request in requests:
            if request.delivery.state.settled:
                self._settled[request.delivery.event_key][request.delivery.state] += 1
                if request.delivery.state in FAILED:
                    self._failed.append(_failed_before(request))
            elif request.delivery.attempts >= request.number:
                self._deferred.append(_deferred_before(request))
            else:
                remaining.append(request)
        return remaining

    def count_missing(self, event_key: str, number: int = 1) -> None:
        """Count deliveries that were deleted while a workflow held them as cancelled. Else the event would never settle."""
        self._settled[event_key][DeliveryState.CANCELLED] += number

    def add(self, attempt: Attempt) -> None:
        """Take an attempt, to be written with the next batch."""
        self.added += 1
        self._unwritten.append(attempt)
        if attempt.outcome.throttle:
            # The minimum: the registry knows how often the endpoint was throttled before.
            ends_at = attempt.ended_at + throttle_window(1, retry_after=attempt.outcome.retry_after)
            self._throttled_until[attempt.subscription_id] = ends_at

    def is_throttled(self, request: SendRequest) -> bool:
        """Whether an attempt of this chunk has had the endpoint throttled, so that this request is held."""
        until, now = self._throttled_until.get(request.delivery.subscription_id), datetime.now(UTC)
        if until is None or until <= now:
            return False
        self._deferred.append(throttled_until(until, now=now).defer(request, now=now))
        return True

    def defer(self, request: SendRequest) -> None:
        """Hold a request that exceeds a rate limit after all. It comes back at once, to get a reservation."""
        now = datetime.now(UTC)
        self._deferred.append(Hold(reason=HoldReason.RATE_LIMIT, until=now).defer(request, now=now))

    async def write(self) -> None:
        """Record the attempts added since the last call. What is not recorded, by an error or a cancel, stays for the next."""
        if not (batch := self._unwritten[:]):
            return
        await self._registry.attempts.record(batch)
        del self._unwritten[: len(batch)]
        for attempt in batch:
            if attempt.state.settled:
                self._settled[attempt.event_key][attempt.state] += 1
                if attempt.state in FAILED:
                    self._failed.append(self._failed_by(attempt))
            else:
                self._deferred.append(_deferred_by(attempt))

    def _failed_by(self, attempt: Attempt) -> Failed:
        return Failed(
            event_key=attempt.event_key,
            subscription_id=attempt.subscription_id,
            channel=self._channels[attempt.subscription_id],
            state=attempt.state,
            attempts=attempt.number,
            reason=attempt.outcome.reason,
        )


def _failed_before(request: SendRequest) -> Failed:
    """What an earlier try of this activity recorded of a delivery that failed."""
    return Failed(
        event_key=request.delivery.event_key,
        subscription_id=request.delivery.subscription_id,
        channel=request.delivery.channel,
        state=request.delivery.state,
        attempts=request.delivery.attempts,
        reason=request.delivery.reason,
    )


def _deferred_by(attempt: Attempt) -> Deferred:
    assert attempt.delay is not None
    return Deferred(
        event_key=attempt.event_key,
        subscription_id=attempt.subscription_id,
        attempts=attempt.number,
        delay=attempt.delay,
        from_retry_after=attempt.from_retry_after,
        reason=attempt.outcome.reason,
    )


def _deferred_before(request: SendRequest) -> Deferred:
    """What an earlier try of this activity recorded for the requested attempt."""
    return Deferred(
        event_key=request.delivery.event_key,
        subscription_id=request.delivery.subscription_id,
        attempts=request.delivery.attempts,
        delay=request.delivery.delay or 0.0,
        from_retry_after=request.delivery.from_retry_after,
        reason=request.delivery.reason,
    )
