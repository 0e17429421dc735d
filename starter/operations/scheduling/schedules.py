"""Schedules: create, list, pause, resume, trigger, backfill and delete them. Temporal has them, the registry only their ticks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from temporalio.client import Client as Temporal
from temporalio.client import (
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleState,
    ScheduleUpdate,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from bellwire.client import Client
from bellwire.contract import EVENT_TYPE, QUEUE, TENANT, TICK, TickInput
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.temporal.connection import translated
from starter.operations.catalog.checking import PublishedTypes, problems_of_events
from starter.operations.delivery.publishing import unknown_tenants
from starter.operations.problems import InputInvalid, Kind, OperationError
from starter.operations.scheduling.specs import (
    MIN_CATCH_UP,
    MIN_PERIOD,
    NewSchedule,
    ScheduleFacts,
    check,
    facts_of,
    spec_of,
)

#: Memo field of a Schedule that Bellwire created: its ScheduleFacts.
FACTS_MEMO = "bellwire_schedule"
#: Ticks that one backfill may ask for: Temporal buffers no more.
MAX_BACKFILL = 1_000


class ScheduleNotFound(OperationError):
    """No schedule has this name; `schedules list` lists them."""

    kind = Kind.NOT_FOUND


class ScheduleExists(OperationError):
    """A schedule with this name exists; choose another name, or delete it first."""

    kind = Kind.CONFLICT


@dataclass(frozen=True, kw_only=True)
class FoundSchedule:
    """A schedule as Temporal has it."""

    name: str
    facts: ScheduleFacts
    paused: bool
    #: Why it is paused, or was resumed.
    note: str
    #: The next ticks, while it is not paused.
    next_times: Sequence[datetime]


@dataclass(frozen=True, kw_only=True)
class ScheduleDetails(FoundSchedule):
    """A schedule with what only it knows itself."""

    created_at: datetime
    #: What its ticks publish.
    tick: TickInput
    #: Workflow ids of the ticks that run now.
    running: Sequence[str]


async def create_schedule(
    client: Client, registry: Registry, new: NewSchedule, *, refuse_tenants: bool = False, refuse_types: bool = False
) -> FoundSchedule:
    """Create a schedule. Raises InputInvalid, ScheduleExists, TemporalUnavailable, RegistryUnavailable.

    `refuse_…`: whether an unknown tenant, or a type that the catalog does not have, is refused. It is created paused, since only
    Temporal knows the period of a cron expression, and resumed with its catch-up window.
    """
    check(new)
    await _check_event(registry, new.event, refuse_tenants=refuse_tenants, refuse_types=refuse_types)
    temporal = client.temporal
    attributes = TypedSearchAttributes(
        [SearchAttributePair(TENANT, new.event.tenant), SearchAttributePair(EVENT_TYPE, [new.event.type])]
    )
    with translated(temporal):
        try:
            handle = await temporal.create_schedule(
                new.name,
                _schedule(new, new.catch_up or MIN_CATCH_UP, paused=True),
                memo={FACTS_MEMO: facts_of(new, new.catch_up).model_dump(mode="json")},
                search_attributes=attributes,
            )
        except ScheduleAlreadyRunningError as error:
            raise ScheduleExists from error
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                field = "every" if new.every else "cron"
                raise InputInvalid(error.message.removeprefix("Invalid schedule spec: "), field=field) from error
            raise
        try:
            times = (await handle.describe()).info.next_action_times
            _check_times(times)
            catch_up = new.catch_up or max(_period(times), MIN_CATCH_UP)
            await handle.update(lambda _: ScheduleUpdate(_schedule(new, catch_up, paused=new.paused)))
        except BaseException:
            await handle.delete()
            raise
    await registry.audit_log.record("schedule.created", new.name, tenant=new.event.tenant)
    if new.paused:
        await registry.audit_log.record("schedule.paused", new.name, tenant=new.event.tenant)
    return FoundSchedule(
        name=new.name, facts=facts_of(new, catch_up), paused=new.paused, note="", next_times=tuple(times)
    )


async def list_schedules(client: Client) -> list[FoundSchedule]:
    """All of Bellwire's schedules, by name. Raises TemporalUnavailable."""
    found = []
    with translated(client.temporal):
        async for each in await client.temporal.list_schedules():
            facts = await each.memo_value(FACTS_MEMO, None)
            if facts is None or each.schedule is None or each.info is None:
                continue
            state = each.schedule.state
            found.append(
                FoundSchedule(
                    name=each.id,
                    facts=ScheduleFacts.model_validate(facts),
                    paused=state.paused,
                    note=state.note or "",
                    next_times=() if state.paused else tuple(each.info.next_action_times),
                )
            )
    return sorted(found, key=lambda schedule: schedule.name)


async def get_schedule(client: Client, name: str) -> ScheduleDetails:
    """One of Bellwire's schedules. Raises ScheduleNotFound, TemporalUnavailable."""
    async with _described(client.temporal, name) as (_, description):
        return await _details(client.temporal, description)


async def pause_schedule(client: Client, registry: Registry, name: str, *, note: str = "") -> None:
    """Let it tick no more until it is resumed. Raises ScheduleNotFound, TemporalUnavailable."""
    async with _described(client.temporal, name) as (handle, description):
        await handle.pause(note=note or "paused")
        await _record(registry, "schedule.paused", description)


