"""What must hold once everything has settled, whatever broke meanwhile, and the line that says what it cost."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from bellwire.contract import Summary
from bellwire.deliveries import Counts, Delivery, DeliveryState
from bellwire.subscriptions import Channel
from tests.faults.load import Load

#: Columns of the table of scenarios.
COLUMNS = (
    *("scenario", "seed", "accepted", "delivered", "rejected", "exhausted", "cancelled"),
    *("again: webhook", "again: email", "again: sms", "seconds"),
)

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


class Scenario:
    """The clock of one scenario, and its judgement."""

    def __init__(self, name: str, load: Load) -> None:
        self._name, self._load, self._began = name, load, time.perf_counter()
        self._before: list[Before] = []

    async def before_fault(self) -> Before:
        """Remember what must not be sent again."""
        self._before.append(await Before.fault(self._load))
        return self._before[-1]

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
        assert by_event(rows) == _counts(summaries), f"{seed}: registry and Temporal count differently"
        await self._quiet()
        return rows

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
        repeated = [again[channel] for channel in (Channel.WEBHOOK, Channel.EMAIL, Channel.SMS)]
        seconds = f"{time.perf_counter() - self._began:.1f}"
        LINES.append((self._name, str(self._load.system.seed), *map(str, [*numbers, *repeated]), seconds))


async def rows_of(load: Load) -> list[Delivery]:
    """All deliveries on record."""
    rows: list[Delivery] = []
    while page := await load.system.registry.deliveries(after=rows[-1].id if rows else "", limit=1_000):
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
