"""Resolving: store what was published, find who wants it, and say which deliveries a run looks after itself."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from temporalio import activity

from activities.published import report_results
from activities.sending.settled import count_settled
from bellwire.contract import (
    DELIVERY_NOT_FOUND,
    EVENT_NOT_FOUND,
    PAGE_SIZE,
    Group,
    LookupInput,
    LookupResult,
    OpenPageInput,
    Page,
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
from bellwire.events import Event, event_key
from bellwire.registry import Match, Registry
from bellwire.targets import Channel

#: Candidate rows that one call of `resolve` reads, about a second's work; the rest is left to the next call.
SCAN_BUDGET = 50_000
#: Pages that one call returns, so that its result stays far below Temporal's 2 MB.
MAX_PAGES_A_CALL = 200
#: Subscriptions that one match may find: pages enough to make its queries worthwhile.
FOUND_AT_ONCE = 10 * PAGE_SIZE


class Resolver:
    """The activities on the registry. Each may be tried again at any point: rows that exist are left alone."""

    def __init__(
        self, registry: Registry, *, scan_budget: int = SCAN_BUDGET, max_pages: int = MAX_PAGES_A_CALL
    ) -> None:
        self._registry = registry
        self._scan_budget = scan_budget
        self._max_pages = max_pages

    @property
    def activities(self) -> list[Callable[..., Any]]:
        return [self.resolve, self.open_page, self.redeliver, self.settle, self.lookup]

    @activity.defn
    async def resolve(self, request: ResolveInput) -> ResolveResult:
        summaries = (
            await self._registry.events.accept(request.events, request.workflow_id, request.run_id)
            if request.events
            else {}
        )
        owned = {event.key: event for event in request.events if summaries[event.key].result is PublishResult.OWNED}
        stored = [remainder.event_key for remainder in request.remainders]
        events = {**(await self._registry.events.by_keys(stored) if stored else {}), **owned}
        remainders = [*request.remainders, *(Remainder(event_key=key) for key in owned)]
        # An event that was purged by force is not delivered any more.
        remainders = [remainder for remainder in remainders if remainder.event_key in events]

        survey = MatchPlanner(
            self._registry, events, room=request.max_deliveries, budget=self._scan_budget, max_pages=self._max_pages
        )
        await survey.go_over(remainders)
        if survey.groups:
            await self._registry.deliveries.add(request.workflow_id, survey.groups)
        limited_channels = await self._registry.limits.limited_channels()
        # Last, so that a try that fails before reports nothing twice.
        report_results(request, summaries)
        return ResolveResult(
            events=summaries,
            groups=tuple(survey.groups),
            pages=tuple(survey.pages),
            remainders=tuple(survey.left),
            limited_channels=limited_channels,
        )

    @activity.defn
    async def open_page(self, request: OpenPageInput) -> PendingGroups:
        page = request.page
        events = await self._registry.events.by_keys([page.event_key])
        if page.event_key not in events:
            return PendingGroups(groups=())  # the event was purged by force
        found = await self._registry.matching.match_range(events[page.event_key], after=page.after, until=page.until)
        groups = by_channel(page.event_key, found)
        await self._registry.deliveries.add(request.workflow_id, groups)
        return PendingGroups(groups=groups, limited_channels=await self._registry.limits.limited_channels())

    @activity.defn
    async def redeliver(self, request: RedeliverInput) -> PendingGroups:
        groups = await self._registry.deliveries.redeliver(
            request.workflow_id, request.groups, abandoned=request.abandoned
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


class MatchPlanner:
    """One call's way through what remains to be matched: the groups, the pages, and what it did not get to."""

    def __init__(self, registry: Registry, events: dict[str, Event], *, room: int, budget: int, max_pages: int) -> None:
        self._registry = registry
        self._events = events
        self._room = room
        self._whole_budget = self._budget = budget
        self._max_pages = max_pages
        self.groups: list[Group] = []
        self.pages: list[Page] = []
        self.left: list[Remainder] = []

    async def go_over(self, remainders: Sequence[Remainder]) -> None:
        alike: dict[tuple[str, str | None], list[Event]] = defaultdict(list)
        for remainder in remainders:
            event = self._events[remainder.event_key]
            if remainder.after:
                await self._divide(event, Match((), remainder.after), after=remainder.after)
            else:
                alike[event.type, event.tenant].append(event)
        if not alike:
            return
        limit = max(self._room, FOUND_AT_ONCE)
        found = await self._registry.matching.match_each(list(alike.values()), limit=limit, scan=self._budget)
        for events, matches in zip(alike.values(), found, strict=True):
            await self._begin(events, matches)

    async def _begin(self, events: Sequence[Event], matches: Sequence[Match]) -> None:
        """Events of one type and tenant that are new here: those that fit become groups, the others pages."""
        budget = self._budget
        if self._is_full:
            self.left += [Remainder(event_key=event.key) for event in events]
            return
        self._budget -= matches[0].scanned
        for event, match in zip(events, matches, strict=True):
            if match.reached is None and len(match.found) <= self._room:
                self._room -= len(match.found)
                self.groups += by_channel(event.key, match.found)
            elif match.reached is not None and len(match.found) <= self._room and budget < self._whole_budget:
                # Too little was read to tell; the next call begins with a whole budget.
                self.left.append(Remainder(event_key=event.key))
            else:
                await self._divide(event, match, after="")

    async def _divide(self, event: Event, match: Match, *, after: str) -> None:
        """Pages of what was found beyond `after`, then of what follows, as far as this call may go."""
        while True:
            for start in range(0, len(match.found), PAGE_SIZE):
                if len(self.pages) == self._max_pages:
                    self.left.append(Remainder(event_key=event.key, after=after))
                    return
                ids = [subscription_id for subscription_id, _ in match.found[start : start + PAGE_SIZE]]
                self.pages.append(Page(event_key=event.key, after=after, until=ids[-1], size=len(ids)))
                after = ids[-1]
            if match.reached is None:
                return
            after = match.reached
            if self._is_full:
                self.left.append(Remainder(event_key=event.key, after=after))
                return
            match = await self._registry.matching.match(event, after=after, limit=FOUND_AT_ONCE, scan=self._budget)
            self._budget -= match.scanned

    @property
    def _is_full(self) -> bool:
        return self._budget <= 0 or len(self.pages) >= self._max_pages


def by_channel(event_key: str, found: Iterable[tuple[str, Channel]]) -> tuple[Group, ...]:
    """The deliveries of an event to these subscriptions, one group per channel."""
    channels: dict[Channel, list[str]] = defaultdict(list)
    for subscription_id, channel in found:
        channels[channel].append(subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(ids)) for channel, ids in channels.items()
    )
