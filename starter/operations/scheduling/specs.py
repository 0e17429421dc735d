"""What a schedule is made of, checked before Temporal gets it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from temporalio.client import ScheduleIntervalSpec, ScheduleSpec

from bellwire.events import Event
from bellwire.formats.durations import format_duration
from bellwire.models import Payload
from starter.operations.problems import InputInvalid, Problem

#: The shortest time between two ticks. A tick may take half of it, and Temporal starts 30 per second for a whole namespace.
MIN_PERIOD = timedelta(minutes=1)
#: Bounds of the catch-up window; the lower one is Temporal's.
MIN_CATCH_UP, MAX_CATCH_UP = timedelta(seconds=10), timedelta(days=365)
MAX_PERIOD = timedelta(days=365)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class NewSchedule:
    """A schedule to create: what to publish, and when. Either `cron` or `every` is given."""

    name: str
    #: The event of each tick, which gets an id and a time of its own.
    event: Event
    cron: Sequence[str] = ()
    every: timedelta | None = None
    #: The time zone of `cron`.
    time_zone: str = "UTC"
    #: How late a tick may be after an outage of Temporal; None: one period.
    catch_up: timedelta | None = None
    once_a_day: bool = False
    paused: bool = False


class ScheduleFacts(Payload):
    """What the memo of a Schedule says of it, so that listing reads nothing else."""

    type: str
    source: str
    tenant: str
    subject: str | None = None
    cron: tuple[str, ...] = ()
    #: Seconds; None with `cron`.
    every: float | None = None
    time_zone: str
    #: Seconds; None in a list, if it is the default.
    catch_up: float | None = None
    once_a_day: bool = False

    @property
    def times(self) -> str:
        """When it ticks, for people."""
        if self.every is not None:
            return f"every {format_duration(self.every)}"
        return f"{', '.join(self.cron)} ({self.time_zone})"


def check(new: NewSchedule) -> None:
    """Raises InputInvalid with every problem. Whether Temporal can read the cron expressions shows when it gets them."""
    if problems := list(_problems(new)):
        raise InputInvalid.of(problems)


def spec_of(new: NewSchedule) -> ScheduleSpec:
    if new.every is not None:
        return ScheduleSpec(intervals=[ScheduleIntervalSpec(every=new.every)])
    return ScheduleSpec(cron_expressions=list(new.cron), time_zone_name=new.time_zone)


def facts_of(new: NewSchedule, catch_up: timedelta | None) -> ScheduleFacts:
    event = new.event
    return ScheduleFacts(
        type=event.type,
        source=event.source,
        tenant=event.tenant,
        subject=event.subject,
        cron=tuple(new.cron),
        every=None if new.every is None else new.every.total_seconds(),
        time_zone=new.time_zone,
        catch_up=None if catch_up is None else catch_up.total_seconds(),
        once_a_day=new.once_a_day,
    )


def _problems(new: NewSchedule) -> Iterator[Problem]:
    if not _NAME.fullmatch(new.name):
        remedy = "use up to 63 of a-z, 0-9, dot, hyphen and underscore, and begin with a letter or digit"
        yield Problem(message=f"{new.name[:80]!r} is not a valid name", field="name", remedy=remedy)
    if bool(new.cron) == (new.every is not None):
        yield Problem(message="give either cron expressions or an interval (`every`)", field="cron")
    if new.every is not None:
        if not MIN_PERIOD <= new.every <= MAX_PERIOD:
            yield Problem(message="must be between 1m and 365d", field="every")
        if new.time_zone != "UTC":
            yield Problem(message="is for cron expressions; intervals count from 1970 in UTC", field="time_zone")
        if new.once_a_day:
            yield Problem(message="is for cron expressions", field="once_a_day")
    for text in new.cron:
        if text.lstrip().startswith("@every"):
            yield Problem(
                message="@every is not a cron expression", field="cron", remedy="give the interval as `every`"
            )
        elif "TZ=" in text:
            yield Problem(message="cannot name a time zone", field="cron", remedy="give it as `time_zone`")
    if not _is_time_zone(new.time_zone):
        remedy = "use a name of the IANA database, such as Europe/Berlin"
        yield Problem(message=f"{new.time_zone[:80]!r} is not a known time zone", field="time_zone", remedy=remedy)
    if new.catch_up is not None and not MIN_CATCH_UP <= new.catch_up <= MAX_CATCH_UP:
        yield Problem(message="must be between 10s and 365d", field="catch_up")


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError):  # a folder, or a path; a name that is not known is a KeyError
        return False
    except KeyError:
        return False
    return True
