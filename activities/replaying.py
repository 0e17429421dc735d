"""Replayer: the activities of the workflow Replay, which select past deliveries and events, and begin those that are missing."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from bellwire.contract import (
    CHUNK_SIZE,
    Group,
    OpenPastInput,
    PendingGroups,
    ReplayBatch,
    ReplayCursor,
    SelectReplayInput,
)
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.replays import Replay, ReplayKind, ReplayState
from bellwire.subscriptions import Subscription, SubscriptionState

#: Selections that one call makes at most, while they are empty. The next call goes on.
MAX_SELECTIONS = 20
#: Seconds after which a throttled endpoint, or a subscription that is not active, is looked at again, at most.
MAX_WAIT = 60.0
#: The part of a subscription's rate limit that a replay uses; live events have the rest.
SHARE_OF_LIMIT = 0.5


class Replayer:
    """The activities. Each can be retried at any point."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All of them, to be registered with a worker."""
        return [self.select_replay, self.open_past]

    @activity.defn
    async def select_replay(self, request: SelectReplayInput) -> ReplayBatch:
        replays = self._registry.replays
        replay = await replays.record_progress(request.replay_id, done=request.done)
        if replay is None:
            return ReplayBatch(state=ReplayState.CANCELLED)  # it was deleted with its subscription
        if request.cancelled:
            await replays.set_state(replay.id, ReplayState.CANCELLED, if_states=_OPEN)
            return ReplayBatch(state=ReplayState.CANCELLED)
        if replay.state is not ReplayState.RUNNING and not replay.waits_for_subscription:
            return ReplayBatch(state=replay.state, total=replay.total)
        try:
            subscription, _, health = await self._registry.subscriptions.context(replay.subscription_id)
        except SubscriptionNotFound:
            return ReplayBatch(state=ReplayState.CANCELLED)
        if subscription.state is not SubscriptionState.ACTIVE:
            reason = f"the subscription is {subscription.state}"
            await replays.set_state(replay.id, ReplayState.PAUSED, if_states=[ReplayState.RUNNING], reason=reason)
            return ReplayBatch(state=ReplayState.PAUSED, wait=MAX_WAIT, total=replay.total)
        if replay.waits_for_subscription and not await replays.end_wait(replay.id):
            # It was paused or ended meanwhile; the next call says which.
            return ReplayBatch(state=ReplayState.PAUSED, wait=MAX_WAIT, total=replay.total)
        if replay.total is None and request.cursor is None:
            replay = await self._count(replay, subscription)
        now = datetime.now(UTC)
        if health.throttled_until is not None and health.throttled_until > now:
            # What is sent now would only wait, and each delivery for itself.
            wait = min((health.throttled_until - now).total_seconds(), MAX_WAIT)
            return ReplayBatch(state=ReplayState.RUNNING, cursor=request.cursor, wait=wait, total=replay.total)
        return await self._next(replay, subscription, request.cursor)

    async def _count(self, replay: Replay, subscription: Subscription) -> Replay:
        total = await self._registry.replays.count(replay, subscription)
        if total is None:
            return replay
        await self._registry.replays.set_total(replay.id, total)
        return replay.model_copy(update={"total": total})

    async def _next(self, replay: Replay, subscription: Subscription, cursor: ReplayCursor | None) -> ReplayBatch:
        rate = replay.rate
        if subscription.rate_limit is not None:
            rate = min(rate, SHARE_OF_LIMIT * subscription.rate_limit)
        batch = ReplayBatch(
            state=ReplayState.RUNNING,
            missing=replay.kind is ReplayKind.EVENTS,
            rate=rate,
            tenant=replay.tenant,
            subscription_id=replay.subscription_id,
            total=replay.total,
        )
        limit = max(1, min(int(rate), CHUNK_SIZE))
        groups: tuple[Group, ...] = ()
        for _ in range(MAX_SELECTIONS):
            selection = await self._registry.replays.select(replay, subscription, after=cursor, limit=limit)
            groups, cursor = selection.groups, selection.cursor
            if groups or selection.ended:
                break
        else:
            return batch.model_copy(update={"cursor": cursor})
        if groups:
            return batch.model_copy(update={"groups": groups, "cursor": cursor})
        if await self._registry.replays.set_state(replay.id, ReplayState.COMPLETED, if_states=[ReplayState.RUNNING]):
            return batch.model_copy(update={"state": ReplayState.COMPLETED})
        # It was paused or cancelled meanwhile; the next call says which.
        return batch.model_copy(update={"cursor": cursor})

    @activity.defn
    async def open_past(self, request: OpenPastInput) -> PendingGroups:
        registry = self._registry
        # What an earlier try of the same workflow has begun stays its own, whatever was changed since.
        own = await registry.deliveries.owned(request.workflow_id, request.groups)
        events = await registry.events.by_keys([group.event_key for group in request.groups])
        ids = {each for group in request.groups for each in group.subscription_ids}
        wanted = []
        for subscription_id in sorted(ids):
            try:
                subscription = await registry.subscriptions.get(subscription_id)
            except SubscriptionNotFound:
                continue
            # It was active when the groups were selected, and they are not selected again.
            active = subscription.model_copy(update={"state": SubscriptionState.ACTIVE})
            wanted += [
                group
                for group in request.groups
                if subscription_id in group.subscription_ids
                and group.event_key in events
                and ((group.event_key, subscription_id) in own or active.wants(events[group.event_key]))
            ]
        groups = await registry.deliveries.add(request.workflow_id, wanted) if wanted else ()
        return PendingGroups(groups=groups, limited_channels=await registry.limits.limited_channels())


_OPEN = (ReplayState.RUNNING, ReplayState.PAUSED)
