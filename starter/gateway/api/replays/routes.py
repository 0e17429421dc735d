"""Replays over HTTP: start, list, get, pause, resume, cancel."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from bellwire.errors import ReplayNotFound
from bellwire.models import StrictInput, json_number
from bellwire.replays import DEFAULT_RATE, MAX_RATE, MIN_RATE, Replay, ReplayKind, ReplayState
from starter.gateway.api.access import Access, TenantAccess
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor
from starter.gateway.api.resources.request_schemas import PAST
from starter.gateway.api.resources.subscriptions import visible
from starter.operations.delivery import replaying
from starter.operations.delivery.replaying import ReplayRequest

router = APIRouter(prefix="/v1", tags=["Replays"])


class ReplayInput(StrictInput):
    delivery: str | None = Field(default=None, max_length=120, description="The id of one settled delivery.")
    failed: bool = Field(default=False, description="Replay failed deliveries, instead of events that it never got.")
    since: str | None = Field(
        default=None,
        max_length=40,
        description="From then on: how long ago, such as `1h`, or an RFC 3339 time. When events were stored, or deliveries"
        " settled.",
        json_schema_extra={"pattern": PAST},
    )
    until: str | None = Field(
        default=None, max_length=40, description="Before then; by default, now.", json_schema_extra={"pattern": PAST}
    )
    types: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        default=(), description="Only of events whose type matches one of these patterns."
    )
    rate: Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE), json_number] = Field(
        default=DEFAULT_RATE, description="Deliveries per second at most."
    )
    dry_run: bool = Field(default=False, description="Count only, and start nothing.")


class ReplayView(BaseModel):
    """A replay, and how far it is."""

    id: str | None = Field(description="null after a dry run.")
    tenant: str
    subscription: str
    kind: ReplayKind
    types: list[str]
    since: datetime | None
    until: datetime
    rate: float = Field(description="Deliveries per second at most.")
    state: ReplayState
    state_reason: str | None = Field(description="Why Bellwire paused it.")
    total: int | None = Field(description="How many deliveries it selects; null: not counted yet, or too many.")
    done: int = Field(description="How many were attempted at least once.")
    seconds_left: float | None = Field(description="About how long it still takes; null: not known.")
    outcomes: dict[str, int] | None = Field(default=None, description="Its deliveries by their state now.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, replay: Replay, outcomes: dict[str, int] | None = None) -> "ReplayView":
        values = replay.model_dump(mode="json") | {"subscription": replay.subscription_id, "outcomes": outcomes}
        return cls.model_validate({**values, "seconds_left": replay.seconds_left})


@router.post(
    "/subscriptions/{subscription_id}/replays",
    status_code=201,
    responses={200: {"model": ReplayView, "description": "Of a dry run: what would be replayed."}},
)
async def start(
    access: TenantAccess, response: Response, subscription_id: str, given: ReplayInput | None = None
) -> ReplayView:
    """Send past events that the subscription never got; with `failed` or `delivery`, what it got before. `dry_run` counts."""
    subscription = await visible(access, subscription_id)
    wanted = given or ReplayInput()
    fields = wanted.model_dump(exclude={"dry_run"})
    replay = await replaying.plan_replay(access.registry, subscription, ReplayRequest(**fields))
    if wanted.dry_run:
        total = await access.registry.replays.count(replay, subscription)
        response.status_code = 200
        return ReplayView.of(replay.model_copy(update={"total": total})).model_copy(update={"id": None})
    await replaying.start_replay(access.client, access.registry, replay)
    response.headers["location"] = f"/v1/replays/{replay.id}"
    return ReplayView.of(replay)


@router.get("/subscriptions/{subscription_id}/replays")
async def list_(
    access: TenantAccess,
    request: Request,
    response: Response,
    subscription_id: str,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[ReplayView]:
    """The replays of a subscription, newest first."""
    await visible(access, subscription_id)
    found = await access.registry.replays.list(subscription_id=subscription_id, before=read_cursor(cursor), limit=limit)
    views = [ReplayView.of(each) for each in found]
    return page_of(request, response, views, last_key=found[-1].id if found else "", limit=limit)


@router.get("/replays/{replay_id}")
async def get(access: TenantAccess, replay_id: str) -> ReplayView:
    """One replay, with its progress."""
    return await _view(access, await _visible(access, replay_id))


@router.post("/replays/{replay_id}/pause")
async def pause(access: TenantAccess, replay_id: str) -> ReplayView:
    """Start nothing more until it is resumed."""
    await _visible(access, replay_id)
    return await _view(access, await replaying.pause_replay(access.client, access.registry, replay_id))


@router.post("/replays/{replay_id}/resume")
async def resume(access: TenantAccess, replay_id: str) -> ReplayView:
    """Go on."""
    await _visible(access, replay_id)
    return await _view(access, await replaying.resume_replay(access.client, access.registry, replay_id))


@router.post("/replays/{replay_id}/cancel")
async def cancel(access: TenantAccess, replay_id: str) -> ReplayView:
    """End it: what was not started is not sent."""
    await _visible(access, replay_id)
    return await _view(access, await replaying.cancel_replay(access.client, access.registry, replay_id))


async def _visible(access: Access, replay_id: str) -> Replay:
    """Raises ReplayNotFound, for another tenant's as for one that does not exist."""
    replay = await access.registry.replays.get(replay_id)
    if not access.allows(replay.tenant):
        raise ReplayNotFound(f"no replay has the id {replay_id[:80]}")
    return replay


async def _view(access: Access, replay: Replay) -> ReplayView:
    outcomes = await access.registry.replays.outcomes(replay)
    return ReplayView.of(replay, {str(state): number for state, number in outcomes.items()})
