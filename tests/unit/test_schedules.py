"""Schedules: what is refused, which event a tick publishes, and what became of each time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bellwire.contract import TickInput, TickRecord, TickState
from bellwire.events import Event
from starter.operations.problems import InputInvalid
from starter.operations.scheduling.schedules import ScheduleDetails
from starter.operations.scheduling.specs import NewSchedule, ScheduleFacts, check, facts_of
from starter.operations.scheduling.ticks import GRACE, Pause, compare

EVENT = Event(source="/schedules/report", type="report.due", id="report", data={"kind": "daily"})
NEW = NewSchedule(name="report", event=EVENT, cron=("0 9 * * *",))
#: The hour that comes twice when the clocks go back in Berlin: 02:30 of summer time, then of winter time.
FIRST, SECOND = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"name": "Daily report"}, "name", "is not a valid name"),
        ({"cron": ()}, "cron", "give either cron expressions or an interval"),
        ({"every": timedelta(hours=1)}, "cron", "give either cron expressions or an interval"),
        ({"cron": (), "every": timedelta(seconds=59)}, "every", "must be between 1m and 365d"),
        ({"cron": (), "every": timedelta(hours=1), "time_zone": "Europe/Berlin"}, "time_zone", "is for cron"),
        ({"cron": (), "every": timedelta(hours=1), "once_a_day": True}, "once_a_day", "is for cron"),
        ({"cron": ("@every 1h",)}, "cron", "@every is not a cron expression"),
        ({"cron": ("CRON_TZ=UTC 0 9 * * *",)}, "cron", "cannot name a time zone"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone", "is not a known time zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone", "is not a known time zone"),
        ({"time_zone": ""}, "time_zone", "is not a known time zone"),
        ({"catch_up": timedelta(seconds=9)}, "catch_up", "must be between 10s and 365d"),
    ],
)
def test_what_is_not_valid_is_refused_by_its_field(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        check(replace(NEW, **changes))
    assert [(problem.field, message in problem.message) for problem in refused.value.problems] == [(field, True)]


def test_what_is_valid_is_taken() -> None:
    check(NEW)
    check(replace(NEW, cron=(), every=timedelta(minutes=1), catch_up=timedelta(hours=1)))
    check(replace(NEW, time_zone="America/New_York", once_a_day=True))


def test_the_times_of_a_schedule_have_a_text() -> None:
    assert facts_of(NEW, None).times == "0 9 * * * (UTC)"
    assert facts_of(replace(NEW, cron=(), every=timedelta(minutes=90)), None).times == "every 1h30m"


def test_a_tick_names_its_event_by_schedule_and_time() -> None:
    tick = TickInput(schedule="report", event=EVENT, time_zone="Europe/Berlin")
    first, second = tick.event_at(FIRST), tick.event_at(SECOND)
    assert (first.id, second.id) == ("report-2026-10-25T00:30:00Z", "report-2026-10-25T01:30:00Z")
    assert (first.time, first.data, first.source) == (FIRST, {"kind": "daily"}, "/schedules/report")
    assert tick.event_at(FIRST + timedelta(milliseconds=7)) == first


def test_once_a_day_an_hour_that_comes_twice_has_one_event() -> None:
    tick = TickInput(schedule="report", event=EVENT, time_zone="Europe/Berlin", once_a_day=True)
    first, second = tick.event_at(FIRST), tick.event_at(SECOND)
    assert first.id == second.id == "report-2026-10-25"
    # So the second one is a duplicate, and no conflict.
    assert first.digest == second.digest
    assert tick.event_at(datetime(2026, 10, 24, 22, 30, tzinfo=UTC)).id == "report-2026-10-25"


def test_each_time_has_what_became_of_it() -> None:
    tick = TickInput(schedule="report", event=EVENT)
    hours = [NOON - timedelta(hours=number) for number in range(8)]
    now = NOON + timedelta(seconds=5)

    def record(time: datetime, state: TickState) -> TickRecord:
        key = tick.event_at(time).key
        return TickRecord(schedule="report", scheduled_at=time, state=state, event_key=key, workflow_id="event/x")

    triggered = NOON - timedelta(minutes=90)
    records = {
        hours[1]: record(hours[1], TickState.PUBLISHED),
        hours[2]: record(hours[2], TickState.DUPLICATE),
        triggered: record(triggered, TickState.PUBLISHED),
    }
    details = ScheduleDetails(
        name="report",
        facts=ScheduleFacts(type="report.due", source="/schedules/report", tenant="default", time_zone="UTC"),
        paused=False,
        note="",
        next_times=(),
        created_at=hours[-1],
        tick=tick,
        running=(f"tick/report-{hours[3]:%Y-%m-%dT%H:%M:%SZ}",),
    )
    pauses = [Pause(start=hours[5] - timedelta(minutes=1), end=hours[5] + timedelta(minutes=1))]
    published = [tick.event_at(hours[4]).key]
    found = compare(details, hours, records, pauses, published=published, now=now)
    assert [(each.scheduled_at, str(each.state), each.extra) for each in found] == [
        (hours[0], "due", False),
        (hours[1], "published", False),
        (triggered, "published", True),
        (hours[2], "duplicate", False),
        (hours[3], "due", False),
        (hours[4], "published", False),
        (hours[5], "paused", False),
        (hours[6], "missed", False),
        (hours[7], "missed", False),
    ]
    assert found[1].event_key == tick.event_at(hours[1]).key
    late = compare(details, [NOON], {}, [Pause(start=NOON + timedelta(seconds=1))], now=NOON + GRACE)
    assert [str(each.state) for each in late] == ["missed"]
    still = compare(details, [NOON], {}, [Pause(start=NOON)], now=NOON + GRACE)
    assert [str(each.state) for each in still] == ["paused"]
