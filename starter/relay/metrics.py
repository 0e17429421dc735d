"""Metrics of a relay: what is in the outbox, read at an interval, and what was published and refused.

Every relay of an outbox reports the same gauges, so take the maximum over processes and not the sum.
"""

import time

from temporalio.common import MetricMeter

from starter.relay.store import OutboxStore

#: Seconds between two reads.
READ_SECONDS = 5.0


class RelayMetrics:
    def __init__(self, meter: MetricMeter, *, every: float = READ_SECONDS) -> None:
        self._meter, self._every = meter, every
        self._read_at = float("-inf")

    async def measure(self, store: OutboxStore) -> None:
        """Set the gauges, if they were not set for `every` seconds. Raises OutboxUnavailable."""
        if time.monotonic() - self._read_at < self._every:
            return
        self._read_at = time.monotonic()
        backlog = await store.backlog()
        waiting = self._meter.create_gauge("bellwire_outbox_waiting", "Events of the outbox that are not published yet")
        oldest = self._meter.create_gauge_float(
            "bellwire_outbox_oldest_age_seconds",
            "Age of the oldest event of the outbox that is not published; 0 without one",
        )
        refused = self._meter.create_gauge("bellwire_outbox_refused", "Events of the outbox that were refused")
        waiting.set(backlog.waiting)
        oldest.set(backlog.oldest_age)
        refused.set(backlog.refused)

    def count(self, published: int, refused: int) -> None:
        """Count rows that are settled."""
        counter = self._meter.create_counter(
            "bellwire_outbox_events", "Events of the outbox that were published or refused"
        )
        counter.add(published, {"result": "published"})
        counter.add(refused, {"result": "refused"})
