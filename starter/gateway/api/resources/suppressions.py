"""Suppressions over HTTP: list addresses that get nothing more, add one, lift one.

An address in a URL would be in the logs of proxies, so an address is in a body, or in a query that lists.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from bellwire.models import StrictInput
from bellwire.registry.suppressions import Position
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, MAX_ADDRESS, Suppression
from bellwire.targets import Channel
from starter.gateway.api.access import Access, TenantAccess
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, invalid_cursor, page_of, read_cursor
from starter.gateway.api.problems import ApiProblem, ProblemType
from starter.gateway.api.resources.subscriptions import visible
from starter.operations.problems import Problem
from starter.operations.subscribers import suppressions as operations

router = APIRouter(prefix="/v1/suppressions", tags=["Suppressions"])


class SuppressionView(BaseModel):
    """An address that is not sent to."""

    channel: Channel
    address: str
    reason: str = Field(description="`bounced`, `complained`, `unsubscribed` or `operator`.")
    cause: str | None = Field(description="The code or feedback type that was reported; null: nothing was.")
    subscription: str | None = Field(
        description="The subscription that does not send to it; null: none does. `sender:…`: those with this SMS sender."
    )
    created_at: datetime | None

    @classmethod
    def of(cls, suppression: Suppression) -> "SuppressionView":
        return cls(
            channel=suppression.channel,
            address=suppression.address,
            reason=suppression.reason,
            cause=suppression.cause,
            subscription=suppression.subscription_id or None,
            created_at=suppression.created_at,
        )


class SuppressionInput(StrictInput):
    address: str = Field(
        min_length=1,
        max_length=MAX_ADDRESS,
        examples=["ann@example.com", "+14155550123", "default/C0123456789"],
        description="Of chats, WeChat and push `account/address`, or the address alone for the account `default`; of a browser, "
        "the endpoint of its push subscription.",
    )
    channel: Channel | None = Field(default=None, description="Null: email for an address with an @, otherwise sms.")
    subscription: str | None = Field(
        default=None, max_length=63, description="Only for this subscription. The key of a tenant must give one."
    )


class LiftedView(BaseModel):
    """An address that is sent to again."""

    channel: Channel
    address: str


@router.get("")
async def list_(
    access: TenantAccess,
    request: Request,
    response: Response,
    subscription: Annotated[str | None, Query(max_length=63)] = None,
    channel: Channel | None = None,
    address: Annotated[str | None, Query(max_length=MAX_ADDRESS)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[SuppressionView]:
    """List suppressions, newest first. The key of a tenant sees those of its subscriptions."""
    found = await access.registry.suppressions.page(
        tenant=access.tenant,
        subscription_id=subscription,
        channel=channel,
        address=operations.listed_address(address, channel),
        after=_position(cursor),
        limit=limit,
    )
    views = [SuppressionView.of(each.suppression) for each in found]
    return page_of(request, response, views, last_key=str(found[-1].position) if found else "", limit=limit)


@router.post("", status_code=201)
async def add(access: TenantAccess, new: SuppressionInput) -> SuppressionView:
    """Send nothing more to an address: for one subscription, or with an `admin` key for any."""
    scope = await _scope(access, new.subscription)
    stored = await operations.suppress(
        access.registry,
        new.address,
        new.channel,
        subscription_id=scope.id if scope else EVERYWHERE,
        tenant=scope.tenant if scope else None,
    )
    return SuppressionView.of(stored)


@router.post("/lift")
async def lift(access: TenantAccess, lifting: SuppressionInput) -> LiftedView:
    """Send to an address again: for one subscription, or with an `admin` key for all."""
    scope = await _scope(access, lifting.subscription)
    lifted = await operations.lift(
        access.registry,
        lifting.address,
        lifting.channel,
        subscription_id=scope.id if scope else None,
        tenant=scope.tenant if scope else None,
    )
    return LiftedView(channel=lifted.channel, address=lifted.address)


async def _scope(access: Access, subscription_id: str | None) -> Subscription | None:
    """The only subscription that the change is for; None: all. Raises ApiProblem, SubscriptionNotFound."""
    if subscription_id is not None:
        return await visible(access, subscription_id)
    if access.tenant is not None:
        problem = Problem(
            message="is required with the key of a tenant", field="subscription", remedy="name one of its subscriptions"
        )
        raise ApiProblem(ProblemType.INVALID, str(problem), errors=[problem])
    return None


def _position(cursor: str) -> Position | None:
    text = read_cursor(cursor)
    try:
        return Position.parse(text) if text else None
    except ValueError as error:
        raise invalid_cursor() from error
