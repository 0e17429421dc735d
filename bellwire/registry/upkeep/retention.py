"""Retention: deletes and erases in many short transactions, so that deliveries never wait long."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Delivery
from bellwire.registry import deliveries, subscriptions, test_sends, ticks
from bellwire.registry.api import feeds
from bellwire.registry.db.engine import Database, Work
from bellwire.registry.delivery_keys import grouped
from bellwire.registry.providers import paces
from bellwire.registry.upkeep import erasing, purging
from bellwire.registry.upkeep.erasing import ERASED, AffectedSubscription, Recipient, RedactedBatch
from bellwire.registry.upkeep.purging import OldEvent, Rows
from bellwire.registry.upkeep.results import Deleted, Erased, Purged
from bellwire.sends import AttemptKey
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel

#: Events that are examined together; deliveries in one transaction; rows that one search reads.
EVENTS_PER_BATCH, DELIVERIES_PER_TRANSACTION, ROWS_PER_SEARCH = 200, 1_000, 5_000
#: The state reason of a subscription while it is being deleted.
DELETED = "deleted"

P = ParamSpec("P")
T = TypeVar("T")


class _Portion(NamedTuple):
    """Events that are purged in one transaction, or one event that takes several."""

    keys: list[str]
    #: Their deliveries.
    deliveries: int


class Retention:
    """The resource `registry.retention`. Each batch is a transaction of its own. Interrupted calls can be repeated."""

    def __init__(
        self, database: Database, *, events: int = EVENTS_PER_BATCH, deliveries: int = DELIVERIES_PER_TRANSACTION
    ) -> None:
        self._database = database
        self._events, self._deliveries = events, deliveries

    async def purge(
        self,
        before: datetime,
        *,
        open_workflow_ids: Collection[str] = frozenset(),
        dry_run: bool = False,
        report: Callable[[Purged], None] = lambda _: None,
    ) -> Purged:
        """Delete settled events that were accepted before `before`, with their deliveries and attempts.

        Events of `open_workflow_ids` are kept: these workflows may still be matching subscriptions. `report` is called
        with the progress.
        """
        total, last = Purged(), None
        while batch := await self._database.read(purging.old_events, before=before, after=last, limit=self._events):
            last = batch[-1]
            settled = [
                event for event in batch if not event.counts.unsettled and event.workflow_id not in open_workflow_ids
            ]
            total = replace(total, kept=total.kept + len(batch) - len(settled))
            for portion in self._portions(settled):
                if dry_run:
                    attempts = await self._database.read(purging.count_attempts, portion.keys)
                    total = total.plus(Rows(len(portion.keys), portion.deliveries, attempts))
                    continue
                rows = await self._purge(portion)
                total = replace(total.plus(rows), kept=total.kept + len(portion.keys) - rows.events)
            report(total)
        if not dry_run:
            await self._database.write(test_sends.forget, before=before)
            await self._database.write(ticks.forget, before=before)
            await self._database.write(paces.forget, before=before)
            await self._database.write(feeds.remove_tests, before=before)
        return replace(total, attempts=total.attempts + await self._delete_orphaned(before, dry_run=dry_run))

    def _portions(self, settled: list[OldEvent]) -> list[_Portion]:
        portions: list[_Portion] = []
        for event in settled:
            if not portions or portions[-1].deliveries + event.counts.matched > self._deliveries:
                portions.append(_Portion([], 0))
            keys, number = portions[-1]
            portions[-1] = _Portion([*keys, event.key], number + event.counts.matched)
        return portions

    async def _purge(self, portion: _Portion) -> Rows:
        total, remaining = Rows(), portion.deliveries
        while remaining > self._deliveries:
            rows = await self.yield_write(purging.purge_deliveries, portion.keys[0], limit=self._deliveries)
            if not rows.deliveries:
                return total
            total = total.plus(rows)
            remaining -= rows.deliveries
        return total.plus(await self.yield_write(purging.purge, portion.keys))

    async def _delete_orphaned(self, before: datetime, *, dry_run: bool) -> int:
        number, reached = 0, AttemptKey("", "", 0)
        while True:
            orphaned = await self._database.read(
                purging.orphaned_attempts, before=before, after=reached, limit=ROWS_PER_SEARCH
            )
            if dry_run:
                number += len(orphaned.keys)
            elif orphaned.keys:
                number += await self.yield_write(purging.delete_attempts, orphaned.keys)
            if orphaned.reached is None:
                return number
            reached = orphaned.reached

    async def delete(self, subscription_id: str, *, cancel: bool = False) -> Deleted:
        """Delete a subscription with its deliveries and attempts.

        With unsettled deliveries, it cancels them first if `cancel` is set, and otherwise deletes nothing. Raises
        SubscriptionNotFound.
        """
        if not cancel and (unsettled := await self._unsettled(subscription_id)):
            return Deleted(gone=False, unsettled=len(unsettled))
        await self._database.write(subscriptions.set_state, subscription_id, SubscriptionState.DISABLED, reason=DELETED)
        total, cancelled = Rows(), 0
        while True:
            rows = await self.yield_write(purging.delete_settled, subscription_id, limit=self._deliveries)
            total = total.plus(rows)
            if rows.deliveries:
                continue
            if await self._database.write(purging.delete_subscription, subscription_id):
                return Deleted(True, total.deliveries, total.attempts, cancelled)
            # The remaining deliveries are unsettled: some may have been added meanwhile.
            unsettled = await self._unsettled(subscription_id)
            if unsettled and not cancel:
                return Deleted(False, total.deliveries, total.attempts, len(unsettled))
            for start in range(0, len(unsettled), self._deliveries):
                groups = grouped(unsettled[start : start + self._deliveries])
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
        wait: Callable[[], Awaitable[None]] | None = None,
    ) -> Erased:
        """Remove an address from all subscriptions, and what was recorded about it from their deliveries and attempts.

        With `events`, also the data of events that went to no other subscription. If something was unsettled, `wait` is
        awaited, so that attempts in progress end, and then what they recorded is erased too.
        """
        recipient, total = Recipient(channel, address), Erased()
        affected = await self._affected(recipient)
        total.emptied = [one.id for one in affected if not one.shared]
        total.shared = [one.id for one in affected if one.shared]
        emptied = total.emptied if events else None
        for one in affected:
            if not dry_run and not one.shared:
                await self._database.write(subscriptions.set_state, one.id, SubscriptionState.DISABLED, reason=ERASED)
            await self._redact(recipient, one, total, emptied, dry_run=dry_run)
            if not dry_run and one.shared:
                await self._database.write(erasing.remove_recipient, recipient, one.id)
        if wait and total.unsettled and not dry_run:
            unsettled = total.unsettled
            await wait()
            for one in affected:
                await self._redact(recipient, one, total, emptied, dry_run=False)
            total.unsettled = unsettled
        for one in affected:
            # Last, so that repeating an interrupted erasure finds the subscription again.
            if not dry_run and not one.shared:
                await self._database.write(erasing.remove_recipient, recipient, one.id)
        total.suppressions = await self._database.write(erasing.redact_suppressions, recipient, dry_run=dry_run)
        if not dry_run:
            await self._database.write(erasing.delete_counted, recipient)
            place: tuple[str, str] | None = ("", "")
            while place is not None:
                place = await self.yield_write(erasing.redact_responses, recipient, after=place, limit=self._deliveries)
        return total

    async def _affected(self, recipient: Recipient) -> list[AffectedSubscription]:
        found: list[AffectedSubscription] = []
        reached: str | None = ""
        while reached is not None:
            more, reached = await self._database.read(erasing.affected, recipient, after=reached, limit=ROWS_PER_SEARCH)
            found += more
        return found

    async def _redact(
        self,
        recipient: Recipient,
        subscription: AffectedSubscription,
        total: Erased,
        emptied: list[str] | None,
        *,
        dry_run: bool,
    ) -> None:
        """Redact the deliveries of a subscription, and events that went only to the `emptied` ones."""
        do = self._database.read if dry_run else self.yield_write
        reached: str | None = ""
        while reached is not None:
            batch: RedactedBatch = await do(
                erasing.redact, recipient, subscription, after=reached, limit=self._deliveries, dry_run=dry_run
            )
            total.deliveries += batch.deliveries
            total.attempts += batch.attempts
            total.cancelled += batch.cancelled
            total.unsettled += batch.unsettled
            total.workflow_ids |= batch.workflow_ids
            if emptied is not None and not subscription.shared and batch.keys:
                total.events += await do(erasing.redact_events, batch.keys, emptied, dry_run=dry_run)
            reached = batch.reached

    async def yield_write(
        self, work: Callable[Concatenate[AsyncConnection, P], Work[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write, then pause for as long as that took: other processes' writers on SQLite poll for their turn."""
        started = time.monotonic()
        result = await self._database.write(work, *args, **kwargs)
        await asyncio.sleep(time.monotonic() - started)
        return result