async def resume_schedule(client: Client, registry: Registry, name: str, *, note: str = "") -> None:
    """Let it tick again; what came due meanwhile is not published. Raises ScheduleNotFound, TemporalUnavailable."""
    async with _described(client.temporal, name) as (handle, description):
        await handle.unpause(note=note or "resumed")
        await _record(registry, "schedule.resumed", description)


async def trigger_schedule(client: Client, registry: Registry, name: str) -> None:
    """Tick now, though it may be paused. Raises ScheduleNotFound, TemporalUnavailable."""
    async with _described(client.temporal, name) as (handle, description):
        await handle.trigger()
        await _record(registry, "schedule.triggered", description)


async def backfill_schedule(client: Client, registry: Registry, name: str, *, since: datetime, until: datetime) -> None:
    """Tick for all times of a range, both ends included. Those that were published are not published again.

    One at a time: of two requests that reach a schedule within the same moment, Temporal takes the last. Raises InputInvalid,
    ScheduleNotFound, TemporalUnavailable.
    """
    if since > until:
        raise InputInvalid("is after the end of the range", field="since")
    async with _described(client.temporal, name) as (handle, description):
        # Temporal leaves out a tick at the very start.
        start = since - timedelta(seconds=1)
        await handle.backfill(ScheduleBackfill(start_at=start, end_at=until, overlap=ScheduleOverlapPolicy.ALLOW_ALL))
        await _record(registry, "schedule.backfilled", description)


async def delete_schedule(client: Client, registry: Registry, name: str) -> None:
    """Delete it. Its ticks stay recorded. Raises ScheduleNotFound, TemporalUnavailable."""
    async with _described(client.temporal, name) as (handle, description):
        await handle.delete()
        await _record(registry, "schedule.deleted", description)


async def _check_event(registry: Registry, event: Event, *, refuse_tenants: bool, refuse_types: bool) -> None:
    """Check it as when it is published: later, nobody sees that it is refused."""
    if refuse_tenants and await unknown_tenants(registry, [event]):
        message = f"{event.tenant}: no subscription was ever stored for it; check the spelling"
        raise InputInvalid(
            message, field="tenant", remedy="BELLWIRE_UNKNOWN_TENANTS refuses it, so no schedule was created"
        )
    if problems := await problems_of_events(PublishedTypes(registry, refuse_unknown=refuse_types), [event]):
        raise InputInvalid.of(problems)


def _schedule(new: NewSchedule, catch_up: timedelta, *, paused: bool) -> Schedule:
    tick = TickInput(
        schedule=new.name,
        event=new.event.model_copy(update={"id": new.name}),
        time_zone=new.time_zone,
        once_a_day=new.once_a_day,
    )
    attributes = TypedSearchAttributes(
        [SearchAttributePair(TENANT, new.event.tenant), SearchAttributePair(EVENT_TYPE, [new.event.type])]
    )
    return Schedule(
        action=ScheduleActionStartWorkflow(
            TICK, tick, id=f"tick/{new.name}", task_queue=QUEUE, typed_search_attributes=attributes
        ),
        spec=spec_of(new),
        # The server's own window is a year: after an outage, a thousand ticks would be published at once.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=catch_up),
        state=ScheduleState(paused=paused),
    )


def _check_times(times: Sequence[datetime]) -> None:
    if not times:
        raise InputInvalid("never comes", field="cron", remedy="check day and month")
    if len(times) > 1 and _period(times) < MIN_PERIOD:
        raise InputInvalid("ticks more than once a minute", field="cron", remedy="publish from a service instead")


def _period(times: Sequence[datetime]) -> timedelta:
    """The shortest time between two ticks; a day if there is one only."""
    return min((later - earlier for earlier, later in pairwise(times)), default=timedelta(days=1))


@asynccontextmanager
async def _described(temporal: Temporal, name: str) -> AsyncIterator[tuple[ScheduleHandle, ScheduleDescription]]:
    """The handle and the description of one of Bellwire's schedules. Raises ScheduleNotFound, also if it is gone meanwhile."""
    handle = temporal.get_schedule_handle(name)
    with translated(temporal):
        try:
            description = await handle.describe()
            if await description.memo_value(FACTS_MEMO, None) is None:
                raise ScheduleNotFound
            yield handle, description
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise ScheduleNotFound from error
            raise


async def _details(temporal: Temporal, description: ScheduleDescription) -> ScheduleDetails:
    facts = ScheduleFacts.model_validate(await description.memo_value(FACTS_MEMO))
    schedule, info = description.schedule, description.info
    assert isinstance(schedule.action, ScheduleActionStartWorkflow)
    (tick,) = await temporal.data_converter.decode(list(schedule.action.args), [TickInput])
    window = schedule.policy.catchup_window
    return ScheduleDetails(
        name=description.id,
        facts=facts if window is None else facts.model_copy(update={"catch_up": window.total_seconds()}),
        paused=schedule.state.paused,
        note=schedule.state.note or "",
        next_times=() if schedule.state.paused else tuple(info.next_action_times),
        created_at=info.created_at,
        tick=tick,
        running=tuple(
            action.workflow_id
            for action in info.running_actions
            if isinstance(action, ScheduleActionExecutionStartWorkflow)
        ),
    )


async def _record(registry: Registry, action: str, description: ScheduleDescription) -> None:
    facts = ScheduleFacts.model_validate(await description.memo_value(FACTS_MEMO))
    await registry.audit_log.record(action, description.id, tenant=facts.tenant)
