"""Responses: what the receiver of an attempt does. Scripts of tests consist of them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from bellwire.deliveries import DeliveryState


class NextAttempt(NamedTuple):
    """When a deferred delivery is attempted again."""

    #: Seconds.
    delay: float
    #: Whether the delay is the receiver's Retry-After, so that it gets no jitter.
    from_retry_after: bool = False


@dataclass(frozen=True)
class Response:
    """What the receiver of an attempt does. Made by `delivered`, `rejected` and `deferred`."""

    #: The state of the delivery after it. `waiting` becomes `exhausted` at the end of the schedule.
    state: DeliveryState
    #: Why, in one short line.
    reason: str
    #: Seconds that a deferring receiver asks to wait; None: it does not say.
    retry_after: float | None = None

    def next_attempt(self, scheduled: float | None) -> NextAttempt | None:
        """When the delivery is attempted again, by the delay of its schedule; None: the schedule has ended.

        As in production, the longer of Retry-After and the schedule's delay counts.
        """
        if scheduled is None:
            return None
        requested = self.retry_after or 0.0
        return NextAttempt(max(scheduled, requested), from_retry_after=requested > scheduled)


def delivered(reason: str = "HTTP 200") -> Response:
    """The receiver accepts the attempt."""
    return Response(DeliveryState.DELIVERED, reason)


def rejected(reason: str = "HTTP 410") -> Response:
    """The receiver refuses the delivery for ever; it is not attempted again."""
    return Response(DeliveryState.REJECTED, reason)


def deferred(reason: str = "HTTP 503", *, retry_after: float | timedelta | None = None) -> Response:
    """The receiver refuses the attempt for now. The next one follows by the schedule, or after `retry_after` if that is later."""
    seconds = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
    return Response(DeliveryState.WAITING, reason, seconds)
