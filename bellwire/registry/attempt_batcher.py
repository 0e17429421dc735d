"""Recording: attempts that end at about the same time go on record together.

Many chunks are under way at a time, and each wants its outcomes on record soon. A transaction costs about the same for one
attempt as for fifty, so whatever comes while one is being written goes into the next.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bellwire.deliveries import Attempt
from bellwire.errors import BellwireError


class AttemptBatcher:
    """Calls `write` with the attempts of several callers at once, and never twice at a time."""

    def __init__(self, write: Callable[[Sequence[Attempt]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[tuple[Sequence[Attempt], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Return once they are on record. Raises what `write` raises. What a cancelled caller brought may be recorded."""
        if not attempts:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((attempts, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                try:
                    await self._write([attempt for attempts, _ in together for attempt in attempts])
                except BellwireError as error:
                    _fail([done for _, done in together], error)
                except Exception:
                    await self._write_one_by_one(together)
                else:
                    _succeed([done for _, done in together])
        finally:
            self._writing = None
            _fail([done for _, done in self._waiting], asyncio.CancelledError())

    async def _write_one_by_one(self, together: Sequence[tuple[Sequence[Attempt], asyncio.Future[None]]]) -> None:
        """One caller's attempts are at fault, which is no fault of the others."""
        for attempts, done in together:
            try:
                await self._write(attempts)
            except Exception as error:
                _fail([done], error)
            else:
                _succeed([done])


def _succeed(waiting: Sequence[asyncio.Future[None]]) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)


def _fail(waiting: Sequence[asyncio.Future[None]], error: BaseException) -> None:
    for done in waiting:
        if not done.done():
            done.set_exception(error)
