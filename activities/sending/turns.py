"""Turns: attempts of send activities give way to the workflow tasks of their process.

A workflow task takes the first attempts of an event along, in some dozen turns of the event loop. Beside the hundreds of attempts
that a fan-out keeps ready, each turn would take a tenth of a second, and the events of all other tenants as many seconds.
"""

import asyncio
import time
from collections.abc import Callable

#: Seconds between two checks, and the most that one attempt gives way: a backlog of workflow tasks must not stop a fan-out.
CHECK_SECONDS, MAX_SECONDS = 0.001, 0.02


class Turns:
    """Attempts begin one after another while `is_busy` says that workflow tasks run, and at once while it does not."""

    def __init__(self, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._is_busy = is_busy
        self._first = asyncio.Lock()

    async def take(self) -> None:
        """Wait until an attempt may begin."""
        if not self._is_busy():
            return
        async with self._first:
            until = time.monotonic() + MAX_SECONDS
            await asyncio.sleep(0)  # what has begun goes on
            while self._is_busy() and time.monotonic() < until:  # noqa: ASYNC110 - Temporal's threads end workflow tasks
                await asyncio.sleep(CHECK_SECONDS)
