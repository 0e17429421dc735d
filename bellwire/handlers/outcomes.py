"""What a function of a handler says by raising, and the outcome that follows."""

from contextvars import ContextVar
from datetime import timedelta
from typing import NamedTuple

from bellwire.deliveries import MAX_REASON, OutcomeKind
from bellwire.formats.durations import format_duration, parse_duration

#: The longest delay that a handler can ask for.
MAX_DELAY = 7 * 86_400.0

#: Seconds, or text such as 90s, 5m, 1h30m.
Duration = float | str | timedelta


def seconds_of(value: Duration, name: str) -> float:
    """A duration in seconds. Raises ValueError, which names the argument."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        return parse_duration(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error


class Retry(Exception):
    """Raised by a handler: try again, after this delay, or without one by the retry schedule. It counts as an attempt."""

    def __init__(self, reason: str = "the handler asked for a retry", *, after: Duration | None = None) -> None:
        super().__init__(reason)
        #: Seconds; None: by the schedule.
        self.after = None if after is None else seconds_of(after, "after")
        if self.after is not None and not 0 <= self.after <= MAX_DELAY:
            raise ValueError(f"after: must be 0 to {format_duration(MAX_DELAY)}")


class Reject(Exception):
    """Raised by a handler: never try this event again."""

    def __init__(self, reason: str = "the handler rejected the event") -> None:
        super().__init__(reason)


class CurrentDelivery(NamedTuple):
    """The delivery that a handler is called for."""

    #: The same on every attempt: deduplicate on it.
    id: str
    #: From 1.
    attempt: int


#: Set while a function of a handler runs.
current: ContextVar[CurrentDelivery] = ContextVar("current_delivery")


def current_delivery() -> CurrentDelivery:
    """The delivery that the running handler is called for. Raises LookupError outside of handlers."""
    return current.get()


class Result(NamedTuple):
    """What a call of a function came to."""

    kind: OutcomeKind
    reason: str
    retry_after: float | None = None


DONE = Result(OutcomeKind.DELIVERED, reason="handled")
#: The reason of a call during which its process was killed, or did not answer for 15 s. The first time, the call is made again.
PROCESS_ENDED = "the process ended during the call, twice"


def result_of(error: BaseException) -> Result:
    """The result of a function that raised."""
    match error:
        case Reject():
            return Result(OutcomeKind.REJECTED, reason=_line(error))
        case Retry():
            return Result(OutcomeKind.DEFERRED, reason=_line(error), retry_after=error.after)
        case _:
            exception, message = type(error).__name__, _line(error)
            return Result(OutcomeKind.DEFERRED, reason=bounded(f"{exception}: {message}".removesuffix(": ")))


def bounded(text: str) -> str:
    """One line of at most MAX_REASON characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _line(error: BaseException) -> str:
    try:
        return bounded(str(error))
    except Exception:  # an exception class of the service may fail to describe itself
        return ""
