"""Flights: attempts that go on although what began them has returned, because a receiver is slow to answer.

A workflow task must not wait for a receiver, and nothing may be sent twice because it did not. So the first round hands what
takes longer over to this module and to an activity. Within one process, the activity waits for the very same attempt. In any
other, it finds a lease in the registry, renewed while the attempt goes on, and waits until the outcome is on record or, if
the process has died, until the lease has run out.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from bellwire.contract import Group
from bellwire.deliveries import LEASE, Attempt
from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.sends import AttemptKey, SendRequest

log = structlog.get_logger("bellwire")

#: Seconds between two renewals of a lease, and between two looks at that of another process.
RENEW_SECONDS = LEASE.total_seconds() / 3
LOOK_SECONDS = 0.5
#: Seconds that a process which ends still has to put flights on record.
CLOSE_SECONDS = 2.0


class InFlightAttempts:
    """The flights of one process."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._flying: dict[AttemptKey, asyncio.Task[Attempt]] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    def among(self, groups: Iterable[Group]) -> dict[AttemptKey, asyncio.Task[Attempt]]:
        """Those of the attempts that go on here, or have ended and are not on record yet.

        Asked before the registry is, it misses none that the registry does not have.
        """
        keys = (AttemptKey(group.event_key, name, group.attempt) for group in groups for name in group.subscription_ids)
        return {key: self._flying[key] for key in keys if key in self._flying}

    def keep(self, request: SendRequest, attempt: asyncio.Task[Attempt], *, leased: bool = False) -> None:
        """See to it that the attempt goes on, stays leased, and is put on record when it has ended.

        Unless it is `leased` already, that comes first.
        """
        self._flying[request.key] = attempt
        keeper = asyncio.create_task(self._keep(request, attempt, RENEW_SECONDS if leased else 0.0))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, request: SendRequest, attempt: asyncio.Task[Attempt], rest: float) -> None:
        """`rest` is how many seconds may pass until the next lease."""
        try:
            while True:
                await asyncio.wait([attempt], timeout=rest)
                rest = RENEW_SECONDS
                try:
                    if not attempt.done():
                        await self._registry.attempts.lease([request])
                        continue
                    if has_outcome(attempt):
                        await self._registry.attempts.record([attempt.result()])
                except BellwireError as error:
                    log.warning("flight.unrecorded", delivery=request.id, error=type(error).__name__)
                    await asyncio.sleep(LOOK_SECONDS)
                    rest = 0.0
                else:
                    return
        finally:
            attempt.cancel()
            del self._flying[request.key]

    async def wait_for_other_worker(self, request: SendRequest) -> SendRequest | None:
        """Wait while another process attempts the delivery; how it stands then. None if it is gone."""
        while True:
            found = await self._registry.attempts.load((request.group,))
            if not found or not found[0].delivery.leased(datetime.now(UTC)):
                return found[0] if found else None
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self, grace: float) -> None:
        """Let flights end for `grace` seconds, then break them off. What has ended is on record afterwards.

        If the registry is away, that is given up after CLOSE_SECONDS more.
        """
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=grace)
        for attempt in self._flying.values():
            attempt.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=CLOSE_SECONDS)
        for keeper in list(self._keepers):
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


def has_outcome(attempt: asyncio.Task[Attempt]) -> bool:
    """Not cancelled, nor failed by a fault of ours, which the activity that takes part in it reports."""
    return not attempt.cancelled() and attempt.exception() is None
