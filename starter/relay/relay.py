"""Relay: publishes the rows of an outbox, in the order of their ids for each subject, and deletes them once they are published.

A row is deleted after Temporal has stored its event. So a relay that is killed publishes at most the rows of its last read
again, which Bellwire recognises by source and id. Which rows were published is not remembered by a highest id: ids are given
before transactions commit, so a smaller one may appear later.
"""

import asyncio
import math
import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from temporalio.service import RPCError, RPCStatusCode

from bellwire.client import Client
from bellwire.contract import MAX_EVENTS, MAX_PUBLICATION_BYTES
from bellwire.errors import BellwireError, EventConflict, EventInvalid
from bellwire.formats.storable import storable
from bellwire.temporal.publications import encoded_size
from starter.relay.checking import MAX_REASON, CheckedRow, EventChecks
from starter.relay.metrics import RelayMetrics
from starter.relay.store import OutboxStore, WaitingRow

log = structlog.get_logger("bellwire")

#: Publications that are started at the same time, of different subjects. One after another, the rows of one read fill them.
MAX_LANES = 10
#: Seconds until an empty table is read again.
POLL_SECONDS = 0.2
#: Seconds until the first try after a failure, doubled each time, up to the maximum.
RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 15.0
#: Seconds between two signs of life to the database while Temporal is waited for.
ALIVE_SECONDS = 5.0


@dataclass
class _Results:
    """What became of the rows of one read."""

    published: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    #: Why the others wait.
    failure: Exception | None = None


class Relay:
    """Publishes one outbox. Others may run at the same time."""

    def __init__(
        self,
        store: OutboxStore,
        client: Client,
        checks: EventChecks,
        *,
        metrics: RelayMetrics | None = None,
        batch: int = MAX_EVENTS,
        poll: float = POLL_SECONDS,
    ) -> None:
        """`batch`: maximum events of one publication. `poll`: seconds until an empty table is read again."""
        self._store, self._client, self._checks = store, client, checks
        self._metrics = metrics
        self._batch, self._poll = batch, poll
        self._problem = ""
        self._failures = 0

    def check(self) -> None:
        """Raise RuntimeError if it cannot publish now."""
        if self._problem:
            raise RuntimeError(self._problem)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set, and finish what is being published then. Failures are logged, and tried again."""
        while not stop.is_set():
            try:
                found = await self.publish_waiting()
            except Exception as error:
                self._failed(error)
                await _until(stop, self._delay())
                continue
            if self._problem:
                log.info("outbox.publish_restored")
            self._problem, self._failures = "", 0
            if not found:
                await _until(stop, self._poll)

    async def publish_all(self) -> int:
        """Publish until nothing of this relay's share is waiting; the number of rows. Raises what `publish_waiting` raises."""
        total = 0
        while found := await self.publish_waiting():
            total += found
        return total

    async def publish_waiting(self) -> int:
        """Read rows once, and publish them; their number.

        Raises OutboxUnavailable, RegistryUnavailable, TemporalUnavailable and NotSetUp, after what was published is deleted.
        """
        rows = await self._store.waiting(MAX_LANES * self._batch) if await self._store.claim() else ()
        if self._metrics:
            await self._metrics.measure(self._store)
        if not rows:
            return 0
        checked = await self._checks.check(rows)
        results = _Results(published=checked.published, refused=checked.refused)
        await self._publish_lanes(checked.publish, results)
        await self._settle(rows, results)
        if results.failure:
            raise results.failure
        return len(rows)

    async def _publish_lanes(self, events: Sequence[CheckedRow], results: _Results) -> None:
        lanes = [asyncio.create_task(self._publish_lane(lane, results)) for lane in self._lanes(events)]
        try:
            while lanes and (await asyncio.wait(lanes, timeout=ALIVE_SECONDS))[1]:
                await self._store.keep_alive()
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        for lane in lanes:
            lane.result()

    def _lanes(self, events: Sequence[CheckedRow]) -> list[list[CheckedRow]]:
        """The events in as many lanes as they fill publications; those of one subject are in one lane, in order."""
        number = min(MAX_LANES, math.ceil(len(events) / self._batch))
        lanes: list[list[CheckedRow]] = [[] for _ in range(number)]
        for each in events:
            lanes[zlib.crc32(each.row.order.encode()) % number].append(each)
        return [lane for lane in lanes if lane]

    async def _publish_lane(self, lane: Sequence[CheckedRow], results: _Results) -> None:
        """Publish the events of a lane, one publication after another, until one fails."""
        try:
            for part in self._divided(lane):
                await self._publish(part, results)
        except (BellwireError, RPCError) as error:
            results.failure = error

    def _divided(self, lane: Sequence[CheckedRow]) -> Iterator[Sequence[CheckedRow]]:
        """The parts of a lane that are one publication each."""
        start = size = 0
        for position, each in enumerate(lane):
            bytes_of_event = encoded_size(each.event)
            is_full = position - start == self._batch or size + bytes_of_event > MAX_PUBLICATION_BYTES
            if position > start and (is_full or each.deliver_at != lane[start].deliver_at):
                yield lane[start:position]
                start, size = position, 0
            size += bytes_of_event
        yield lane[start:]

    async def _publish(self, part: Sequence[CheckedRow], results: _Results) -> None:
        """Publish events together. If they are refused, halves of them, until those that are at fault are alone."""
        try:
            await self._client.publish_many([each.event for each in part], deliver_at=part[0].deliver_at)
        except (EventConflict, EventInvalid, RPCError) as error:
            if isinstance(error, RPCError) and error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            if len(part) == 1:
                results.refused[part[0].row.id] = storable(str(error), limit=MAX_REASON)
                return
            half = len(part) // 2
            await self._publish(part[:half], results)
            await self._publish(part[half:], results)
        else:
            results.published += [each.row.id for each in part]

    async def _settle(self, rows: Sequence[WaitingRow], results: _Results) -> None:
        if not results.published and not results.refused:
            return
        await self._store.settle(results.published, results.refused)
        by_id = {row.id: row for row in rows}
        for row_id, reason in results.refused.items():
            log.warning("outbox.refused", row=row_id, event_id=by_id[row_id].event_id, reason=reason)
        if self._metrics:
            self._metrics.count(len(results.published), len(results.refused))

    def _failed(self, error: Exception) -> None:
        problem = str(error)[:300] or type(error).__name__
        if problem != self._problem:
            expected = isinstance(error, BellwireError | RPCError)
            log.warning("outbox.publish_failed", error=problem, exc_info=None if expected else error)
        self._problem = problem
        self._failures += 1

    def _delay(self) -> float:
        """Seconds until the next try, up to half of it at random: relays that failed together should not retry together."""
        delay: float = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** min(self._failures - 1, 10))
        return delay * random.uniform(0.5, 1)  # noqa: S311 - not for secrets


async def _until(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
