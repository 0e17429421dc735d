"""TenantSlots: how tenants share a pool, such as threads, so that none of them takes what the others need."""

import asyncio
from collections import deque


class TenantSlots:
    """A number of slots. One half is kept for tenants that hold none; of the other, a tenant holds at most what it leaves free.

    So a lone tenant gets a quarter of the slots, or `per_tenant` if that is less; the more tenants hold slots, the fewer each
    gets; and one that holds none finds a slot, unless at least half as many tenants as there are slots hold some. A `greedy` pool
    keeps only a fifth, and a lone tenant gets all the rest. A slot that is given back goes to the waiting tenant that holds the
    fewest, and to its oldest request.
    """

    def __init__(self, total: int, *, per_tenant: int | None = None, greedy: bool = False) -> None:
        self._free = total
        self._per_tenant = total if per_tenant is None else per_tenant
        self._kept = total // 5 if greedy else total // 2
        self._greedy = greedy
        #: Tenants that hold slots, and those that wait, in the order in which they began to wait.
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def hold(self, tenant: str) -> "_Hold":
        """Hold a slot within the context."""
        return _Hold(self, tenant)

    async def acquire(self, tenant: str) -> None:
        """Take a slot, as soon as the tenant may have one. `release` gives it back."""
        if self.try_acquire(tenant):
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._forget(tenant, granted)
            else:
                self.release(tenant)
            raise

    def try_acquire(self, tenant: str) -> bool:
        """Take a slot if the tenant may have one now, and none of its requests waits."""
        held = self._held.get(tenant, 0)
        if not self._free or held >= self._per_tenant or tenant in self._waiting:
            return False
        if held and self._free - self._kept <= (0 if self._greedy else held):
            return False
        self._held[tenant] = held + 1
        self._free -= 1
        return True

    def release(self, tenant: str) -> None:
        """Give a slot of the tenant back."""
        held = self._held.pop(tenant) - 1
        if held:
            self._held[tenant] = held
        self._free += 1
        while self._waiting and self._grant(min(self._waiting, key=lambda name: self._held.get(name, 0))):
            pass

    def _grant(self, tenant: str) -> bool:
        """Give a slot to the oldest request of a tenant; False if it may not have one."""
        requests = self._waiting.pop(tenant)
        granted = requests.popleft()
        if not granted.done() and not self.try_acquire(tenant):
            requests.appendleft(granted)
            self._waiting = {tenant: requests, **self._waiting}
            return False
        if requests:
            self._waiting[tenant] = requests
        if not granted.done():
            granted.set_result(None)
        return True

    def _forget(self, tenant: str, request: asyncio.Future[None]) -> None:
        requests = self._waiting.get(tenant)
        if requests and request in requests:
            requests.remove(request)
            if not requests:
                del self._waiting[tenant]


class _Hold:
    """A context that holds a slot. Each webhook enters two, and a generator would take several times as long."""

    __slots__ = ("_slots", "_tenant")

    def __init__(self, slots: TenantSlots, tenant: str) -> None:
        self._slots, self._tenant = slots, tenant

    async def __aenter__(self) -> None:
        if not self._slots.try_acquire(self._tenant):
            await self._slots.acquire(self._tenant)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._tenant)
