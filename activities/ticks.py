"""Ticks: the activities of the workflow Tick."""

from collections.abc import Callable
from typing import Any

from temporalio import activity

from bellwire.contract import PlanTickInput, TickRecord
from bellwire.events import Event
from bellwire.registry import Registry


class Ticks:
    """Each can be retried at any point."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All of them, to be registered with a worker."""
        return [self.plan_tick, self.record_tick]

    @activity.defn
    async def plan_tick(self, request: PlanTickInput) -> Event:
        # An activity, since the rules of time zones are files, which change.
        return request.tick.event_at(request.scheduled_at)

    @activity.defn
    async def record_tick(self, record: TickRecord) -> None:
        await self._registry.ticks.add(record)
