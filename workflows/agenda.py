"""Agenda: the unsettled deliveries of one run, and when each is due. Plain data and arithmetic; no workflow calls."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from bellwire.contract import CHUNK_SIZE, RATE_LIMIT, THROTTLED, Action, ControlRequest, Deferred, Group
from bellwire.deliveries import Unsettled
from bellwire.subscriptions import Channel
from workflows.policies import JITTER, SLACK_PART, SLACK_SECONDS

#: Reasons of deliveries that were spread out over time on purpose.
_PACED = frozenset({RATE_LIMIT, THROTTLED})


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
    #: An operator cancelled it; it settles as soon as it is not in flight.
    cancel_requested: bool = False

    @property
    def is_waiting(self) -> bool:
        return not (self.paused or self.in_flight or self.cancel_requested)

    def as_data(self, *, due: bool) -> Unsettled:
        return Unsettled(
            event_key=self.event_key,
            subscription_id=self.subscription_id,
            channel=self.channel,
            attempts=self.attempts,
            reason=self.reason,
            due=datetime.fromtimestamp(self.due, UTC) if due else None,
            paused=self.paused,
        )


class Agenda:
    """Holds up to a page of entries, so that looking at all of them is cheap and no index is kept."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def holds(self, subscription_id: str) -> bool:
        return any(entry.subscription_id == subscription_id for entry in self)

    def add(self, group: Group, *, due: float) -> None:
        for subscription_id in group.subscription_ids:
            self._entries[group.event_key, subscription_id] = Entry(
                group.event_key, subscription_id, group.channel, group.attempt - 1, due
            )

    def restore(self, unsettled: Unsettled, *, now: float) -> None:
        """Take over an entry of the run before this one."""
        self._entries[unsettled.event_key, unsettled.subscription_id] = Entry(
            unsettled.event_key,
            unsettled.subscription_id,
            unsettled.channel,
            unsettled.attempts,
            unsettled.due.timestamp() if unsettled.due else now,
            unsettled.reason,
            paused=unsettled.paused,
        )

    def take_due(self, now: float, *, but: frozenset[Channel] = frozenset()) -> list[Entry]:
        """The entries that are due, but those of some channels, marked as in flight."""
        due = [entry for entry in self if entry.is_waiting and entry.due <= now and entry.channel not in but]
        for entry in due:
            entry.in_flight = True
        return due

    def cancel_requested(self) -> list[Entry]:
        """The cancelled entries that are not in flight. Until they have settled they stay, since a cancel may break that off."""
        return [entry for entry in self if entry.cancel_requested and not entry.in_flight]

    def take_all(self) -> list[Entry]:
        entries = list(self)
        self._entries.clear()
        return entries

    def apply_results(
        self, sent: Iterable[Entry], deferred: Iterable[Deferred], *, now: float, chance: Iterator[float]
    ) -> None:
        """Take back what was in flight: what was deferred is due again, the rest is settled and goes.

        `chance` yields random numbers in [0, 1) for the jitter.
        """
        again = {(item.event_key, item.subscription_id): item for item in deferred}
        settled = []
        for entry in sent:
            entry.in_flight = False
            if item := again.get((entry.event_key, entry.subscription_id)):
                entry.attempts = item.attempts
                entry.reason = item.reason
                entry.due = now + item.delay * (1 if item.from_retry_after else 1 + JITTER * next(chance))
            else:
                settled.append(entry)
        self.remove(settled)

    def wake_at(self, now: float, *, but: frozenset[Channel] = frozenset()) -> float | None:
        """When the next round is: as soon as the first entry and all those due shortly after it are due. None if none waits.

        What waits for a rate limit, or for a receiver that is throttled, must not pile up meanwhile.
        """
        waiting = [entry for entry in self if entry.is_waiting and entry.channel not in but]
        if not waiting:
            return None
        first = min(entry.due for entry in waiting)
        paced = min((entry.due for entry in waiting if entry.reason in _PACED), default=math.inf)
        last_together = min(first + max(SLACK_SECONDS, SLACK_PART * (first - now)), paced + SLACK_SECONDS)
        return max(entry.due for entry in waiting if entry.due <= last_together)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """They were taken, and are not attempted now."""
        for entry in entries:
            entry.in_flight = False

    def control(self, control: ControlRequest, *, now: float) -> int:
        """Obey an operator; the number of entries that changed."""
        changed = 0
        for entry in self:
            meant = control.subscription_id in {None, entry.subscription_id} and control.event_key in {
                None,
                entry.event_key,
            }
            if not meant or entry.cancel_requested:
                continue
            match control.action:
                case Action.RETRY_NOW if not entry.in_flight:
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
        return changed

    def unsettled(self, limit: int | None = None) -> tuple[Unsettled, ...]:
        """The entries as data, the earliest due first."""
        entries = sorted(self, key=lambda entry: (not entry.is_waiting, entry.due, entry.subscription_id))
        return tuple(entry.as_data(due=entry.is_waiting) for entry in entries[:limit])

    def carried(self) -> tuple[Unsettled, ...]:
        """The entries for `restore`: those that are paused keep the time at which they would be due."""
        return tuple(entry.as_data(due=True) for entry in self)

    def remove(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            del self._entries[entry.event_key, entry.subscription_id]


def groups(entries: Iterable[Entry]) -> tuple[Group, ...]:
    """The entries as groups of equal event, channel and attempt."""

    def likeness(entry: Entry) -> tuple[str, str, int]:
        return entry.channel, entry.event_key, entry.attempts

    return tuple(
        Group(
            event_key=event_key,
            channel=Channel(channel),
            attempt=attempts + 1,
            subscription_ids=tuple(entry.subscription_id for entry in alike),
        )
        for (channel, event_key, attempts), alike in groupby(sorted(entries, key=likeness), key=likeness)
    )


def chunks(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries in lists of one channel and at most CHUNK_SIZE."""
    found = []
    for _, of_channel in groupby(sorted(entries, key=lambda entry: entry.channel), key=lambda entry: entry.channel):
        ordered = list(of_channel)
        found += [ordered[start : start + CHUNK_SIZE] for start in range(0, len(ordered), CHUNK_SIZE)]
    return found
