"""FairSlots: shares a fixed number of slots among tenants, so that none of them holds up the others.

One tenant has at most half of the slots at the same time. So have all slow tenants together: those whose work recently took
long. Who waits gets a slot in turn, tenant by tenant. With one slot there is only the turn.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque

#: Seconds for which a tenant is slow after it held a slot for long.
SLOW_SECONDS = 60.0
#: Slow tenants that are remembered.
MAX_SLOW = 10_000


class FairSlots:
    """`slots` slots. Each `acquire` is followed by one `release`, with a `mark_slow` between if the work took long."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._share = max(1, slots // 2)
        self._held: Counter[str] = Counter()
        #: Who waits, by tenant; the next in turn is first.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        #: When each slow tenant stops being slow, the oldest first.
        self._slow_until: OrderedDict[str, float] = OrderedDict()

    async def acquire(self, tenant: str) -> None:
        """Take a slot, once one is free for this tenant."""
        if tenant not in self._waiting and self._may_have(tenant):
            self._take(tenant)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(tenant)  # the slot was given while this was cancelled
            else:
                self._forget(tenant, turn)
            raise

    def release(self, tenant: str) -> None:
        """Return a slot of this tenant. The next in turn gets it."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._free and (following := next(filter(self._may_have, self._waiting), None)) is not None:
            turn = self._waiting[following].popleft()
            if self._waiting[following]:
                self._waiting.move_to_end(following)
            else:
                del self._waiting[following]
            # One that is cancelled, and has not run since, is still in its line.
            if not turn.done():
                self._take(following)
                turn.set_result(None)

    def mark_slow(self, tenant: str) -> None:
        """Let this tenant share half of the slots with the other slow ones for a while."""
        self._slow_until.pop(tenant, None)
        self._slow_until[tenant] = time.monotonic() + SLOW_SECONDS
        while len(self._slow_until) > MAX_SLOW:
            self._slow_until.popitem(last=False)

    def _may_have(self, tenant: str) -> bool:
        if not self._free or self._held[tenant] >= self._share:
            return False
        return (
            not self._is_slow(tenant)
            or sum(self._held[each] for each in self._held if self._is_slow(each)) < self._share
        )

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(tenant, deque())
        if turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[tenant]

    def _is_slow(self, tenant: str) -> bool:
        return time.monotonic() < self._slow_until.get(tenant, 0.0)
