"""Resolver: the activities on the registry, which store events, match subscriptions, and settle deliveries."""

from collections.abc import Callable
from typing import Any

from temporalio import activity

from activities.match_planner import MatchPlanner, groups_by_channel
from activities.published import report_results
from activities.sending.settled import count_settled
from activities.tenants import KnownTenants
from bellwire.contract import (
    DELIVERY_NOT_FOUND,
    EVENT_NOT_FOUND,
    LookupInput,
    LookupResult,
    OpenPageInput,
    PendingGroups,
    PublishResult,
    RedeliverInput,
    Remainder,
    ResolveInput,
    ResolveResult,
    SettleInput,
    SettleResult,
)
from bellwire.deliveries import DeliveryState
from bellwire.errors import DeliveryNotFound, EventNotFound
from bellwire.events import event_key
from bellwire.registry import Registry

#: Maximum candidate rows that one call of `resolve` reads, about a second's work. The next call reads on.
SCAN_BUDGET = 50_000
#: Maximum pages that one call returns, so that its result stays far below Temporal's 2 MB.
MAX_PAGES_PER_CALL = 200


class Resolver:
    """The activities on the registry. Each can be retried at any point: rows that exist are not changed."""

    def __init__(
        self,
        registry: Registry,
        *,
        refuse_unknown_tenants: bool = False,
        scan_budget: int = SCAN_BUDGET,
        max_pages: int = MAX_PAGES_PER_CALL,
    ) -> None:
        self._registry = registry
        self._scan_budget = scan_budget
        self._max_pages = max_pages
        self._tenants = KnownTenants(registry, refuse=refuse_unknown_tenants)

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All of them, to be registered with a worker."""
        return [self.resolve, self.open_page, self.redeliver, self.settle, self.lookup]

    @activity.defn
    async def resolve(self, request: ResolveInput) -> ResolveResult:
        accepted, refused = await self._tenants.divide(request.events)
        summaries = (
            await self._registry.events.accept(accepted, request.workflow_id, request.run_id) if accepted else {}
        )
        summaries = await self._tenants.marked(summaries, request.events, refused, request.workflow_id)
        owned = {event.key: event for event in request.events if summaries[event.key].result is PublishResult.OWNED}
        stored = [remainder.event_key for remainder in request.remainders]
        events = {**(await self._registry.events.by_keys(stored) if stored else {}), **owned}
        remainders = [*request.remainders, *(Remainder(event_key=key) for key in owned)]
        # An event that was purged by force is not delivered any more.
        remainders = [remainder for remainder in remainders if remainder.event_key in events]

        planner = MatchPlanner(
            self._registry,
            events,
            max_deliveries=request.max_deliveries,
            scan_budget=self._scan_budget,
            max_pages=self._max_pages,
        )
        plan = await planner.plan(remainders)
        groups = await self._registry.deliveries.add(request.workflow_id, plan.groups) if plan.groups else ()
        limited_channels = await self._registry.limits.limited_channels()
        # Last, so that a try that fails before reports nothing twice.
        report_results(request, summaries)
        return ResolveResult(
            events=summaries,
            groups=groups,
            pages=tuple(plan.pages),
            remainders=tuple(plan.remainders),
            limited_channels=limited_channels,
        )

    @activity.defn
    async def open_page(self, request: OpenPageInput) -> PendingGroups:
        page = request.page
        events = await self._registry.events.by_keys([page.event_key])
        if page.event_key not in events:
            return PendingGroups(groups=())  # the event was purged by force
        found = await self._registry.matching.match_range(events[page.event_key], after=page.after, until=page.until)
        groups = groups_by_channel(page.event_key, found)
        groups = await self._registry.deliveries.add(request.workflow_id, groups)
        return PendingGroups(groups=groups, limited_channels=await self._registry.limits.limited_channels())

    @activity.defn
    async def redeliver(self, request: RedeliverInput) -> PendingGroups:
        groups = await self._registry.deliveries.redeliver(
            request.workflow_id,
            request.groups,
            abandoned=request.abandoned,
            unchanged_only=request.unchanged_only,
        )
        return PendingGroups(groups=groups, limited_channels=await self._registry.limits.limited_channels())

    @activity.defn
    async def settle(self, request: SettleInput) -> SettleResult:
        settlement = await self._registry.deliveries.settle(request.groups, reason=request.reason)
        for channel, number in settlement.cancelled.items():
            count_settled(channel, DeliveryState.CANCELLED, number)
        return SettleResult(settled=settlement.states)

    @activity.defn
    async def lookup(self, request: LookupInput) -> LookupResult:
        # That something does not exist is a result: a failure would show a red run for a question.
        try:
            return await self._registry.events.lookup(request.source, request.id, request.subscription_id)
        except EventNotFound:
            not_found = EVENT_NOT_FOUND
        except DeliveryNotFound:
            not_found = DELIVERY_NOT_FOUND
        return LookupResult(event_key=event_key(request.source, request.id), not_found=not_found)
