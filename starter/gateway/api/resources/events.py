"""Events over HTTP, beside publishing: list, get, follow, cancel, recall and precheck."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from bellwire.models import StrictInput
from bellwire.registry import StoredEvent
from starter.gateway.api.access import Access, AnyAccess, PublishAccess, TenantAccess
from starter.gateway.api.cloud_events import draft_of
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, Since, Until, page_of, read_cursor
from starter.gateway.api.prefer import seconds_to_wait
from starter.gateway.api.views import DeliveryView, EventView, RecallView, StatusView
from starter.operations.delivery.events import details_of
from starter.operations.delivery.following import cancel_event, find_event, recall_event, status_of
from starter.operations.delivery.prechecking import count_matches

router = APIRouter(prefix="/v1/events", tags=["Events"])

#: Deliveries that are shown with an event. `GET /v1/deliveries?event=` lists all.
MAX_DELIVERIES = 100

Include = Annotated[
    list[Literal["deliveries", "attempts"]],
    Query(description="Show the first deliveries too, or these with their attempts. Repeat the parameter for both."),
]


class Precheck(BaseModel):
    """How many subscriptions would match."""

    matched: int


class CancelInput(StrictInput):
    subscription: str | None = Field(
        default=None, max_length=63, description="Only the delivery for this subscription; null: all."
    )


Source = Annotated[str | None, Query(max_length=512)]
Id = Annotated[str | None, Query(max_length=256)]
Prefer = Annotated[str | None, Header(description="`wait=N`: respond once it has settled, within N seconds.")]


@router.post("/precheck")
async def precheck(access: PublishAccess, draft: dict[str, Any]) -> Precheck:
    """Count the subscriptions that an event would match, without publishing it.

    The body is an event in the CloudEvents JSON format; `specversion`, `id`, `source` and `data` may be left out.
    """
    return Precheck(matched=await count_matches(access.registry, draft_of(draft)))


@router.get("")
async def list_(
    access: TenantAccess,
    request: Request,
    response: Response,
    type: Annotated[str | None, Query(max_length=256)] = None,  # noqa: A002 - the word of CloudEvents
    tenant: Annotated[str | None, Query(max_length=63)] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[EventView]:
    """List events, newest first. The key of a tenant sees those that are for it or are delivered to it."""
    found = await access.registry.events.list(
        type=type,
        tenant=tenant,
        visible_to=access.tenant,
        since=since,
        until=until,
        after=read_cursor(cursor),
        limit=limit,
    )
    views = [EventView.of(stored) for stored in found]
    return page_of(request, response, views, last_key=views[-1].key if views else "", limit=limit)


@router.get("/{key}")
async def get(access: AnyAccess, key: str, include: Include = []) -> EventView:  # noqa: B006 - FastAPI copies it
    """One event. The key of a tenant sees, and counts, only its own deliveries of it."""
    stored = await access.registry.events.get(key, visible_to=access.tenant)
    deliveries = await _deliveries(access, stored, include) if include else None
    return EventView.of(stored, deliveries)


@router.get("/{key}/status")
async def status(
    access: PublishAccess,
    response: Response,
    key: str,
    source: Source = None,
    id: Id = None,  # noqa: A002 - the word of CloudEvents
    prefer: Prefer = None,
) -> StatusView:
    """The event's status now. Give `source` and `id` too to follow an event that no worker has stored yet."""
    wait = seconds_to_wait(prefer)
    if wait:
        response.headers["preference-applied"] = f"wait={wait}"
    if source is None or id is None:
        event = (await access.registry.events.get(key)).event
        source, id = event.source, event.id  # noqa: A001
    return StatusView.of(await status_of(access.client, source, id, wait=wait))


@router.post("/{key}/cancel")
async def cancel(
    access: PublishAccess,
    key: str,
    cancelling: CancelInput | None = None,
    source: Source = None,
    id: Id = None,  # noqa: A002 - the word of CloudEvents
) -> StatusView:
    """Stop delivering the event: its unsettled deliveries settle as cancelled. What was sent stays sent.

    Give `source` and `id` too to cancel an event that is scheduled for later, which is not stored before.
    """
    subscription_id = cancelling.subscription if cancelling else None
    event = await find_event(access.registry, key, source=source, event_id=id)
    return StatusView.of(await cancel_event(access.client, access.registry, event, subscription_id))


@router.post("/{key}/recall", responses={202: {"model": RecallView, "description": "It goes on; repeat the request."}})
async def recall(
    access: PublishAccess,
    response: Response,
    key: str,
    recalling: CancelInput | None = None,
    source: Source = None,
    id: Id = None,  # noqa: A002 - the word of CloudEvents
    prefer: Annotated[
        str | None, Header(description="`wait=N`: respond with the results once it has ended, within N seconds.")
    ] = None,
) -> RecallView:
    """Take back what was delivered of the event, where the channel can, and cancel what is not sent.

    Without `Prefer`, and if it takes longer, the response is 202. A request that is repeated joins a recall that goes on, or
    asks again for what was not taken back. Give `source` and `id` too for an event that is scheduled for later: it is cancelled.
    """
    wait = seconds_to_wait(prefer)
    if wait:
        response.headers["preference-applied"] = f"wait={wait}"
    subscription_id = recalling.subscription if recalling else None
    event = await find_event(access.registry, key, source=source, event_id=id)
    recalled = await recall_event(access.client, access.registry, event, subscription_id, wait=wait)
    if recalled is None:
        response.status_code = 202
    return RecallView.of(key, recalled)


async def _deliveries(access: Access, stored: StoredEvent, include: Sequence[str]) -> list[DeliveryView]:
    if access.caller.scope.name == "publish":
        return []
    found = await access.registry.deliveries.list(
        event_key=stored.event.key, tenant=access.tenant, limit=MAX_DELIVERIES
    )
    if "attempts" not in include:
        return [DeliveryView.of(delivery) for delivery in found]
    return [
        DeliveryView.of(details.delivery, list(details.attempts))
        for details in await details_of(access.registry, found)
    ]
