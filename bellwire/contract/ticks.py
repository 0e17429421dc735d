"""Ticks: what the Schedules of `python -m starter schedules` start. Each tick publishes one event."""

from datetime import UTC, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from bellwire.events import Event, Received
from bellwire.models import Payload


class TickInput(Payload):
    """What the ticks of a schedule publish."""

    #: The name of the schedule.
    schedule: str
    #: The event, to which each tick gives an id and a time of its own.
    event: Received
    #: The IANA time zone of the schedule.
    time_zone: str = "UTC"
    #: Whether to publish one event for each date in the time zone, though its time may come twice on one.
    once_a_day: bool = False

    def event_at(self, scheduled_at: datetime) -> Event:
        """The event of the tick at this time. The same tick always has the same event."""
        time = scheduled_at.astimezone(UTC).replace(microsecond=0)
        name = f"{time:%Y-%m-%dT%H:%M:%SZ}"
        if self.once_a_day:
            name = time.astimezone(ZoneInfo(self.time_zone)).date().isoformat()
        return self.event.model_copy(update={"id": f"{self.schedule}-{name}", "time": time})


class PlanTickInput(Payload):
    tick: TickInput
    scheduled_at: datetime


class TickState(StrEnum):
    """What a tick came to."""

    #: It has published its event.
    PUBLISHED = "published"
    #: Its event was published before, by another tick or by hand.
    DUPLICATE = "duplicate"


class TickRecord(Payload):
    """A tick, as it is recorded."""

    schedule: str
    scheduled_at: datetime
    state: TickState
    event_key: str
    #: The workflow that delivers the event.
    workflow_id: str
