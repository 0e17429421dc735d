"""Attempts of several callers go on record together, and one caller's fault stays its own."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import RegistryUnavailable
from bellwire.registry.attempt_batcher import AttemptBatcher


def attempt(name: str) -> Attempt:
    return Attempt(
        event_key="k",
        subscription_id=name,
        number=1,
        started_at=datetime.now(UTC),
        duration=0.1,
        outcome=Outcome(kind=OutcomeKind.DELIVERED, reason="HTTP 204"),
        state=DeliveryState.DELIVERED,
    )


class AttemptLedger:
    """Takes batches, one at a time, once its gate is open; refuses those with a name in `refused`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.refused: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self._open = 0

    async def write(self, attempts: Sequence[Attempt]) -> None:
        names = [one.subscription_id for one in attempts]
        self.batches.append(names)
        self._open += 1
        assert self._open == 1, "two writes at a time"
        try:
            await self.gate.wait()
            for name in names:
                if name in self.refused:
                    raise self.refused[name]
        finally:
            self._open -= 1


async def begun(recorder: AttemptBatcher, *names: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(recorder.record([attempt(name)])) for name in names]
    await asyncio.sleep(0.01)
    return tasks


async def test_what_comes_while_one_is_written_goes_into_the_next() -> None:
    book = AttemptLedger()
    recorder = AttemptBatcher(book.write)
    tasks = await begun(recorder, "a") + await begun(recorder, "b", "c", "d")
    assert book.batches == [["a"]]
    assert not any(task.done() for task in tasks)
    book.gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert book.batches == [["a"], ["b", "c", "d"]]


async def test_nothing_is_nothing_to_write() -> None:
    book = AttemptLedger()
    await asyncio.wait_for(AttemptBatcher(book.write).record([]), 5)
    assert book.batches == []


async def test_a_registry_that_is_away_fails_all_who_wait_and_the_next_are_tried() -> None:
    book = AttemptLedger()
    recorder = AttemptBatcher(book.write)
    tasks = await begun(recorder, "a", "b")
    book.refused = {"a": RegistryUnavailable("away")}
    book.gate.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(result) for result in results] == [RegistryUnavailable, RegistryUnavailable]
    await asyncio.wait_for(recorder.record([attempt("c")]), 5)


async def test_one_callers_fault_is_no_fault_of_the_others() -> None:
    book = AttemptLedger()
    recorder = AttemptBatcher(book.write)
    first = await begun(recorder, "first")
    tasks = await begun(recorder, "good", "bad", "fine")
    book.refused = {"bad": ValueError("bug")}
    book.gate.set()
    results = await asyncio.wait_for(asyncio.gather(*first, *tasks, return_exceptions=True), 5)
    assert [repr(result) for result in results] == ["None", "None", "ValueError('bug')", "None"]
    assert book.batches[1:] == [["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]


async def test_a_caller_that_is_cancelled_takes_nobody_along_and_close_waits() -> None:
    book = AttemptLedger()
    recorder = AttemptBatcher(book.write)
    (gone,) = await begun(recorder, "a")
    (stays,) = await begun(recorder, "b")
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    book.gate.set()
    await asyncio.wait_for(asyncio.gather(stays, closing), 5)
    assert book.batches == [["a"], ["b"]]
