"""InFlightAttempts: attempts that outlast the workflow task or the activity that started them, because a receiver is slow.

A workflow task must not wait for a receiver, and a delivery must not be sent twice because of that. So a slow attempt is kept
here, and an activity of the channel joins it. In the same process, the activity waits for the same task. In another process,
it finds a lease in the registry, which is renewed while the attempt runs, and waits until the outcome is recorded or, if the
first process died, until the lease expires.
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

#: Seconds between two renewals of a lease, and between two checks of a lease of another process.
RENEW_SECONDS = LEASE.total_seconds() / 3
CHECK_SECONDS = 0.5
#: Seconds that a stopping process waits for the registry to record attempts.
CLOSE_SECONDS = 2.0


class InFlightAttempts:
    """The attempts in flight of one process and channel."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._attempts: dict[AttemptKey, asyncio.Task[Attempt]] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    def among(self, groups: Iterable[Group]) -> dict[AttemptKey, asyncio.Task[Attempt]]:
        """Those attempts at deliveries of the groups that still run, or have ended and are not recorded yet.

        Call it before reading the registry: then no attempt is missing from both.
        """
        keys = (AttemptKey(group.event_key, name, group.attempt) for group in groups for name in group.subscription_ids)
        return {key: self._attempts[key] for key in keys if key in self._attempts}

    def keep(self, request: SendRequest, attempt: asyncio.Task[Attempt], *, leased: bool = False) -> None:
        """Keep the attempt leased while it runs, and record it when it has ended. It is leased first, unless it is `leased`."""
        self._attempts[request.key] = attempt
        keeper = asyncio.create_task(self._keep(request, attempt, RENEW_SECONDS if leased else 0.0))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, request: SendRequest, attempt: asyncio.Task[Attempt], wait: float) -> None:
        """`wait`: seconds until the next lease."""
        try:
            while True:
                await asyncio.wait([attempt], timeout=wait)
                wait = RENEW_SECONDS
                try:
                    if not attempt.done():
                        await self._registry.attempts.lease([request])
                        continue
                    if has_outcome(attempt):
                        await self._registry.attempts.record([attempt.result()])
                except BellwireError as error:
                    log.warning("attempt.record_failed", delivery=request.id, error=type(error).__name__)
                    await asyncio.sleep(CHECK_SECONDS)
                    wait = 0.0
                else:
                    return
        finally:
            attempt.cancel()
            del self._attempts[request.key]

    async def wait_for_other_worker(self, request: SendRequest) -> SendRequest | None:
        """Wait while another process attempts the delivery, and return it as it is then; None if it was deleted."""
        while True:
            found = await self._registry.attempts.load((request.group,))
            if not found or not found[0].delivery.leased(datetime.now(UTC)):
                return found[0] if found else None
            await asyncio.sleep(CHECK_SECONDS)

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for the attempts, then cancel them. Those that have ended are recorded.

        If the registry cannot be reached, gives up CLOSE_SECONDS later.
        """
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=grace)
        for attempt in self._attempts.values():
            attempt.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=CLOSE_SECONDS)
        for keeper in list(self._keepers):
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


def has_outcome(attempt: asyncio.Task[Attempt]) -> bool:
    """Whether it ended with an outcome: neither cancelled nor failed by an error, which the activity that joins it reports."""
    return not attempt.cancelled() and attempt.exception() is None
