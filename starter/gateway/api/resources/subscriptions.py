"""Subscriptions over HTTP: create, list, get, update, delete, pause, resume, test, rotate the secret, and health."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from pydantic import BaseModel, Field

from bellwire.contract import TestSendInput
from bellwire.errors import SubscriptionChanged, SubscriptionNotFound
from bellwire.models import StrictInput, json_number
from bellwire.registry.signing_secrets import OVERLAP
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel
from starter.gateway.api.access import Access, TenantAccess
from starter.gateway.api.cloud_events import draft_of
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor
from starter.gateway.api.problems import ApiProblem, ProblemType, refused
from starter.operations.problems import Problem
from starter.operations.subscribers import subscriptions as operations
from starter.operations.subscribers.past import start_stored
from starter.operations.subscribers.subscribing import read_subscription, store
from starter.operations.subscribers.test_sends import send_test
from starter.operations.subscribers.updating import read_change, update_subscriptions

router = APIRouter(prefix="/v1/subscriptions", tags=["Subscriptions"])

_ETAG = re.compile(r'(?:W/)?"v?([0-9]{1,9})"')


class SubscriptionView(BaseModel):
    """A subscription. Private values of its target, such as header values, are shown as stars."""

    id: str
    tenant: str
    types: list[str] = Field(description="Patterns of event types.")
    filters: list[dict[str, Any]]
    target: dict[str, Any] = Field(description="`GET /v1/channels/{name}/schema` describes it.")
    template: str | None
    templates: dict[str, str] | None = Field(description="The tenant's own templates.")
    locale: str
    retry_schedule: list[float] | None = Field(description="Seconds before each further attempt; null: the channel's.")
    rate_limit: float | None = Field(description="Deliveries per second at most; null: no limit.")
    state: SubscriptionState
    state_reason: str | None
    version: int = Field(description="Grows with each update. `ETag` has it too.")
    updated_at: datetime | None

    @classmethod
    def of(cls, subscription: Subscription) -> "SubscriptionView":
        return cls.model_validate(subscription.model_dump(mode="json", by_alias=True))


class CreatedSubscription(SubscriptionView):
    """A new subscription, with what its receiver verifies requests by."""

    secret: str | None = Field(default=None, description="The signing secret. It is shown this once.")
    public_key: str | None = Field(default=None, description="The public key, if it is asymmetric.")
    replay: str | None = Field(default=None, description="The id of the replay that delivers its past, with `since`.")


class PauseInput(StrictInput):
    reason: str | None = Field(default=None, max_length=500, description="Why, for later readers.")


class RotationInput(StrictInput):
    overlap: Annotated[int, Field(ge=0, le=90 * 86_400), json_number] = Field(
        default=int(OVERLAP.total_seconds()),
        description="Seconds that the old secret still signs.",
    )
    secret: str | None = Field(default=None, max_length=200, description="The new secret; null: one is generated.")


class Rotation(BaseModel):
    """What the receiver verifies requests by from now on."""

    secret: str | None = None
    public_key: str | None = None


class TestInput(StrictInput):
    event: dict[str, Any] | None = Field(default=None, description="The event to send; null: a sample.")


class TestResult(BaseModel):
    """What the receiver responded."""

    outcome: str = Field(description="`delivered`, `rejected`, `deferred` or `unknown`.")
    reason: str
    duration: float = Field(description="Seconds.")


class HealthView(BaseModel):
    """How recent attempts at the endpoint went."""

    state: SubscriptionState
    state_reason: str | None
    failing_since: datetime | None
    failures: int = Field(description="Failed attempts since the last success.")
    throttled_until: datetime | None


@router.post("", status_code=201)
async def create(
    access: TenantAccess,
    response: Response,
    new: Annotated[
        dict[str, Any],
        Body(description="The fields of a subscription; `since`; and for webhooks `secret` or `asymmetric`."),
    ],
) -> CreatedSubscription:
    """Create a subscription. The key of a tenant creates its own only, may leave `tenant` out, and gets a generated id: ids
    are unique across all tenants, so that choosing one would tell which exist.

    With `since`, a duration such as `1h` or a time, it also gets what happened from then on. `replay` delivers that."""
    if access.tenant is not None and new.setdefault("tenant", access.tenant) != access.tenant:
        problem = Problem(
            message=f"must be {access.tenant}, the tenant of the API key", field="tenant", remedy="omit it"
        )
        raise ApiProblem(ProblemType.INVALID, str(problem), errors=[problem])
    if access.tenant is not None and new.get("id") is not None:
        raise refused("id", "cannot be chosen with the key of a tenant", remedy="omit it; one is generated")
    (stored,) = await store(access.registry, [read_subscription(new, access.settings)])
    if stored.replay is not None:
        await start_stored(access.client, [stored.replay])
    response.headers["location"] = f"/v1/subscriptions/{stored.subscription.id}"
    response.headers["etag"] = _etag(stored.subscription)
    view = SubscriptionView.of(stored.subscription)
    return CreatedSubscription(**view.model_dump(), **stored.credentials, replay=stored.replay and stored.replay.id)


@router.get("")
async def list_(
    access: TenantAccess,
    request: Request,
    response: Response,
    tenant: Annotated[str | None, Query(max_length=63)] = None,
    channel: Channel | None = None,
    state: SubscriptionState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[SubscriptionView]:
    """List subscriptions by id. The key of a tenant sees its own."""
    found = await access.registry.subscriptions.list(
        tenant=access.tenant or tenant, channel=channel, state=state, after=read_cursor(cursor), limit=limit
    )
    views = [SubscriptionView.of(each) for each in found]
    return page_of(request, response, views, last_key=views[-1].id if views else "", limit=limit)


@router.get("/{subscription_id}")
async def get(access: TenantAccess, response: Response, subscription_id: str) -> SubscriptionView:
    """One subscription, with its version as the `ETag`."""
    return _shown(response, await visible(access, subscription_id))


@router.patch("/{subscription_id}")
async def update(
    access: TenantAccess,
    response: Response,
    subscription_id: str,
    patch: Annotated[dict[str, Any], Body(description="A JSON merge patch (RFC 7396) of the subscription's fields.")],
    if_match: Annotated[str | None, Header(description="The `ETag` of the version that the change is made to.")] = None,
) -> SubscriptionView:
    """Change fields; what is left out stays, null clears. Deliveries and secret stay, and later attempts use the new fields."""
    await visible(access, subscription_id)
    version = _version(if_match)
    change = read_change(patch, subscription_id=subscription_id, if_version=version)
    try:
        (updated,) = await update_subscriptions(access.registry, [change], access.settings)
    except SubscriptionChanged as error:
        if version is None:
            raise ApiProblem(ProblemType.CONFLICT, str(error), headers={"retry-after": "1"}) from error
        raise refused("If-Match", str(error), kind=ProblemType.PRECONDITION_FAILED) from error
    return _shown(response, updated.after)


@router.delete("/{subscription_id}", status_code=204)
async def delete(
    access: TenantAccess,
    subscription_id: str,
    cancel: Annotated[bool, Query(description="Cancel its unsettled deliveries first.")] = False,
) -> None:
    """Delete a subscription with its deliveries and attempts."""
    await visible(access, subscription_id)
    await operations.delete_subscription(access.registry, subscription_id, cancel=cancel)


@router.post("/{subscription_id}/pause")
async def pause(
    access: TenantAccess, response: Response, subscription_id: str, pausing: PauseInput | None = None
) -> SubscriptionView:
    """Match no more events. Events published during the pause are not delivered later."""
    await visible(access, subscription_id)
    reason = pausing.reason if pausing else None
    details = await operations.pause_subscription(access.registry, subscription_id, reason=reason)
    return _shown(response, details.subscription)


@router.post("/{subscription_id}/resume")
async def resume(access: TenantAccess, response: Response, subscription_id: str) -> SubscriptionView:
    """Match events again, after a pause or after the subscription was disabled."""
    await visible(access, subscription_id)
    return _shown(response, (await operations.resume_subscription(access.registry, subscription_id)).subscription)


@router.post("/{subscription_id}/test")
async def send(access: TenantAccess, subscription_id: str, sending: TestInput | None = None) -> TestResult:
    """Send an event to the subscription now, in any state. It is not recorded as a delivery."""
    subscription = await visible(access, subscription_id)
    event = draft_of(sending.event) if sending and sending.event is not None else None
    request = TestSendInput(subscription_id=subscription.id, channel=subscription.channel, event=event)
    result = (await send_test(access.client.temporal, access.registry, request)).result
    return TestResult(outcome=result.kind, reason=result.reason, duration=result.duration)


@router.post("/{subscription_id}/rotate-secret")
async def rotate_secret(access: TenantAccess, subscription_id: str, rotation: RotationInput | None = None) -> Rotation:
    """Sign with another secret. The old one signs as well during the overlap."""
    await visible(access, subscription_id)
    wanted = rotation or RotationInput()
    rotated = await operations.rotate_secret(
        access.registry, subscription_id, overlap=timedelta(seconds=wanted.overlap), secret=wanted.secret
    )
    return Rotation(**rotated.credentials)


@router.get("/{subscription_id}/health")
async def health(access: TenantAccess, subscription_id: str) -> HealthView:
    """How recent attempts at the subscription's endpoint went."""
    await visible(access, subscription_id)
    found = await operations.show_subscription(access.registry, subscription_id)
    return HealthView(
        state=found.subscription.state,
        state_reason=found.subscription.state_reason,
        failing_since=found.health.failing_since,
        failures=found.health.failures,
        throttled_until=found.health.throttled_until,
    )


async def visible(access: Access, subscription_id: str) -> Subscription:
    """Raises SubscriptionNotFound, for another tenant's as for one that does not exist."""
    missing = SubscriptionNotFound.of(subscription_id)
    try:
        found = await access.registry.subscriptions.get(subscription_id)
    except SubscriptionNotFound:
        raise missing from None
    if not access.allows(found.tenant):
        raise missing
    return found


def _shown(response: Response, subscription: Subscription) -> SubscriptionView:
    response.headers["etag"] = _etag(subscription)
    return SubscriptionView.of(subscription)


def _etag(subscription: Subscription) -> str:
    return f'"v{subscription.version}"'


def _version(if_match: str | None) -> int | None:
    """The version of an If-Match field; None without one, and for `*`. Raises ApiProblem."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise refused(
            "If-Match",
            "is not an ETag of this subscription",
            remedy="send the ETag as it was given",
            kind=ProblemType.PRECONDITION_FAILED,
        )
    return int(found[1])
