"""Start times: when a publication starts that is to be delivered later."""

import math
from datetime import UTC, datetime, timedelta

from bellwire.errors import EventInvalid
from bellwire.formats.durations import format_duration, parse_duration
from bellwire.formats.timestamps import in_range, parse_timestamp

#: How long an event can wait before it is delivered.
MAX_DELAY = timedelta(days=365)
#: How late `deliver_at` may be. Clocks differ, and a publisher that got no response publishes again; older times are mistakes.
TOLERANCE = timedelta(minutes=5)

#: Seconds, a timedelta, or text such as 90s, 2h or 1d12h.
Delay = float | timedelta | str
#: An aware datetime, or text of RFC 3339.
DeliverAt = datetime | str


def start_time(delay: Delay | None, deliver_at: DeliverAt | None) -> datetime | None:
    """When an event is to be delivered, in UTC; None: at once.

    Raises EventInvalid, which names the field, if both are given, if one is not valid or more than MAX_DELAY ahead, if the delay
    is negative, and if `deliver_at` is more than TOLERANCE ago; and TypeError.
    """
    if delay is not None and deliver_at is not None:
        raise EventInvalid("delay: cannot be combined with deliver_at; give one of them")
    now = datetime.now(UTC)
    if delay is not None:
        name, ahead = "delay", _delay(delay)
        if ahead < timedelta():
            raise EventInvalid("delay: must not be negative; leave it out to deliver the event at once")
    elif deliver_at is not None:
        name, ahead = "deliver_at", _time(deliver_at) - now
        if ahead < -TOLERANCE:
            raise EventInvalid("deliver_at: is in the past; leave it out to deliver the event at once")
    else:
        return None
    if ahead > MAX_DELAY:
        limit = format_duration(MAX_DELAY.total_seconds())
        raise EventInvalid(f"{name}: is more than {limit} ahead; publish the event later")
    return now + ahead if ahead > timedelta() else None


def _delay(delay: object) -> timedelta:
    match delay:
        case timedelta():
            return delay
        case str():
            try:
                return timedelta(seconds=parse_duration(delay))
            except ValueError as error:
                raise EventInvalid(f"delay: {error}") from error
        case bool():
            pass
        # A large int has no float.
        case int() | float() if isinstance(delay, int) or math.isfinite(delay):
            try:
                return timedelta(seconds=delay)
            except OverflowError:
                return timedelta.max if delay > 0 else timedelta.min
        case int() | float():
            raise EventInvalid("delay: must be seconds as a finite number")
    raise TypeError(
        f"delay: must be seconds, a timedelta or text such as 2h, not a value of type {type(delay).__name__}"
    )


def _time(deliver_at: object) -> datetime:
    try:
        match deliver_at:
            case datetime():
                return in_range(deliver_at).astimezone(UTC)
            case str():
                return parse_timestamp(deliver_at).astimezone(UTC)
    except ValueError as error:
        raise EventInvalid(f"deliver_at: {error}") from error
    kind = type(deliver_at).__name__
    raise TypeError(f"deliver_at: must be a datetime or text of RFC 3339, not a value of type {kind}")
