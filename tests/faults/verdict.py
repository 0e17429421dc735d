"""What must hold once everything has settled, whatever broke meanwhile, and the line that says what it cost."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
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
from tests.faults.load import TAKES, Load

#: Columns of the table of scenarios.
COLUMNS = (
    *("scenario", "seed", "accepted", "delivered", "rejected", "exhausted", "cancelled"),
    *("again: webhook", "at a kill", "again: email", "again: sms", "seconds"),
)

#: Seconds that writing outcomes to the registry takes at most, on a busy machine.
WRITE_SECONDS = 0.1
#: Webhooks that one worker has in flight, or has made and not written down, when it is killed: what is sent again, and no more.
#: ACTIVITIES * CONCURRENCY requests are in flight. Each has taken the place of others, one every TAKES seconds, since outcomes
#: were last written: that was FLUSH_SECONDS and the write before.
AT_A_KILL = ACTIVITIES * CONCURRENCY * (1 + math.ceil((FLUSH_SECONDS + WRITE_SECONDS) / TAKES))
#: A webhook that was taken this long before a kill is written down. Receivers note a request that was in flight a little later.
WRITTEN, NOTED = timedelta(seconds=3), timedelta(seconds=0.5)

#: One line per scenario that has run, in order.
LINES: list[tuple[str, ...]] = []


@dataclass(frozen=True)
class Before:
    """What was on record as settled at the time of a fault, and how often it had reached its receiver."""

    arrivals: Mapping[str, int]

    @classmethod
    async def fault(cls, load: Load) -> "Before":
        """Look now. What is settled has arrived before it was recorded, so the record is read first."""
        settled = [row.id for row in await rows_of(load) if row.state.settled]
        arrivals = load.arrivals()
        return cls({name: arrivals[name] for name in settled})


@dataclass(frozen=True)
class Kill:
    """Workers that died, and when."""

    at: datetime
    workers: int
    #: Webhooks that were sent again for it.
    again: int = 0


class Scenario:
    """The clock of one scenario, and its judgement.

    Webhooks may go out again for workers that `kill` killed, at most AT_A_KILL for each. Only if the scenario is not `bounded`
    may anything else be a reason: a registry that takes no outcomes, or a worker that is taken for dead and goes on.
    """

    def __init__(self, name: str, load: Load, *, bounded: bool = True) -> None:
        self._name, self._load, self._bounded, self._began = name, load, bounded, time.perf_counter()
        self._before: list[Before] = []
        self._kills: list[Kill] = []

    async def before_fault(self) -> Before:
        """Remember what must not be sent again."""
        self._before.append(await Before.fault(self._load))
        return self._before[-1]

    async def kill(self, *workers: Process) -> None:
        """Kill workers, all in one moment."""
        await self.before_fault()
        await asyncio.gather(*map(self._load.system.kill_worker, workers))
        self._kills.append(Kill(datetime.now(UTC), len(workers)))

    async def settles(self, *, timeout: float) -> list[Delivery]:
        """Wait until every run has ended, note the line, and check that everything holds; what is on record."""
        load, seed = self._load, f"seed {self._load.system.seed}"
        summaries = await self._ended(timeout)
        rows = await rows_of(load)
        taken = load.taken()
        self._note(rows, taken)
        unsettled = [(row.id, row.state) for row in rows if not row.state.settled]
        assert not unsettled, f"{seed}: never settled: {unsettled[:10]}"
        assert len(rows) == load.wanted, f"{seed}: {len(rows)} deliveries on record of {load.wanted}"
        lost = [row.id for row in rows if row.state is DeliveryState.DELIVERED and not taken[row.id]]
        assert not lost, f"{seed}: on record as delivered, and never arrived: {lost[:10]}"
        mute = [row.id for row in rows if row.state is not DeliveryState.DELIVERED and not row.reason]
        assert not mute, f"{seed}: settled without a reason: {mute[:10]}"
        twice = {name: times for name, times in load.texted().items() if times > 1}
        assert not twice, f"{seed}: SMS sent more than once: {twice}"
        arrivals = load.arrivals()
        for before in self._before:
            again = {name for name, times in before.arrivals.items() if arrivals[name] != times}
            assert not again, f"{seed}: on record before the fault, and sent again: {sorted(again)[:10]}"
        if self._bounded:
            self._judge_webhooks(seed)
        assert by_event(rows) == _counts(summaries), f"{seed}: registry and Temporal count differently"
        await self._quiet()
        return rows

    def _judge_webhooks(self, seed: str) -> None:
        kills, causeless = self._repeats()
        assert not causeless, f"{seed}: webhooks sent again that nobody was killed for: {causeless[:10]}"
        for kill in kills:
            most = kill.workers * AT_A_KILL
            assert kill.again <= most, (
                f"{seed}: {kill.again} webhooks sent again for one kill, {most} could be in flight"
            )

    def _repeats(self) -> tuple[list[Kill], list[str]]:
        """What each kill is the reason for, and ids of deliveries that were made again without a reason."""
        again, causeless = [0] * len(self._kills), list[str]()
        for name, times in self._load.posted().items():
            for taken in times[:-1]:
                kill = next((n for n, kill in enumerate(self._kills) if taken <= kill.at + NOTED), None)
                if kill is None or taken < self._kills[kill].at - WRITTEN:
                    causeless.append(name)
                else:
                    again[kill] += 1
        return [replace(kill, again=number) for kill, number in zip(self._kills, again, strict=True)], causeless

    async def _ended(self, timeout: float) -> list[Summary]:
        temporal, found = self._load.system.client.temporal, list[Summary]()
        try:
            async with asyncio.timeout(timeout):
                for run in dict.fromkeys(receipt.workflow_id for receipt in self._load.receipts):
                    handle = temporal.get_workflow_handle(run, result_type=Summary)
                    try:
                        found.append(await handle.result())
                    except WorkflowFailureError as error:
                        if not isinstance(error.cause, CancelledError):
                            raise
                        found.append(await handle.query("status", result_type=Summary))
        except TimeoutError:
            rows = await rows_of(self._load)
            self._note(rows, self._load.taken())
            left = [(row.id, str(row.state), row.attempts, row.reason) for row in rows if not row.state.settled]
            raise AssertionError(
                f"seed {self._load.system.seed}: runs open after {timeout:g} s; {len(left)} unsettled: {left[:5]}"
            ) from None
        return found

    async def _quiet(self) -> None:
        """No run is open, has failed, or is stuck. The list of runs follows the runs within moments."""
        temporal = self._load.system.client.temporal
        for query in ("ExecutionStatus NOT IN ('Completed', 'Canceled')", "TemporalReportedProblems IS NOT NULL"):
            try:
                async with asyncio.timeout(15):
                    while (await temporal.count_workflows(query)).count:
                        await asyncio.sleep(0.1)
            except TimeoutError:
                runs = [f"{run.id}: {run.status}" async for run in temporal.list_workflows(query)]
                raise AssertionError(f"seed {self._load.system.seed}: {query}: {runs[:10]}") from None

    def _note(self, rows: list[Delivery], taken: Counter[str]) -> None:
        states = Counter(row.state for row in rows)
        again = Counter(dict.fromkeys(Channel, 0))
        for row in rows:
            again[row.channel] += max(taken[row.id] - 1, 0)
        settled = (DeliveryState.DELIVERED, DeliveryState.REJECTED, DeliveryState.EXHAUSTED, DeliveryState.CANCELLED)
        numbers = [len(rows), *(states[state] for state in settled)]
        worst = max(self._repeats()[0], key=lambda kill: kill.again / kill.workers, default=None)
        at_a_kill = f"{worst.again} of {worst.workers * AT_A_KILL}" if worst and self._bounded else ""
        repeated = [again[Channel.WEBHOOK], at_a_kill, again[Channel.EMAIL], again[Channel.SMS]]
        seconds = f"{time.perf_counter() - self._began:.1f}"
        LINES.append((self._name, str(self._load.system.seed), *map(str, [*numbers, *repeated]), seconds))


async def rows_of(load: Load) -> list[Delivery]:
    """All deliveries on record."""
    rows: list[Delivery] = []
    while page := await load.system.registry.deliveries.list(after=rows[-1].id if rows else "", limit=1_000):
        rows += page
    return rows


def by_event(rows: list[Delivery]) -> dict[str, Counts]:
    """Counts by event key, of deliveries that are all settled."""
    found: dict[str, Counts] = {}
    for row in rows:
        found[row.event_key] = found.get(row.event_key, Counts()).plus({"matched": 1, str(row.state): 1})
    return found


def _counts(summaries: list[Summary]) -> dict[str, Counts]:
    return {key: counts for summary in summaries for key, counts in summary.counts.items()}


def table() -> Table:
    """The scenarios that have run."""
    made = Table(title="Faults: what was accepted, what became of it, and what receivers took more than once")
    for number, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if number == 0 else "right")
    for line in LINES:
        made.add_row(*line)
    return made
