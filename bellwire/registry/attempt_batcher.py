"""AttemptBatcher: writes the attempts of several callers in one transaction.

A transaction costs about the same for one attempt as for fifty. So the attempts that arrive while one transaction is being
written go into the next.

An attempt that the database refuses never keeps others from being recorded: what is not recorded is sent again. Its batch is
written attempt by attempt, and it alone without the texts of its outcome.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from bellwire.deliveries import Attempt, Outcome
from bellwire.errors import BellwireError, NotStorable

log = structlog.get_logger("bellwire")

#: The reason of an attempt that the database refuses with the texts of its outcome.
UNSTORABLE_REASON = "result could not be stored"


class _Call(NamedTuple):
    attempts: Sequence[Attempt]
    done: asyncio.Future[None]


class AttemptBatcher:
    """Calls `write` with the attempts of all waiting callers. Calls of `write` never overlap."""

    def __init__(self, write: Callable[[Sequence[Attempt]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[_Call] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Return once the attempts are written. Raises what `write` raises. After a cancel they may still be written."""
        if not attempts:
            return
        call = _Call(attempts, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await call.done

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._writing:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._write([attempt for call in batch for attempt in call.attempts])
                except NotStorable:
                    await self._write_each(batch)
                except BellwireError as error:
                    _fail(batch, error)
                except Exception:
                    await self._write_each(batch)
                else:
                    _succeed(batch)
        finally:
            self._writing = None
            _fail(self._waiting, asyncio.CancelledError())

    async def _write_each(self, batch: Sequence[_Call]) -> None:
        """Write each caller's attempts alone, so that one bad attempt fails only its own caller."""
        for call in batch:
            try:
                await self._write_call(call)
            except Exception as error:
                _fail([call], error)
            else:
                _succeed([call])

    async def _write_call(self, call: _Call) -> None:
        """Write the attempts of one caller; if one of them is not storable, each alone, and that one redacted."""
        try:
            await self._write(call.attempts)
        except NotStorable:
            for attempt in call.attempts:
                await self._write_alone(attempt)

    async def _write_alone(self, attempt: Attempt) -> None:
        try:
            await self._write([attempt])
        except NotStorable as error:
            await self._write([redacted(attempt)])
            log.error(  # noqa: TRY400 - the driver's error may repeat the value
                "attempt.redacted",
                event_key=attempt.event_key,
                subscription=attempt.subscription_id,
                attempt=attempt.number,
                error=type(error.__cause__ or error).__name__,
            )


def redacted(attempt: Attempt) -> Attempt:
    """The attempt without anything that its receiver or provider wrote. State, delay and fault are the same."""
    kept = attempt.outcome.model_dump(include={"kind", "retry_after", "disable", "throttle", "fault"})
    outcome = Outcome(
        **kept,
        reason=UNSTORABLE_REASON,
        remaining_recipients=attempt.outcome.remaining_recipients,
        to_feed=attempt.outcome.to_feed,
    )
    return attempt.model_copy(update={"outcome": outcome})


def _succeed(calls: Sequence[_Call]) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_result(None)


def _fail(calls: Sequence[_Call], error: BaseException) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(error)
