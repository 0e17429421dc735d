"""MatchPlanner: which deliveries of published events the run makes itself, and which become pages for other runs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bellwire.contract import PAGE_SIZE, Group, Page, Remainder
from bellwire.events import Event
from bellwire.registry import Match, Registry
from bellwire.targets import Channel

#: Maximum subscriptions that one match returns: enough pages to make its queries worthwhile.
MAX_FOUND = 10 * PAGE_SIZE


@dataclass
class Plan:
    """What one call of `resolve` found."""

    #: Deliveries of the run itself.
    groups: list[Group] = field(default_factory=list)
    #: Ranges of subscriptions for runs of their own.
    pages: list[Page] = field(default_factory=list)
    #: What the call did not get to.
    remainders: list[Remainder] = field(default_factory=list)


class MatchPlanner:
    """Matches events within the bounds of one call: deliveries of the run itself, candidate rows read, and pages returned."""

    def __init__(
        self, registry: Registry, events: Mapping[str, Event], *, max_deliveries: int, scan_budget: int, max_pages: int
    ) -> None:
        self._registry, self._events = registry, events
        self._deliveries_left = max_deliveries
        self._whole_budget = self._budget = scan_budget
        self._max_pages = max_pages
        self._plan = Plan()

    async def plan(self, remainders: Sequence[Remainder]) -> Plan:
        """Match what remains of each event. Events of one type and tenant share their queries."""
        new: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for remainder in remainders:
            event = self._events[remainder.event_key]
            if remainder.after:
                await self._divide(event, Match((), remainder.after), after=remainder.after)
            else:
                new[event.type, event.tenant].append(event)
        if new:
            limit = max(self._deliveries_left, MAX_FOUND)
            found = await self._registry.matching.match_each(list(new.values()), limit=limit, scan=self._budget)
            for events, matches in zip(new.values(), found, strict=True):
                await self._add(events, matches)
        return self._plan

    async def _add(self, events: Sequence[Event], matches: Sequence[Match]) -> None:
        """Add new events of one type and tenant: as groups if their deliveries fit, else as pages."""
        budget = self._budget
        if self._is_full:
            self._plan.remainders += [Remainder(event_key=event.key) for event in events]
            return
        self._budget -= matches[0].scanned
        for event, match in zip(events, matches, strict=True):
            fits = len(match.found) <= self._deliveries_left
            if match.reached is None and fits:
                self._deliveries_left -= len(match.found)
                self._plan.groups += groups_by_channel(event.key, match.found)
            elif match.reached is not None and fits and budget < self._whole_budget:
                # Too few rows were read to decide. The next call begins with the whole budget.
                self._plan.remainders.append(Remainder(event_key=event.key))
            else:
                await self._divide(event, match, after="")

    async def _divide(self, event: Event, match: Match, *, after: str) -> None:
        """Add pages of the subscriptions beyond `after`: first those of `match`, then the following ones within the bounds."""
        while True:
            for start in range(0, len(match.found), PAGE_SIZE):
                if len(self._plan.pages) == self._max_pages:
                    self._plan.remainders.append(Remainder(event_key=event.key, after=after))
                    return
                ids = [subscription_id for subscription_id, _ in match.found[start : start + PAGE_SIZE]]
                self._plan.pages.append(Page(event_key=event.key, after=after, until=ids[-1], size=len(ids)))
                after = ids[-1]
            if match.reached is None:
                return
            after = match.reached
            if self._is_full:
                self._plan.remainders.append(Remainder(event_key=event.key, after=after))
                return
            match = await self._registry.matching.match(event, after=after, limit=MAX_FOUND, scan=self._budget)
            self._budget -= match.scanned

    @property
    def _is_full(self) -> bool:
        return self._budget <= 0 or len(self._plan.pages) >= self._max_pages


def groups_by_channel(event_key: str, found: Iterable[tuple[str, Channel]]) -> tuple[Group, ...]:
    """The deliveries of an event to these subscriptions, one group per channel."""
    channels: dict[Channel, list[str]] = defaultdict(list)
    for subscription_id, channel in found:
        channels[channel].append(subscription_id)
    return tuple(
        Group(event_key=event_key, channel=channel, subscription_ids=tuple(ids)) for channel, ids in channels.items()
    )
