"""MemoryRegistry: the activities on the registry, over dictionaries. Bellwire's own tests run the same tests on the real ones."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from bellwire import contract
from bellwire.contract import (
    EventSummary,
    Group,
    LookupInput,
    LookupResult,
    OpenPageInput,
    OpenPastInput,
    Page,
    PendingGroups,
    PlanTickInput,
    PublishResult,
    RecallInput,
    RecallPage,
    RedeliverInput,
    Remainder,
    ReplayBatch,
    ReplayCursor,
    ResolveInput,
    ResolveResult,
    SelectReplayInput,
    SettleInput,
    SettleResult,
    TickRecord,
)
from bellwire.deliveries import Counts, DeliveryState, OutcomeKind
from bellwire.errors import RegistryUnavailable
from bellwire.events import Event, event_key
from bellwire.replays import ReplayState
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from bellwire.tenants import ALL_TENANTS
from bellwire.testing.captured import CapturedAttempt


@dataclass
class MemoryDelivery:
    event_key: str
    subscription_id: str
    channel: Channel
    workflow_id: str
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    #: Attempts made when the schedule last began.
    schedule_from: int = 0
    delay: float = 0.0
    from_retry_after: bool = False
    reason: str = ""


@dataclass
class MemoryEvent:
    event: Event
    workflow_id: str
    run_id: str
    accepted_at: datetime


@dataclass
class MemoryReplay:
    """A replay of these groups, in batches."""

    groups: Sequence[Group]
    #: Whether the groups are of events that have no delivery yet.
    missing: bool = True
    state: ReplayState = ReplayState.RUNNING
    #: Deliveries per second.
    rate: float = 50.0
    batch: int = 50
    done: int = 0
    #: How often its workflow has asked what comes next.
    selections: int = 0


class MemoryRegistry:
    """Subscriptions, events and deliveries in memory."""

    def __init__(self) -> None:
        #: Subscriptions by id.
        self.stored: dict[str, Subscription] = {}
        self.limited_channels: tuple[Channel, ...] = ()
        #: Maximum deliveries of a page, and maximum pages in one result of `resolve`.
        self.page_size, self.max_pages = contract.PAGE_SIZE, 200
        #: Tenants that ever had a subscription, and whether events for others are refused.
        self.known_tenants = {ALL_TENANTS}
        self.refuse = False
        self.events: dict[str, MemoryEvent] = {}
        self.deliveries: dict[tuple[str, str], MemoryDelivery] = {}
        #: Attempts that have ended, for subscriptions that are stored.
        self.captured: list[CapturedAttempt] = []
        self.replays: dict[str, MemoryReplay] = {}
        #: The recorded ticks of schedules, and whether recording fails.
        self.ticks: list[TickRecord] = []
        self.ticks_fail = False

    def subscribe(self, subscription: Subscription) -> None:
        """Store a subscription, in place of one with the same id."""
        self.stored[subscription.id] = subscription
        self.known_tenants.add(subscription.tenant)

    def unsubscribe(self, subscription_id: str) -> None:
        """Delete a subscription and its unsettled deliveries."""
        self.stored.pop(subscription_id, None)
        for pair, delivery in list(self.deliveries.items()):
            if delivery.subscription_id == subscription_id and not delivery.state.settled:
                del self.deliveries[pair]

    async def now(self) -> datetime:
        """The time of the server, as far as there is one."""
        return datetime.now(UTC)

    def capture(self, delivery: MemoryDelivery, outcome: OutcomeKind, at: datetime) -> None:
        """Add the attempt that a delivery has just had."""
        if subscription := self.stored.get(delivery.subscription_id):
            event, number = self.events[delivery.event_key].event, delivery.attempts
            self.captured.append(CapturedAttempt(event, subscription, number, outcome, delivery.reason, at))

    def matching(self, event: Event) -> dict[str, Channel]:
        """The channels of the subscriptions that want an event, by their ids."""
        return {each.id: each.channel for each in self.stored.values() if each.wants(event)}

    def is_unknown(self, tenant: str) -> bool:
        """Whether a tenant never had a subscription."""
        return tenant not in self.known_tenants

    def state(self, key: str, subscription_id: str) -> DeliveryState:
        return self.deliveries[key, subscription_id].state

    def counts(self, key: str) -> Counts:
        """The counts of an event, by the states of its deliveries."""
        states = Counter(each.state for each in self.deliveries.values() if each.event_key == key)
        settled = {str(state): number for state, number in states.items() if state.settled}
        return Counts(matched=states.total()).plus(settled)

    @activity.defn
    async def resolve(self, request: ResolveInput) -> ResolveResult:
        summaries = {event.key: self._accept(event, request) for event in request.events}
        owned = [key for key, summary in summaries.items() if summary.result is PublishResult.OWNED]
        to_match = [*request.remainders, *(Remainder(event_key=key) for key in owned)]
        groups: list[Group] = []
        pages: list[Page] = []
        remainders: list[Remainder] = []
        max_deliveries = request.max_deliveries
        for remainder in to_match:
            if remainder.event_key not in self.events:
                continue
            matching = self.matching(self.events[remainder.event_key].event)
            ids = _ids(matching, after=remainder.after)
            if len(ids) <= max_deliveries and not remainder.after:
                groups += self._add(remainder.event_key, matching, ids, request.workflow_id)
                max_deliveries -= len(ids)
                continue
            after = remainder.after
            for start in range(0, len(ids), self.page_size):
                if len(pages) == self.max_pages:
                    remainders.append(Remainder(event_key=remainder.event_key, after=after))
                    break
                page = ids[start : start + self.page_size]
                pages.append(Page(event_key=remainder.event_key, after=after, until=page[-1], size=len(page)))
                after = page[-1]
        return ResolveResult(
            events=summaries,
            groups=tuple(groups),
            pages=tuple(pages),
            remainders=tuple(remainders),
            limited_channels=self.limited_channels,
        )

    @activity.defn
    async def open_page(self, request: OpenPageInput) -> PendingGroups:
        page = request.page
        if page.event_key not in self.events:
            return PendingGroups(groups=())
        matching = self.matching(self.events[page.event_key].event)
        ids = _ids(matching, after=page.after, until=page.until)
        groups = self._add(page.event_key, matching, ids, request.workflow_id)
        return PendingGroups(groups=groups, limited_channels=self.limited_channels)

    @activity.defn
    async def redeliver(self, request: RedeliverInput) -> PendingGroups:
        found = []
        next_attempts = {pair: group.attempt for group in request.groups for pair in _pairs([group])}
        for delivery in self._existing(request.groups):
            opened_before = delivery.state is DeliveryState.PENDING and delivery.workflow_id == request.workflow_id
            if not (opened_before or delivery.state.settled or request.abandoned):
                continue
            key = (delivery.event_key, delivery.subscription_id)
            if request.unchanged_only and not opened_before and delivery.attempts + 1 != next_attempts[key]:
                continue
            found.append(delivery)
            if not opened_before:
                delivery.state, delivery.workflow_id = DeliveryState.PENDING, request.workflow_id
                delivery.schedule_from = delivery.attempts
        return PendingGroups(groups=_grouped(found), limited_channels=self.limited_channels)

    @activity.defn
    async def select_replay(self, request: SelectReplayInput) -> ReplayBatch:
        replay = self.replays[request.replay_id]
        replay.done = request.done
        replay.selections += 1
        if request.cancelled:
            replay.state = ReplayState.CANCELLED
        if replay.state is not ReplayState.RUNNING:
            return ReplayBatch(state=replay.state)
        # The cursor is the number of groups that were selected.
        reached = int(request.cursor.event_key) if request.cursor else 0
        groups = tuple(replay.groups[reached : reached + replay.batch])
        if not groups:
            replay.state = ReplayState.COMPLETED
            return ReplayBatch(state=replay.state)
        return ReplayBatch(
            state=replay.state,
            groups=groups,
            missing=replay.missing,
            cursor=ReplayCursor(event_key=str(reached + len(groups))),
            rate=replay.rate,
            tenant="acme",
            total=len(replay.groups),
        )

    @activity.defn
    async def open_past(self, request: OpenPastInput) -> PendingGroups:
        opened: list[Group] = []
        for group in request.groups:
            if group.event_key in self.events:
                matching = self.matching(self.events[group.event_key].event)
                ids = [each for each in group.subscription_ids if each in matching]
                opened += self._add(group.event_key, matching, ids, request.workflow_id)
        return PendingGroups(groups=tuple(opened), limited_channels=self.limited_channels)

    @activity.defn
    async def settle(self, request: SettleInput) -> SettleResult:
        settled: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
        existing = {(each.event_key, each.subscription_id): each for each in self._existing(request.groups)}
        for pair in _pairs(request.groups):
            delivery = existing.get(pair)
            if delivery and not delivery.state.settled:
                delivery.state, delivery.reason = DeliveryState.CANCELLED, request.reason
            settled[pair[0]][delivery.state if delivery else DeliveryState.CANCELLED] += 1
        return SettleResult(settled={key: dict(states) for key, states in settled.items()})

    @activity.defn
    async def lookup(self, request: LookupInput) -> LookupResult:
        key = event_key(request.source, request.id)
        if (found := self.events.get(key)) is None:
            return LookupResult(event_key=key, not_found=contract.EVENT_NOT_FOUND)
        result = LookupResult(
            event_key=key,
            workflow_id=found.workflow_id,
            digest=found.event.digest,
            accepted_at=found.accepted_at,
            counts=self.counts(key),
        )
        if request.subscription_id is None:
            return result
        if (delivery := self.deliveries.get((key, request.subscription_id))) is None:
            return LookupResult(event_key=key, not_found=contract.DELIVERY_NOT_FOUND)
        return result.model_copy(
            update={
                "delivery": _grouped([delivery])[0],
                "delivery_state": delivery.state,
                "delivery_workflow_id": delivery.workflow_id,
            }
        )

    def of_event(self, request: RecallInput) -> list[MemoryDelivery]:
        """The deliveries that a recall is about."""
        return [
            each
            for each in self.deliveries.values()
            if each.event_key == request.event_key and request.subscription_id in {None, each.subscription_id}
        ]

    @activity.defn
    async def select_recall(self, request: RecallInput) -> RecallPage:
        return RecallPage.of(
            request.event_key, [(each.subscription_id, each.channel, each.state) for each in self.of_event(request)]
        )

    @activity.defn
    async def plan_tick(self, request: PlanTickInput) -> Event:
        return request.tick.event_at(request.scheduled_at)

    @activity.defn
    async def record_tick(self, record: TickRecord) -> None:
        if self.ticks_fail:
            raise RegistryUnavailable
        self.ticks.append(record)

    def _accept(self, event: Event, request: ResolveInput) -> EventSummary:
        unknown = self.is_unknown(event.tenant)
        if unknown and self.refuse:
            result, workflow_id = PublishResult.REFUSED, request.workflow_id
            return EventSummary(source=event.source, id=event.id, result=result, workflow_id=workflow_id)
        new = MemoryEvent(event, request.workflow_id, request.run_id, datetime.now(UTC))
        stored = self.events.setdefault(event.key, new)
        if stored.event.digest != event.digest:
            result = PublishResult.CONFLICT
        elif (stored.workflow_id, stored.run_id) == (request.workflow_id, request.run_id):
            result = PublishResult.OWNED
        else:
            result = PublishResult.DUPLICATE
        own: dict[str, Any] = {"result": result, "workflow_id": stored.workflow_id, "unknown_tenant": unknown}
        return EventSummary(source=event.source, id=event.id, **own)

    def _add(
        self, key: str, channels: Mapping[str, Channel], ids: Iterable[str], workflow_id: str
    ) -> tuple[Group, ...]:
        """Record deliveries as pending, where they do not exist, and return those of this workflow as groups."""
        by_channel: dict[Channel, list[str]] = defaultdict(list)
        for subscription_id in ids:
            channel = channels[subscription_id]
            new = MemoryDelivery(key, subscription_id, channel, workflow_id)
            if self.deliveries.setdefault((key, subscription_id), new).workflow_id == workflow_id:
                by_channel[channel].append(subscription_id)
        return tuple(
            Group(event_key=key, channel=channel, subscription_ids=tuple(of_channel))
            for channel, of_channel in by_channel.items()
        )

    def _existing(self, groups: Sequence[Group]) -> list[MemoryDelivery]:
        return [self.deliveries[pair] for pair in _pairs(groups) if pair in self.deliveries]


def _ids(matching: Mapping[str, Channel], *, after: str, until: str | None = None) -> list[str]:
    """Subscription ids in a range, in order."""
    return [each for each in sorted(matching) if each > after and (until is None or each <= until)]


def _pairs(groups: Sequence[Group]) -> list[tuple[str, str]]:
    return sorted({(group.event_key, each) for group in groups for each in group.subscription_ids})


def _grouped(deliveries: Sequence[MemoryDelivery]) -> tuple[Group, ...]:
    """The deliveries as groups, with the number of the next attempt."""
    members: dict[tuple[str, Channel, int], list[str]] = defaultdict(list)
    for each in deliveries:
        members[each.event_key, each.channel, each.attempts + 1].append(each.subscription_id)
    return tuple(
        Group(event_key=key, channel=channel, attempt=attempt, subscription_ids=tuple(ids))
        for (key, channel, attempt), ids in members.items()
    )
