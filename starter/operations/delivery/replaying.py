"""Replaying: past deliveries are sent to their subscription again, and past events that it never got for the first time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from bellwire.client import Client
from bellwire.deliveries import SETTLED
from bellwire.errors import DeliveryNotFound, ReplayEnded
from bellwire.filters import TypePattern
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.registry.replays.selecting import FAILED_STATES
from bellwire.replays import DEFAULT_RATE, MAX_RATE, MIN_RATE, Replay, ReplayKind, ReplayState
from bellwire.replays.workflows import wake_replay
from bellwire.subscriptions import Subscription, SubscriptionState
from starter.operations.delivery.deliveries import get_delivery, parse_key
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.past import read_past, start_stored

_OPEN = (ReplayState.RUNNING, ReplayState.PAUSED)
_TYPES: TypeAdapter[tuple[TypePattern, ...]] = TypeAdapter(tuple[TypePattern, ...])


@dataclass(frozen=True, kw_only=True)
class ReplayRequest:
    """What somebody wants replayed. Times are durations back, or RFC 3339. Without `failed` and `delivery`: past events."""

    #: The id of one settled delivery.
    delivery: str | None = None
    #: The failed deliveries.
    failed: bool = False
    since: str | None = None
    until: str | None = None
    types: Sequence[str] = ()
    rate: float = DEFAULT_RATE


async def plan_replay(registry: Registry, subscription: Subscription, request: ReplayRequest) -> Replay:
    """The replay, not stored. Raises InputInvalid, DeliveryNotFound."""
    if subscription.state is not SubscriptionState.ACTIVE:
        raise InputInvalid(
            f"{subscription.id} is {subscription.state}",
            field="subscription",
            remedy="resume it, then start the replay",
        )
    if not MIN_RATE <= request.rate <= MAX_RATE:
        raise InputInvalid(f"must be {MIN_RATE:g} to {MAX_RATE:,.0f} per second", field="rate")
    now = datetime.now(UTC)
    since = None if request.since is None else read_past(request.since, field="since", now=now)
    until = now if request.until is None else read_past(request.until, field="until", now=now)
    if since is not None and since >= until:
        raise InputInvalid("is not after since", field="until", remedy="give a later time, or omit it")
    key = None
    if request.delivery is not None:
        if request.failed or request.since or request.until or request.types:
            raise InputInvalid("cannot be combined with what selects many", field="delivery", remedy="omit the others")
        key = await _settled_key(registry, subscription, request.delivery)
        kind, states = ReplayKind.DELIVERY, tuple(sorted(SETTLED))
    elif request.failed:
        kind, states = ReplayKind.FAILED, FAILED_STATES
    else:
        kind, states = ReplayKind.EVENTS, ()
    return Replay(
        tenant=subscription.tenant,
        subscription_id=subscription.id,
        kind=kind,
        states=states,
        types=_checked(request.types),
        event_key=key,
        since=since,
        until=until,
        rate=request.rate,
        created_at=now,
        updated_at=now,
    )


async def _settled_key(registry: Registry, subscription: Subscription, delivery_id: str) -> str:
    key = parse_key(delivery_id, field="delivery")
    missing = DeliveryNotFound(f"{subscription.id} has no delivery {delivery_id[:120]}")
    if key.subscription_id != subscription.id:
        raise missing
    try:
        found = await get_delivery(registry, key)
    except DeliveryNotFound:
        raise missing from None
    if not found.delivery.state.settled:
        raise InputInvalid("is not settled", field="delivery", remedy="wait, or attempt it now: `deliveries retry`")
    return key.event_key


def _checked(types: Sequence[str]) -> tuple[str, ...]:
    try:
        return _TYPES.validate_python(tuple(types))
    except ValidationError as error:
        message = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise InputInvalid(message, field="types") from None


async def start_replay(client: Client, registry: Registry, replay: Replay) -> None:
    """Store a replay, and start its workflow; a worker does that if Temporal cannot be reached now."""
    with change("replay.started", replay.id, tenant=replay.tenant):
        await registry.replays.add(replay)
    await start_stored(client, [replay])


async def pause_replay(client: Client, registry: Registry, replay_id: str) -> Replay:
    """Start nothing more until `resume_replay`. Raises ReplayNotFound, ReplayEnded, TemporalUnavailable."""
    replay = await registry.replays.get(replay_id)
    by_operator = replay.state is ReplayState.PAUSED and not replay.waits_for_subscription
    # One that waits for its subscription would go on with it; from now on, it does not.
    frm = [ReplayState.RUNNING] if by_operator else _OPEN
    return await _set(client, registry, replay_id, ReplayState.PAUSED, frm=frm, action="replay.paused")


async def resume_replay(client: Client, registry: Registry, replay_id: str) -> Replay:
    """Go on. Raises what `pause_replay` raises, and InputInvalid while its subscription is not active."""
    replay = await registry.replays.get(replay_id)
    subscription = await registry.subscriptions.get(replay.subscription_id)
    if replay.state is ReplayState.PAUSED and subscription.state is not SubscriptionState.ACTIVE:
        raise InputInvalid(
            f"{subscription.id} is {subscription.state}", field="subscription", remedy="resume the subscription first"
        )
    frm = [ReplayState.PAUSED]
    return await _set(client, registry, replay_id, ReplayState.RUNNING, frm=frm, action="replay.resumed")


async def cancel_replay(client: Client, registry: Registry, replay_id: str) -> Replay:
    """End it: what was not started is not sent. Raises what `pause_replay` raises."""
    return await _set(client, registry, replay_id, ReplayState.CANCELLED, frm=_OPEN, action="replay.cancelled")


async def _set(
    client: Client, registry: Registry, replay_id: str, state: ReplayState, *, frm: Sequence[ReplayState], action: str
) -> Replay:
    """Change the state, and wake the workflow, also if it is in the state already: an earlier call may not have reached it."""
    replay = await registry.replays.get(replay_id)
    with change(action, replay_id, tenant=replay.tenant):
        changed = await registry.replays.set_state(replay_id, state, if_states=frm)
    if not changed:
        replay = await registry.replays.get(replay_id)
        if replay.state is not state:
            raise ReplayEnded(f"{replay_id} is {replay.state}; start another replay")
        if replay.state.ended:
            return replay
    await wake_replay(client.temporal, replay)
    return await registry.replays.get(replay_id)
