"""Agenda: the unsettled deliveries of one workflow, and when each is due. Plain data and arithmetic, without workflow calls."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from bellwire.contract import CHUNK_SIZE, Action, ControlRequest, ControlResult, Deferred, Group, HoldReason
from bellwire.deliveries import Unsettled
from bellwire.targets import Channel
from workflows.policies import JITTER, SLACK_FRACTION, SLACK_SECONDS

#: Reasons of deliveries that are spread over time on purpose.
_SPREAD_REASONS = frozenset(HoldReason)


@dataclass(slots=True)
class Entry:
    """One unsettled delivery."""

    event_key: str
    subscription_id: str
    channel: Channel
    attempts: int
    #: Unix time of the next attempt.
    due: float
    reason: str = ""
    paused: bool = False
    in_flight: bool = False
    #: It settles as cancelled once it is not in flight.
    cancel_requested: bool = False
    #: `retry_now` requested the next attempt before it was due.
    extra: bool = False

    @property
    def is_waiting(self) -> bool:
        return not (self.paused or self.in_flight or self.cancel_requested)

    def as_unsettled(self, *, due: bool) -> Unsettled:
        """The entry as a payload, with or without its due time."""
        return Unsettled(
            event_key=self.event_key,
            subscription_id=self.subscription_id,
            channel=self.channel,
            attempts=self.attempts,
            reason=self.reason,
            due=datetime.fromtimestamp(self.due, UTC) if due else None,
            paused=self.paused,
            extra=self.extra,
        )


class Agenda:
    """Up to PAGE_SIZE entries. Scanning them all is cheap, so there is no index."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def has_delivery_to(self, subscription_id: str) -> bool:
        return any(entry.subscription_id == subscription_id for entry in self)

    def add(self, group: Group, *, due: float) -> None:
        for subscription_id in group.subscription_ids:
            self._entries[group.event_key, subscription_id] = Entry(
                group.event_key, subscription_id, group.channel, group.attempt - 1, due
            )

    def restore(self, unsettled: Unsettled, *, now: float) -> None:
        """Add an entry of the run before this one, as `carried` returned it."""
        self._entries[unsettled.event_key, unsettled.subscription_id] = Entry(
            unsettled.event_key,
            unsettled.subscription_id,
            unsettled.channel,
            unsettled.attempts,
            unsettled.due.timestamp() if unsettled.due else now,
            unsettled.reason,
            paused=unsettled.paused,
            extra=unsettled.extra,
        )

    def take_due(self, now: float, *, except_channels: frozenset[Channel] = frozenset()) -> list[Entry]:
        """Mark the entries that are due as in flight, and return them."""
        due = [e for e in self if e.is_waiting and e.due <= now and e.channel not in except_channels]
        for entry in due:
            entry.in_flight = True
        return due

    def cancel_requested(self) -> list[Entry]:
        """The cancelled entries that are not in flight.

        They stay on the agenda until they have settled: a cancel of the workflow may interrupt the settling.
        """
        return [entry for entry in self if entry.cancel_requested and not entry.in_flight]

    def take_all(self) -> list[Entry]:
        """Remove all entries, and return them."""
        entries = list(self)
        self._entries.clear()
        return entries

    def apply_results(
        self, sent: Iterable[Entry], deferred: Iterable[Deferred], *, now: float, random: Callable[[], float]
    ) -> None:
        """End the flight of the entries that were sent: those that were deferred are due again, the others have settled.

        `random` returns a number in [0, 1) for the jitter.
        """
        deferred_by_id = {(item.event_key, item.subscription_id): item for item in deferred}
        settled = []
        for entry in sent:
            entry.in_flight = entry.extra = False
            if item := deferred_by_id.get((entry.event_key, entry.subscription_id)):
                entry.attempts = item.attempts
                entry.reason = item.reason
                entry.due = now + item.delay * (1 if item.from_retry_after else 1 + JITTER * random())
            else:
                settled.append(entry)
        self.remove(settled)

    def wake_at(self, now: float, *, except_channels: frozenset[Channel] = frozenset()) -> float | None:
        """When the next round starts; None if no entry waits.

        It starts when the first entry is due, or up to the slack later if more entries are due by then. Entries that wait for a
        rate limit or a throttled endpoint get SLACK_SECONDS only, so that they do not pile up.
        """
        waiting = [entry for entry in self if entry.is_waiting and entry.channel not in except_channels]
        if not waiting:
            return None
        first = min(entry.due for entry in waiting)
        first_spread = min((entry.due for entry in waiting if entry.reason in _SPREAD_REASONS), default=math.inf)
        latest = min(first + max(SLACK_SECONDS, SLACK_FRACTION * (first - now)), first_spread + SLACK_SECONDS)
        return max(entry.due for entry in waiting if entry.due <= latest)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Return entries that were taken and are not attempted now."""
        for entry in entries:
            entry.in_flight = False

    def apply(self, request: ControlRequest, *, now: float) -> ControlResult:
        """Apply an operator's action, and count the entries it changed."""
        changed = paused = 0
        for entry in self:
            if request.subscription_id not in {None, entry.subscription_id}:
                continue
            if request.event_key not in {None, entry.event_key} or entry.cancel_requested:
                continue
            match request.action:
                case Action.RETRY_NOW if entry.paused and not request.end_pause:
                    paused += 1
                    continue
                case Action.RETRY_NOW if not entry.in_flight:
                    entry.extra = entry.extra or entry.due > now
                    entry.due, entry.paused = min(entry.due, now), False
                case Action.PAUSE if not entry.paused:
                    entry.paused = True
                case Action.RESUME if entry.paused:
                    entry.paused = False
                case Action.CANCEL:
                    entry.cancel_requested = True
                case _:
                    continue
            changed += 1
        return ControlResult(deliveries=changed, paused=paused)

    def unsettled(self, limit: int | None = None) -> tuple[Unsettled, ...]:
        """The first entries as payloads: those that wait by due time, then the others."""
        entries = sorted(self, key=lambda entry: (not entry.is_waiting, entry.due, entry.subscription_id))
        return tuple(entry.as_unsettled(due=entry.is_waiting) for entry in entries[:limit])

    def carried(self) -> tuple[Unsettled, ...]:
        """All entries as payloads for `restore`; a paused entry keeps its due time."""
        return tuple(entry.as_unsettled(due=True) for entry in self)

    def remove(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            del self._entries[entry.event_key, entry.subscription_id]


def groups(entries: Iterable[Entry], *, in_order: bool = False) -> tuple[Group, ...]:
    """The entries in groups of one event, channel and attempt number, those that `retry_now` requested apart.

    `in_order`: in the order of the entries, instead of by event.
    """
    alike = entries if in_order else sorted(entries, key=_group_key)
    return tuple(
        Group(
            event_key=event_key,
            channel=Channel(channel),
            attempt=attempts + 1,
            subscription_ids=tuple(entry.subscription_id for entry in members),
            extra=extra,
        )
        for (channel, event_key, attempts, extra), members in groupby(alike, key=_group_key)
    )


def chunks(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries in lists of one channel and up to CHUNK_SIZE."""
    found = []
    for _, members in groupby(sorted(entries, key=_channel), key=_channel):
        of_channel = list(members)
        found += [of_channel[start : start + CHUNK_SIZE] for start in range(0, len(of_channel), CHUNK_SIZE)]
    return found


def _group_key(entry: Entry) -> tuple[str, str, int, bool]:
    return entry.channel, entry.event_key, entry.attempts, entry.extra


def _channel(entry: Entry) -> str:
    return entry.channel
