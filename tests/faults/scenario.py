"""The checks after a scenario, once everything is settled, and the summary table."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from activities.sending.loop import FLUSH_SECONDS
from bellwire.contract import Summary
from bellwire.deliveries import Counts, Delivery, DeliveryState
from bellwire.targets import Channel
from starter.local.processes import Process
from tests.faults.breakable import ACTIVITIES, CONCURRENCY
from tests.faults.load import RESPONSE_DELAY, Load

#: Columns of the table of scenarios.
COLUMNS = (
    *("scenario", "seed", "accepted", "delivered", "rejected", "exhausted", "cancelled"),
    *("repeated: webhook", "at a kill", "repeated: email", "repeated: sms", "seconds"),
)

#: Seconds that writing outcomes to the registry may take; far more than it does on an idle machine.
WRITE_SECONDS = 1.0
#: Maximum webhooks of one worker that are sent again after it was killed: those in flight, and those whose outcome is not
#: recorded. ACTIVITIES * CONCURRENCY requests are in flight, and each place has had another request every RESPONSE_DELAY seconds
#: since outcomes were last written, which was FLUSH_SECONDS and one write before.
MAX_REPEATED = ACTIVITIES * CONCURRENCY * (1 + math.ceil((FLUSH_SECONDS + WRITE_SECONDS) / RESPONSE_DELAY))
#: A webhook that was accepted so long before a kill is recorded. Receivers note a request in flight a little later.
RECORDED_AFTER, NOTED_AFTER = timedelta(seconds=10), timedelta(seconds=2)

#: One line per scenario that has run, in order.
LINES: list[tuple[str, ...]] = []
#: The name under which they are in the reports of tests.
PROPERTY = "scenario"


@dataclass(frozen=True)
class Before:
    """The deliveries that were recorded as settled at the time of a fault, and how often each had arrived."""

    arrivals: Mapping[str, int]

    @classmethod
    async def fault(cls, load: Load) -> "Before":
        """Read the record first, then the arrivals: a settled delivery arrived before it was recorded."""
        settled = [row.id for row in await rows_of(load) if row.state.settled]
        arrivals = load.arrivals()
        return cls({name: arrivals[name] for name in settled})


@dataclass(frozen=True)
class Kill:
    """Workers that were killed, and when."""

    at: datetime
    workers: int
    #: Webhooks that were sent again because of it.
    repeated: int = 0


class Scenario:
    """One scenario and its checks.

    After a `kill`, webhooks may be sent again, at most MAX_REPEATED for each worker. Only in a scenario that is not `bounded` may
    they be sent again for another reason: a registry that records no outcomes, or a frozen worker that continues.
    """

    def __init__(self, name: str, load: Load, *, bounded: bool = True) -> None:
        self._name, self._load, self._bounded, self._began = name, load, bounded, time.perf_counter()
        self._before: list[Before] = []
        self._kills: list[Kill] = []

    async def before_fault(self) -> Before:
        """Remember the settled deliveries, which must not be sent again."""
        self._before.append(await Before.fault(self._load))
        return self._before[-1]

    async def kill(self, *workers: Process) -> None:
        """Kill workers at the same time."""
        await self.before_fault()
        await asyncio.gather(*map(self._load.system.kill_worker, workers))
        self._kills.append(Kill(datetime.now(UTC), len(workers)))
        await self.before_fault()  # what the workers recorded in their last moments must not be sent again either

    async def settles(self, *, timeout: float) -> list[Delivery]:
        """Wait until every run has ended, add a line to the table, and run the checks; the recorded deliveries."""
        load, seed = self._load, f"seed {self._load.system.seed}"
        summaries = await self._ended(timeout)
        rows = await rows_of(load)
        accepted = load.accepted()
        self._add_line(rows, accepted)
        unsettled = [(row.id, row.state) for row in rows if not row.state.settled]
        assert not unsettled, f"{seed}: never settled: {unsettled[:10]}"
        assert len(rows) == load.expected, f"{seed}: {len(rows)} deliveries recorded of {load.expected}"
        lost = [row.id for row in rows if row.state is DeliveryState.DELIVERED and not accepted[row.id]]
        assert not lost, f"{seed}: recorded as delivered, but never arrived: {lost[:10]}"
        without_reason = [row.id for row in rows if row.state is not DeliveryState.DELIVERED and not row.reason]
        assert not without_reason, f"{seed}: settled without a reason: {without_reason[:10]}"
        twice = {name: times for name, times in load.texted().items() if times > 1}
        assert not twice, f"{seed}: SMS sent more than once: {twice}"
        arrivals = load.arrivals()
        for before in self._before:
            again = {name for name, times in before.arrivals.items() if arrivals[name] != times}
            assert not again, f"{seed}: recorded before the fault, but sent again: {sorted(again)[:10]}"
        if self._bounded:
            self._check_webhooks(seed)
        assert by_event(rows) == _counts(summaries), f"{seed}: registry and Temporal have different counts"
        await self._check_runs()
        return rows

    def _check_webhooks(self, seed: str) -> None:
        kills, unexplained = self._repeats()
        assert not unexplained, f"{seed}: webhooks sent again without a kill: {unexplained[:10]}"
        for kill in kills:
            maximum = kill.workers * MAX_REPEATED
            assert kill.repeated <= maximum, (
                f"{seed}: {kill.repeated} webhooks sent again for one kill, at most {maximum} are expected"
            )

    def _repeats(self) -> tuple[list[Kill], list[str]]:
        """The kills with their repeated webhooks, and ids of deliveries that were repeated without a kill."""
        again, unexplained = [0] * len(self._kills), list[str]()
        for name, times in self._load.posted().items():
            for accepted in times[:-1]:
                kill = next((n for n, kill in enumerate(self._kills) if accepted <= kill.at + NOTED_AFTER), None)
                if kill is None or accepted < self._kills[kill].at - RECORDED_AFTER:
                    unexplained.append(name)
                else:
                    again[kill] += 1
        return [replace(kill, repeated=number) for kill, number in zip(self._kills, again, strict=True)], unexplained

    async def _ended(self, timeout: float) -> list[Summary]:
        temporal, found = self._load.system.client.temporal, list[Summary]()
        try:
            async with asyncio.timeout(timeout):
                for workflow_id in dict.fromkeys(receipt.workflow_id for receipt in self._load.receipts):
                    handle = temporal.get_workflow_handle(workflow_id, result_type=Summary)
                    try:
                        found.append(await handle.result())
                    except WorkflowFailureError as error:
                        if not isinstance(error.cause, CancelledError):
                            raise
                        found.append(await handle.query("status", result_type=Summary))
        except TimeoutError:
            rows = await rows_of(self._load)
            self._add_line(rows, self._load.accepted())
            left = [(row.id, str(row.state), row.attempts, row.reason) for row in rows if not row.state.settled]
            raise AssertionError(
                f"seed {self._load.system.seed}: runs open after {timeout:g} s; {len(left)} unsettled: {left[:5]}"
            ) from None
        return found

    async def _check_runs(self) -> None:
        """No run is open, has failed, or is stuck. The list of runs is updated a little later than the runs."""
        temporal = self._load.system.client.temporal
        for query in ("ExecutionStatus NOT IN ('Completed', 'Canceled')", "TemporalReportedProblems IS NOT NULL"):
            try:
                async with asyncio.timeout(15):
                    while (await temporal.count_workflows(query)).count:
                        await asyncio.sleep(0.1)
            except TimeoutError:
                runs = [f"{run.id}: {run.status}" async for run in temporal.list_workflows(query)]
                raise AssertionError(f"seed {self._load.system.seed}: {query}: {runs[:10]}") from None

    def _add_line(self, rows: list[Delivery], accepted: Counter[str]) -> None:
        states = Counter(row.state for row in rows)
        again = Counter(dict.fromkeys(Channel, 0))
        for row in rows:
            again[row.channel] += max(accepted[row.id] - 1, 0)
        settled = (DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED)
        numbers = [len(rows), *(states[state] for state in settled)]
        worst = max(self._repeats()[0], key=lambda kill: kill.repeated / kill.workers, default=None)
        at_a_kill = f"{worst.repeated} of {worst.workers * MAX_REPEATED}" if worst and self._bounded else ""
        repeated = [again[Channel.WEBHOOK], at_a_kill, again[Channel.EMAIL], again[Channel.SMS]]
        seconds = f"{time.perf_counter() - self._began:.1f}"
        LINES.append((self._name, str(self._load.system.seed), *map(str, [*numbers, *repeated]), seconds))


async def rows_of(load: Load) -> list[Delivery]:
    """All recorded deliveries."""
    rows: list[Delivery] = []
    while page := await load.system.registry.deliveries.list(after=rows[-1].id if rows else "", limit=1_000):
        rows += page
    return rows


def by_event(rows: list[Delivery]) -> dict[str, Counts]:
    """Counts by event key of settled deliveries."""
    found: dict[str, Counts] = {}
    for row in rows:
        found[row.event_key] = found.get(row.event_key, Counts()).plus({"matched": 1, str(row.state): 1})
    return found


def _counts(summaries: list[Summary]) -> dict[str, Counts]:
    return {key: counts for summary in summaries for key, counts in summary.counts.items()}


def table(lines: Iterable[Sequence[str]]) -> Table:
    """The scenarios that have run."""
    made = Table(title="Faults: accepted deliveries, their outcomes, and repeated ones")
    for number, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if number == 0 else "right")
    for line in lines:
        made.add_row(*line)
    return made
