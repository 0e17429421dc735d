"""Retention: what the registry gives up, in short transactions, so that nobody who delivers waits long."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Delivery
from bellwire.registry import deliveries, subscriptions
from bellwire.registry.db.engine import Database, Work
from bellwire.registry.upkeep import erasing, purging
from bellwire.registry.upkeep.erasing import (
    ERASED,
    AffectedSubscription,
    Recipient,
    RedactedBatch,
)
from bellwire.registry.upkeep.purging import Aged, Rows
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel

#: Events that are looked at together; deliveries that go in one transaction; rows of a search.
EVENTS_A_BATCH, DELIVERIES_A_BATCH, ROWS_A_SEARCH = 200, 1_000, 5_000
#: The state reason of a subscription while it is deleted.
DELETED = "deleted"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Purged:
    """What went, or would go."""

    events: int = 0
    deliveries: int = 0
    attempts: int = 0
    #: Events old enough that stayed whole: something of them is unsettled, or their run is open.
    stayed: int = 0

    def plus(self, rows: Rows) -> "Purged":
        return replace(
            self,
            events=self.events + rows.events,
            deliveries=self.deliveries + rows.deliveries,
            attempts=self.attempts + rows.attempts,
        )


@dataclass(frozen=True, slots=True)
class Deleted:
    """A subscription that was deleted, or would be; with `unsettled` deliveries it stays, unless they were cancelled."""

    gone: bool
    deliveries: int = 0
    attempts: int = 0
    unsettled: int = 0


@dataclass(slots=True)
class Erased:
    """What an erasure changed, or would change."""

    #: Subscriptions that were left without recipients, and those that send to others still.
    emptied: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    #: Deliveries and attempts that held something of or to the recipient.
    deliveries: int = 0
    attempts: int = 0
    #: Deliveries that were cancelled, and the runs that hold them until they are due next.
    cancelled: int = 0
    runs: set[str] = field(default_factory=set)
    events: int = 0
    suppressions: int = 0
    #: Deliveries that were not settled; attempts at them may have been under way.
    unsettled: int = 0


class Retention:
    """Purges, erases and deletes. Each batch is a transaction of its own; what was interrupted can be begun again."""

    def __init__(
        self, database: Database, *, events: int = EVENTS_A_BATCH, deliveries: int = DELIVERIES_A_BATCH
    ) -> None:
        self._database = database
        self._events, self._deliveries = events, deliveries

    async def purge(
        self,
        before: datetime,
        *,
        open_runs: Collection[str] = frozenset(),
        dry_run: bool = False,
        report: Callable[[Purged], None] = lambda _: None,
    ) -> Purged:
        """Delete events accepted before `before` that are settled, with their deliveries and attempts.

        Those of `open_runs` stay, which may not have found all subscribers yet. `report` hears how far it has come.
        """
        total, last = Purged(), None
        while batch := await self._database.read(purging.aged, before=before, after=last, limit=self._events):
            last = batch[-1]
            ripe = [one for one in batch if not one.counts.unsettled and one.workflow_id not in open_runs]
            total = replace(total, stayed=total.stayed + len(batch) - len(ripe))
            for keys, rows in self._portions(ripe):
                if dry_run:
                    made = await self._database.read(purging.count_attempts, keys)
                    total = total.plus(Rows(len(keys), rows, made))
                    continue
                gone, stayed = await self._purge(keys, rows)
                total = replace(total.plus(gone), stayed=total.stayed + stayed)
            report(total)
        return replace(total, attempts=total.attempts + await self._sweep(before, dry_run=dry_run))

    def _portions(self, ripe: list[Aged]) -> list[tuple[list[str], int]]:
        """Keys of events that have at most a transaction's deliveries together, or of one that has more; with their number."""
        portions: list[tuple[list[str], int]] = []
        for one in ripe:
            if not portions or portions[-1][1] + one.counts.matched > self._deliveries:
                portions.append(([], 0))
            keys, rows = portions[-1]
            portions[-1] = ([*keys, one.key], rows + one.counts.matched)
        return portions

    async def _purge(self, keys: list[str], rows: int) -> tuple[Rows, int]:
        """What went, and how many events stayed after all."""
        parts = Rows()
        while rows > self._deliveries:
            part = await self.yield_write(purging.purge_part, keys[0], limit=self._deliveries)
            if not part.deliveries:
                return parts, 1
            parts = _added(parts, part)
            rows -= part.deliveries
        whole = await self.yield_write(purging.purge, keys)
        return _added(parts, whole), len(keys) - whole.events

    async def _sweep(self, before: datetime, *, dry_run: bool) -> int:
        number, last = 0, ("", "", 0)
        while True:
            strays, reached = await self._database.read(
                purging.stray_attempts, before=before, after=last, limit=ROWS_A_SEARCH
            )
            if dry_run:
                number += len(strays)
            elif strays:
                number += await self.yield_write(purging.delete_attempts, strays)
            if reached is None:
                return number
            last = reached

    async def delete(self, subscription_id: str, *, cancel: bool = False) -> Deleted:
        """Delete a subscription with its deliveries and attempts; first `cancel` what is unsettled, or leave it all if some is.

        Raises SubscriptionNotFound.
        """
        if not cancel and (unsettled := await self._unsettled(subscription_id)):
            return Deleted(gone=False, unsettled=len(unsettled))
        await self._database.write(subscriptions.set_state, subscription_id, SubscriptionState.DISABLED, reason=DELETED)
        total, cancelled = Rows(), 0
        while True:
            part = await self.yield_write(purging.drop_deliveries, subscription_id, limit=self._deliveries)
            total = _added(total, part)
            if part.deliveries:
                continue
            if await self._database.write(purging.drop_subscription, subscription_id):
                return Deleted(True, total.deliveries, total.attempts, cancelled)
            # What is left is unsettled: it was all along, or has come since.
            unsettled = await self._unsettled(subscription_id)
            if unsettled and not cancel:
                return Deleted(False, total.deliveries, total.attempts, len(unsettled))
            for start in range(0, len(unsettled), self._deliveries):
                groups = deliveries.grouped(unsettled[start : start + self._deliveries])
                await self.yield_write(deliveries.settle, groups, reason="subscription deleted")
            cancelled += len(unsettled)

    async def _unsettled(self, subscription_id: str) -> list[Delivery]:
        return await self._database.read(deliveries.unsettled_of, subscription_id)

    async def erase(
        self,
        channel: Channel,
        address: str,
        *,
        events: bool = False,
        dry_run: bool = False,
        rest: Callable[[], Awaitable[None]] | None = None,
    ) -> Erased:
        """Take an address out of all subscriptions, and what was recorded of and to it out of their deliveries and attempts.

        With `events`, also the data of events that went to it and to nobody else. If something was unsettled, `rest` is
        awaited, so that attempts under way end, and what they put on record is erased too.
        """
        recipient, total = Recipient(channel, address), Erased()
        found = await self._holders(recipient)
        total.emptied = [holder.id for holder in found if not holder.shared]
        total.shared = [holder.id for holder in found if holder.shared]
        emptied = total.emptied if events else None
        for holder in found:
            if not dry_run and not holder.shared:
                await self._database.write(
                    subscriptions.set_state, holder.id, SubscriptionState.DISABLED, reason=ERASED
                )
            await self._blank(recipient, holder, total, emptied, dry_run=dry_run)
            if not dry_run and holder.shared:
                await self._database.write(erasing.retarget, recipient, holder.id)
        if rest and total.unsettled and not dry_run:
            unsettled = total.unsettled
            await rest()
            for holder in found:
                await self._blank(recipient, holder, total, emptied, dry_run=False)
            total.unsettled = unsettled
        for holder in found:
            # Last, so that an erasure that was interrupted finds it again.
            if not dry_run and not holder.shared:
                await self._database.write(erasing.retarget, recipient, holder.id)
        total.suppressions = await self._database.write(erasing.blank_suppressions, recipient, dry_run=dry_run)
        return total

    async def _holders(self, recipient: Recipient) -> list[AffectedSubscription]:
        found: list[AffectedSubscription] = []
        reached: str | None = ""
        while reached is not None:
            more, reached = await self._database.read(erasing.holders, recipient, after=reached, limit=ROWS_A_SEARCH)
            found += more
        return found

    async def _blank(
        self,
        recipient: Recipient,
        holder: AffectedSubscription,
        total: Erased,
        emptied: list[str] | None,
        *,
        dry_run: bool,
    ) -> None:
        """Go over a subscription's deliveries, and if `emptied` says so over its events."""
        do = self._database.read if dry_run else self.yield_write
        reached: str | None = ""
        while reached is not None:
            done: RedactedBatch = await do(
                erasing.blank, recipient, holder, after=reached, limit=self._deliveries, dry_run=dry_run
            )
            total.deliveries += done.deliveries
            total.attempts += done.attempts
            total.cancelled += done.cancelled
            total.unsettled += done.unsettled
            total.runs |= done.runs
            if emptied is not None and not holder.shared and done.keys:
                total.events += await do(erasing.blank_events, done.keys, emptied, dry_run=dry_run)
            reached = done.reached

    async def yield_write(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write, then leave the database to others for as long as it took: SQLite's waiting writers only look now and then."""
        begun = time.monotonic()
        result = await self._database.write(work, *args, **kwargs)
        await asyncio.sleep(time.monotonic() - begun)
        return result


def _added(some: Rows, more: Rows) -> Rows:
    return Rows(some.events + more.events, some.deliveries + more.deliveries, some.attempts + more.attempts)
