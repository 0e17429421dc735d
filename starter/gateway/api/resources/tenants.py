"""Tenants over HTTP: list them, and get one with counts of what it has."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from bellwire.deliveries import DeliveryState
from bellwire.registry.api.tenants import MAX_COUNTED
from bellwire.subscriptions import SubscriptionState
from starter.gateway.api.access import AdminAccess, TenantAccess
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor
from starter.operations.platform.tenants import TenantNotFound, show_tenant

router = APIRouter(prefix="/v1/tenants", tags=["Tenants"])


class TenantView(BaseModel):
    """A tenant. It exists from its first subscription on."""

    id: str
    created_at: datetime = Field(description="When its first subscription was stored.")


class TenantDetailsView(TenantView):
    """A tenant with what it has."""

    subscriptions: dict[SubscriptionState, int] = Field(description="How many it has, by state.")
    deliveries: dict[DeliveryState, int] = Field(description="How many its subscriptions have, by state.")
    counts_complete: bool = Field(
        description=f"Whether these are all; counting ends beyond {MAX_COUNTED:,} subscriptions or deliveries."
    )


@router.get("")
async def list_(
    access: AdminAccess, request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> Page[TenantView]:
    """List tenants by name."""
    found = await access.registry.tenants.list(after=read_cursor(cursor), limit=limit)
    views = [TenantView(id=each.id, created_at=each.created_at) for each in found]
    return page_of(request, response, views, last_key=views[-1].id if views else "", limit=limit)


@router.get("/{tenant}")
async def get(access: TenantAccess, tenant: str) -> TenantDetailsView:
    """One tenant with counts of its subscriptions and deliveries. The key of a tenant sees its own."""
    if not access.allows(tenant):
        raise TenantNotFound
    found = await show_tenant(access.registry, tenant)
    return TenantDetailsView(
        id=found.id,
        created_at=found.created_at,
        subscriptions=dict(found.subscriptions),
        deliveries=dict(found.deliveries),
        counts_complete=found.counts_complete,
    )
