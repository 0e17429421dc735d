"""Ticks: what a schedule should have published, compared with what it did."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import Client as Temporal

from bellwire.client import Client
from bellwire.contract import TickRecord
from bellwire.registry import Registry
from bellwire.temporal.connection import translated
from starter.operations.problems import InputInvalid
from starter.operations.scheduling.schedules import ScheduleDetails, get_schedule

#: Times that Temporal computes for one call.
MATCHING_LIMIT = 1_000
#: Times of a range that are looked at; a schedule that ticks each minute has as many in a week.
MAX_TIMES = 10_080
#: Recorded ticks of a range that are looked at, those that were triggered included.
MAX_RECORDS = 2 * MAX_TIMES
#: How late a tick may be before it counts as missed. It takes milliseconds while Temporal and a worker run.
GRACE = timedelta(minutes=1)
#: Entries of the audit log that are searched for pauses.
MAX_ENTRIES = 1_000


class ScheduledState(StrEnum):
    """What became of a time of a schedule."""

    PUBLISHED = "published"
    #: Its event was published before: by another tick of the date, or by hand.
    DUPLICATE = "duplicate"
    #: It has been started, or is to be now.
    DUE = "due"
    #: The schedule was paused.
    PAUSED = "paused"
    #: Temporal started nothing: it was away for longer than the catch-up window, or the tick before was still open.
    MISSED = "missed"


@dataclass(frozen=True, kw_only=True)
class ScheduledTick:
    """A time at which a schedule ticked, or should have."""

    scheduled_at: datetime
    state: ScheduledState
    #: The event that it published, or would have.
    event_id: str
    event_key: str
    #: Whether its time is none of the schedule's: it was triggered.
    extra: bool = False


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A time during which a schedule was paused; without an end, it still is."""

    start: datetime
    end: datetime | None = None

    def contains(self, time: datetime) -> bool:
        return self.start <= time and (self.end is None or time < self.end)


async def list_ticks(
    client: Client,
    registry: Registry,
    name: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    state: ScheduledState | None = None,
    limit: int = 50,
) -> list[ScheduledTick]:
    """What became of the times of a schedule from `since`, or its creation, until now, newest first.

    Raises InputInvalid if the range has more than MAX_TIMES or MAX_RECORDS, ScheduleNotFound, TemporalUnavailable.
    """
    now = datetime.now(UTC)
    until = min(until or now, now)
    schedule = await get_schedule(client, name)
    # Times of ticks have no fractions of a second.
    created_at = schedule.created_at.replace(microsecond=0)
    since = since or max(created_at, until - timedelta(days=7))
    # A recreated schedule has ticks from before; none was expected of it then.
    with translated(client.temporal):
        expected = await _matching_times(client.temporal, name, max(since, created_at), until)
    recorded = await registry.ticks.list(name, since=since, until=until, limit=MAX_RECORDS + 1)
    _check_number(len(recorded), MAX_RECORDS)
    records = {record.scheduled_at: record for record in recorded}
    pauses = await _pauses(registry, name)
    unrecorded = [time for time in expected if time not in records]
    events = [schedule.tick.event_at(time) for time in unrecorded]
    stored = await registry.events.known(events) if events else {}
    found = compare(schedule, expected, records, pauses, published=stored.keys(), now=now)
    return [tick for tick in found if state in (None, tick.state)][:limit]


def compare(
    schedule: ScheduleDetails,
    expected: Iterable[datetime],
    records: Mapping[datetime, TickRecord],
    pauses: Sequence[Pause],
    *,
    published: Iterable[str] = (),
    now: datetime,
) -> list[ScheduledTick]:
    """The state of each expected or recorded time, newest first. `published` are event keys that the registry has."""
    times, stored = set(expected), set(published)
    found = []
    for time in sorted(times | records.keys(), reverse=True):
        event = schedule.tick.event_at(time)
        record = records.get(time)
        if record is not None:
            state = ScheduledState(record.state)
        elif event.key in stored:
            state = ScheduledState.PUBLISHED  # its tick could not be recorded
        elif any(workflow_id.endswith(f"{time:%Y-%m-%dT%H:%M:%SZ}") for workflow_id in schedule.running):
            state = ScheduledState.DUE
        elif any(pause.contains(time) for pause in pauses):
            state = ScheduledState.PAUSED
        else:
            state = ScheduledState.DUE if now - time < GRACE else ScheduledState.MISSED
        found.append(
            ScheduledTick(
                scheduled_at=time,
                state=state,
                event_id=event.id,
                event_key=record.event_key if record else event.key,
                extra=time not in times,
            )
        )
    return found


async def _matching_times(temporal: Temporal, name: str, since: datetime, until: datetime) -> list[datetime]:
    """The times of a schedule in a range, by its cron expressions or interval alone."""
    times = dict[datetime, None]()
    while since <= until:
        request = ListScheduleMatchingTimesRequest(namespace=temporal.namespace, schedule_id=name)
        request.start_time.FromDatetime(since)
        request.end_time.FromDatetime(until)
        response = await temporal.workflow_service.list_schedule_matching_times(request)
        page = [time.ToDatetime(tzinfo=UTC) for time in response.start_time]
        times.update(dict.fromkeys(page))
        _check_number(len(times), MAX_TIMES)
        if len(page) < MATCHING_LIMIT:
            break
        since = page[-1]
    return list(times)


def _check_number(ticks: int, limit: int) -> None:
    if ticks > limit:
        raise InputInvalid(f"the range has more than {limit:,} ticks", field="since", remedy="name a later time")


async def _pauses(registry: Registry, name: str) -> list[Pause]:
    """When the schedule was paused, by the audit log. It does not know of pauses in the Temporal UI."""
    entries = await registry.audit_log.list(resource=name, limit=MAX_ENTRIES)
    pauses, start = list[Pause](), None
    for entry in reversed(entries):
        if entry.action == "schedule.paused":
            start = start or entry.at
        elif entry.action in {"schedule.resumed", "schedule.created"} and start:
            pauses.append(Pause(start=start, end=entry.at))
            start = None
    return [*pauses, Pause(start=start)] if start else pauses
