"""AttemptBatcher: attempts of several callers are written together; one caller's error fails only that caller."""

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


class Registry:
    """Writes one batch at a time, once its gate is open; refuses batches with a name in `refused`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.refused: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self._open = 0

    async def write(self, attempts: Sequence[Attempt]) -> None:
        names = [one.subscription_id for one in attempts]
        self.batches.append(names)
        self._open += 1
        assert self._open == 1, "two concurrent writes"
        try:
            await self.gate.wait()
            for name in names:
                if name in self.refused:
                    raise self.refused[name]
        finally:
            self._open -= 1


async def started(batcher: AttemptBatcher, *names: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(batcher.record([attempt(name)])) for name in names]
    await asyncio.sleep(0.01)
    return tasks


async def test_attempts_that_arrive_during_a_write_go_into_the_next() -> None:
    registry = Registry()
    batcher = AttemptBatcher(registry.write)
    tasks = await started(batcher, "a") + await started(batcher, "b", "c", "d")
    assert registry.batches == [["a"]]
    assert not any(task.done() for task in tasks)
    registry.gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert registry.batches == [["a"], ["b", "c", "d"]]


async def test_no_attempts_are_not_written() -> None:
    registry = Registry()
    await asyncio.wait_for(AttemptBatcher(registry.write).record([]), 60)
    assert registry.batches == []


async def test_an_unavailable_registry_fails_all_waiting_callers() -> None:
    registry = Registry()
    batcher = AttemptBatcher(registry.write)
    tasks = await started(batcher, "a", "b")
    registry.refused = {"a": RegistryUnavailable("unavailable")}
    registry.gate.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert [type(result) for result in results] == [RegistryUnavailable, RegistryUnavailable]
    await asyncio.wait_for(batcher.record([attempt("c")]), 60)


async def test_one_callers_error_does_not_fail_the_others() -> None:
    registry = Registry()
    batcher = AttemptBatcher(registry.write)
    first = await started(batcher, "first")
    tasks = await started(batcher, "good", "bad", "fine")
    registry.refused = {"bad": ValueError("bug")}
    registry.gate.set()
    results = await asyncio.wait_for(asyncio.gather(*first, *tasks, return_exceptions=True), 60)
    assert [repr(result) for result in results] == ["None", "None", "ValueError('bug')", "None"]
    assert registry.batches[1:] == [["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]


async def test_a_cancelled_caller_does_not_affect_others_and_close_waits() -> None:
    registry = Registry()
    batcher = AttemptBatcher(registry.write)
    (cancelled,) = await started(batcher, "a")
    (waiting,) = await started(batcher, "b")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    registry.gate.set()
    await asyncio.wait_for(asyncio.gather(waiting, closing), 60)
    assert registry.batches == [["a"], ["b"]]
