"""Turns: attempts give way to workflow tasks, one after another, and never for long."""

import asyncio
import time

from activities.sending.turns import MAX_SECONDS, Turns


async def test_attempts_begin_at_once_while_no_workflow_task_runs() -> None:
    turns = Turns(lambda: False)
    waiting = [turns.take() for _ in range(100)]
    for each in waiting:
        try:
            each.send(None)
        except StopIteration:
            continue
        raise AssertionError("it has waited")


async def test_attempts_begin_as_soon_as_the_workflow_task_has_ended() -> None:
    busy = True
    turns = Turns(lambda: busy)
    attempts = [asyncio.create_task(turns.take()) for _ in range(100)]
    await asyncio.sleep(0)
    assert not any(attempt.done() for attempt in attempts)
    busy = False
    started = time.monotonic()
    await asyncio.gather(*attempts)
    assert time.monotonic() - started < 100 * MAX_SECONDS


async def test_a_backlog_of_workflow_tasks_slows_attempts_and_never_stops_them() -> None:
    turns = Turns(lambda: True)
    started = time.monotonic()
    await asyncio.gather(*(turns.take() for _ in range(5)))
    assert time.monotonic() - started >= 5 * MAX_SECONDS * 0.9


async def test_an_attempt_that_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    busy = True
    turns = Turns(lambda: busy)
    first, second = asyncio.create_task(turns.take()), asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    first.cancel()
    busy = False
    await second
