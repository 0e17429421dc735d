"""Tenants: list them, and show one with what it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bellwire.deliveries import DeliveryState
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from starter.operations.problems import Kind, OperationError


class TenantNotFound(OperationError):
    """No such tenant; a tenant exists from its first subscription on."""

    kind = Kind.NOT_FOUND


@dataclass(frozen=True, kw_only=True)
class TenantDetails:
    """A tenant, and how many subscriptions and deliveries it has in each state."""

    id: str
    created_at: datetime
    subscriptions: Mapping[SubscriptionState, int]
    deliveries: Mapping[DeliveryState, int]
    #: Whether these are all that it has.
    counts_complete: bool


async def show_tenant(registry: Registry, name: str) -> TenantDetails:
    """Raises TenantNotFound."""
    found = await registry.tenants.find(name)
    if found is None:
        raise TenantNotFound
    counts = await registry.tenants.counts(name)
    return TenantDetails(
        id=found.id,
        created_at=found.created_at,
        subscriptions=counts.subscriptions,
        deliveries=counts.deliveries,
        counts_complete=counts.complete,
    )
