"""Recaller: the activities of the workflow Recall on the registry. They stop an event, and list its deliveries."""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.client import Client as Temporal

from bellwire.contract import OpenedRecall, RecallInput, RecallPage, unable_to_recall
from bellwire.registry import Registry
from bellwire.temporal.recalling import stop_event, stop_runs

#: Deliveries of one page.
PAGE = 500
#: Seconds that an activity waits for attempts in flight to end, and seconds between two looks.
MAX_WAIT_SECONDS, LOOK_SECONDS = 10.0, 0.1


class Recaller:
    """The activities. Each can be retried at any point."""

    def __init__(self, registry: Registry, temporal: Temporal) -> None:
        self._registry, self._temporal = registry, temporal

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All of them, to be registered with a worker."""
        return [self.open_recall, self.select_recall]

    @activity.defn
    async def open_recall(self, request: RecallInput) -> OpenedRecall:
        key, name = request.event_key, request.subscription_id
        if unable := unable_to_recall(await self._registry.recalls.channels(key, name)):
            return OpenedRecall(unable=unable)
        end = asyncio.get_running_loop().time() + MAX_WAIT_SECONDS
        ended = await stop_event(self._temporal, request, timeout=MAX_WAIT_SECONDS)
        # Also what is sent again, or sent late, by other workflows than the one that published it.
        stopped = {request.workflow_id}
        while owners := await self._registry.recalls.unsettled_in(key, name):
            await stop_runs(self._temporal, [each for each in owners if each not in stopped], request)
            stopped |= set(owners)
            if asyncio.get_running_loop().time() >= end:
                return OpenedRecall(is_sending=True)
            await asyncio.sleep(LOOK_SECONDS)
        return OpenedRecall(is_sending=not ended)

    @activity.defn
    async def select_recall(self, request: RecallInput) -> RecallPage:
        page = await self._registry.deliveries.list(
            event_key=request.event_key, subscription_id=request.subscription_id, after=request.after, limit=PAGE
        )
        found = [(each.subscription_id, each.channel, each.state) for each in page]
        return RecallPage.of(request.event_key, found, after=page[-1].id if len(page) == PAGE else None)
