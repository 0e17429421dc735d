"""Scheduled events: those that were published for later. Only Temporal has them before they start."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bellwire.client import Client
from bellwire.contract import EVENT_ID, EVENT_MEMO, EVENT_TYPE, NOTIFY, TENANT
from bellwire.errors import EventNotFound, TemporalUnavailable
from bellwire.events import event_key
from bellwire.registry import Registry
from bellwire.temporal.connection import translated
from starter.operations.delivery.events import LIVE_TIMEOUT
from starter.operations.problems import InputInvalid


@dataclass(frozen=True, kw_only=True)
class ScheduledEvent:
    """An event that is to be delivered later."""

    source: str
    id: str
    #: Empty if the event's type is too long for Temporal to list it.
    type: str
    tenant: str
    deliver_at: datetime
    workflow_id: str


async def list_scheduled(
    client: Client,
    *,
    event_id: str | None = None,
    type: str | None = None,  # noqa: A002 - the word of CloudEvents
    tenant: str | None = None,
    limit: int = 50,
) -> Sequence[ScheduledEvent]:
    """The first `limit` events that have not started, the next one to start first. Raises TemporalUnavailable."""
    found = []
    query = " AND ".join(
        [
            f"WorkflowType = {_quoted(NOTIFY)} AND ExecutionStatus = 'Running'",
            f"ExecutionTime > '{datetime.now(UTC).isoformat()}'",
            *(
                f"{key.name} = {_quoted(value)}"
                for key, value in ((EVENT_ID, event_id), (EVENT_TYPE, type), (TENANT, tenant))
                if value is not None
            ),
        ]
    )
    with translated(client.temporal):
        async for run in client.temporal.list_workflows(query):
            named = await run.memo_value(EVENT_MEMO, None)
            if named and run.execution_time:
                source, name = named
                found.append(
                    ScheduledEvent(
                        source=source,
                        id=name,
                        type=next(iter(run.typed_search_attributes.get(EVENT_TYPE) or ()), ""),
                        tenant=run.typed_search_attributes.get(TENANT) or "",
                        deliver_at=run.execution_time,
                        workflow_id=run.id,
                    )
                )
    return sorted(found, key=lambda event: event.deliver_at)[:limit]


async def find_scheduled(
    connect: Callable[[], Awaitable[Client]], event_id: str, source: str | None = None
) -> ScheduledEvent:
    """The scheduled event of this id, as far as Temporal lists it in time. Raises EventNotFound, or InputInvalid if several
    sources use the id."""
    try:
        async with asyncio.timeout(LIVE_TIMEOUT):
            listed = await list_scheduled(await connect(), event_id=event_id)
    except (TemporalUnavailable, TimeoutError):
        listed = ()
    found = [event for event in listed if event.id == event_id and source in (None, event.source)]
    if not found:
        of = f" of {source}" if source else ""
        raise EventNotFound(
            f"no event {event_id}{of} is known; check the id and the source, and that a worker has processed it"
        )
    if len(found) > 1:
        sources = ", ".join(sorted(event.source for event in found))
        raise InputInvalid(
            f"{len(found)} events have the id {event_id}", field="source", remedy=f"name one of {sources}"
        )
    return found[0]


async def cancel_scheduled(client: Client, registry: Registry, event: ScheduledEvent) -> None:
    """Cancel an event before it starts: it is never delivered. Raises EventNotFound, TemporalUnavailable."""
    await client.cancel((event.source, event.id))
    await registry.audit_log.record("event.cancelled", event_key(event.source, event.id), tenant=event.tenant)


def _quoted(text: str) -> str:
    """A string in a list query."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
