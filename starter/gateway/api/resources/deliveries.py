"""Deliveries over HTTP: list, get with attempts, redeliver."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from bellwire.deliveries import DeliveryKey, DeliveryState, parse_delivery_id
from bellwire.errors import DeliveryNotFound
from bellwire.models import StrictInput
from bellwire.targets import Channel
from starter.gateway.api.access import Access, TenantAccess
from starter.gateway.api.paging import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Page,
    Since,
    Until,
    invalid_cursor,
    page_of,
    read_cursor,
)
from starter.gateway.api.views import DeliveryView
from starter.operations.delivery import deliveries as operations
from starter.operations.delivery.deliveries import DeliveryOfEvent

router = APIRouter(prefix="/v1/deliveries", tags=["Deliveries"])


class RedeliveryInput(StrictInput):
    end_pause: bool = False


class Redelivery(BaseModel):
    """A redelivery that has begun."""

    #: The workflow that attempts it.
    workflow_id: str


@router.get("")
async def list_(
    access: TenantAccess,
    request: Request,
    response: Response,
    event: Annotated[str | None, Query(max_length=64, description="The key of an event.")] = None,
    subscription: Annotated[str | None, Query(max_length=63)] = None,
    state: DeliveryState | None = None,
    channel: Channel | None = None,
    type: Annotated[str | None, Query(max_length=256, description="Only of events of this type.")] = None,  # noqa: A002
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[DeliveryView]:
    """List deliveries, those of the newest events first. The key of a tenant sees those of its own subscriptions."""
    after = read_cursor(cursor)
    if after and parse_delivery_id(after) is None:
        raise invalid_cursor()
    found = await access.registry.deliveries.list(
        event_key=event,
        subscription_id=subscription,
        tenant=access.tenant,
        state=state,
        channel=channel,
        event_type=type,
        since=since,
        until=until,
        after=after,
        limit=limit,
    )
    views = [DeliveryView.of(delivery) for delivery in found]
    return page_of(request, response, views, last_key=views[-1].id if views else "", limit=limit)


@router.get("/{delivery_id}")
async def get(access: TenantAccess, delivery_id: str) -> DeliveryView:
    """One delivery with its attempts."""
    found = await _visible(access, delivery_id)
    attempts = await access.registry.attempts.list(found.delivery.event_key, found.delivery.subscription_id)
    return DeliveryView.of(found.delivery, list(attempts))


@router.post("/{delivery_id}/redeliver", status_code=202)
async def redeliver(access: TenantAccess, delivery_id: str, redelivery: RedeliveryInput | None = None) -> Redelivery:
    """Attempt a delivery now: one that waits at once, a settled one again, with a new schedule."""
    found = await _visible(access, delivery_id)
    end_pause = redelivery.end_pause if redelivery else False
    workflow_id = await operations.retry_delivery(
        access.client, access.registry, found, end_pause=end_pause, tenant=access.tenant
    )
    return Redelivery(workflow_id=workflow_id)


async def _visible(access: Access, delivery_id: str) -> DeliveryOfEvent:
    """Raises DeliveryNotFound, for another tenant's as for one that does not exist."""
    missing = DeliveryNotFound(f"no delivery has the id {delivery_id[:120]}")
    key = parse_delivery_id(delivery_id)
    if key is None:
        raise missing
    if access.tenant is not None and not await _is_of_tenant(access, key):
        raise missing
    try:
        return await operations.get_delivery(access.registry, key)
    except DeliveryNotFound:
        raise missing from None


async def _is_of_tenant(access: Access, key: DeliveryKey) -> bool:
    found = await access.registry.deliveries.list(
        event_key=key.event_key, subscription_id=key.subscription_id, tenant=access.tenant, limit=1
    )
    return bool(found)
