"""Limits of channels over HTTP: deliveries per second, over all workers together. For `admin` only."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from bellwire.models import StrictInput
from bellwire.subscriptions import RATE_BOUNDS
from bellwire.targets import Channel
from starter.gateway.api.access import AdminAccess
from starter.operations.platform import limits as operations

router = APIRouter(prefix="/v1/limits", tags=["Limits"])


class LimitView(BaseModel):
    """The limit of a channel, which the registry and the Temporal server both have."""

    channel: Channel
    registry: float | None = Field(description="Deliveries per second in the registry; null: no limit.")
    server: float | None = Field(
        description="The same on the Temporal server. If the two differ, set or clear it again."
    )

    @classmethod
    def of(cls, limit: operations.Limit) -> "LimitView":
        return cls(channel=limit.channel, registry=limit.registry, server=limit.server)


class LimitList(BaseModel):
    items: list[LimitView]


class LimitInput(StrictInput):
    per_second: float = Field(
        strict=True, ge=RATE_BOUNDS[0], le=RATE_BOUNDS[1], description="Deliveries per second at most."
    )


@router.get("")
async def list_(access: AdminAccess) -> LimitList:
    """List the limits of all channels."""
    found = await operations.list_limits(access.registry, access.client.temporal)
    return LimitList(items=[LimitView.of(limit) for limit in found])


@router.put("/{channel}")
async def set_(access: AdminAccess, channel: Channel, limit: LimitInput) -> LimitView:
    """Limit a channel. Each of its deliveries then is an activity of its own, which costs Temporal far more."""
    return LimitView.of(await operations.set_limit(access.registry, access.client.temporal, channel, limit.per_second))


@router.delete("/{channel}")
async def clear(access: AdminAccess, channel: Channel) -> LimitView:
    """Remove a channel's limit."""
    return LimitView.of(await operations.clear_limit(access.registry, access.client.temporal, channel))
