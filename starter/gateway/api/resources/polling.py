"""Polling over HTTP: an app that cannot open a port reads the events of a subscription of the channel `poll`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from starter.gateway.api.access import TenantAccess
from starter.gateway.api.resources.subscriptions import visible
from starter.operations.delivery.polling import FeedWatcher
from starter.operations.delivery.polling import poll as read_feed

router = APIRouter(prefix="/v1/subscriptions", tags=["Subscriptions"])

#: Events of a response, unless told otherwise, and at most. A response has about a megabyte at most.
DEFAULT_EVENTS, MAX_EVENTS = 100, 1_000
#: Seconds that a request may wait.
MAX_WAIT = 30

Cursor = Annotated[
    str,
    Query(
        max_length=500,
        description="`cursor` of the response before. Empty: from the oldest event that is kept. `latest`: from now on.",
    ),
]
MaxEvents = Annotated[int, Query(ge=1, le=MAX_EVENTS, description="How many events the response has at most.")]
Wait = Annotated[
    int, Query(ge=0, le=MAX_WAIT, description="If there is no event, seconds to wait for one before the response.")
]


class PollView(BaseModel):
    """The next events of a feed."""

    events: list[dict[str, Any]] = Field(
        description="In the CloudEvents JSON format. The extension attribute `deliveryid` is the id to deduplicate on."
    )
    cursor: str = Field(description="Where the next request begins. Store it once the events are processed.")
    more: bool = Field(description="Whether there are more events already.")


@router.get("/{subscription_id}/poll")
async def poll(
    access: TenantAccess,
    request: Request,
    subscription_id: str,
    cursor: Cursor = "",
    limit: MaxEvents = DEFAULT_EVENTS,
    wait: Wait = 0,
) -> PollView:
    """The next events of a subscription of the channel `poll`, in any state, after a cursor. The same cursor returns the same
    events again, until they are deleted as too old; then it responds with `cursor-expired`."""
    subscription = await visible(access, subscription_id)
    watcher: FeedWatcher = request.app.state.feeds
    found = await read_feed(access.registry, watcher, subscription, cursor=cursor, limit=limit, wait=wait)
    return PollView(events=found.events, cursor=found.cursor, more=found.more)
