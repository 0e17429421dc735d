"""Look-ups of the names of untrusted hosts, with a limit for each tenant.

The system's resolver blocks a thread for each look-up, for 10 s and more if a name server does not answer. Without a limit, one
tenant whose names never resolve would take all threads, and every other tenant and the mail relays would wait.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

from aiohttp.abc import AbstractResolver, ResolveResult

from activities.tenant_slots import TenantSlots

#: Look-ups at a time, and those for one tenant. It gets fewer while many tenants look up names.
MAX_LOOKUPS, MAX_LOOKUPS_PER_TENANT = 128, 8
#: Seconds until a look-up counts as failed, waiting included. Its thread may be blocked for longer.
LOOKUP_SECONDS = 5.0

#: The tenant that the requests of this task are for.
requesting_tenant: ContextVar[str] = ContextVar("requesting_tenant", default="")


class TenantResolver(AbstractResolver):
    """Resolves names by the system's resolver, in threads of its own, for the tenant in `requesting_tenant`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, "untrusted-lookup")
        self._slots = TenantSlots(MAX_LOOKUPS, per_tenant=MAX_LOOKUPS_PER_TENANT)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the host. Raises OSError, or UnicodeError for a name that IDNA cannot encode."""
        tenant = requesting_tenant.get()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                await self._slots.acquire(tenant)
                looking = asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host, port, int(family))
                # The slot is free when the thread is, and not when the caller stops waiting.
                looking.add_done_callback(lambda done: self._release(tenant, done))
                return await asyncio.shield(looking)
        except TimeoutError:
            raise OSError("the name server does not answer") from None

    async def close(self) -> None:
        """Start no more look-ups. Does not wait for those that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _release(self, tenant: str, done: asyncio.Future[list[ResolveResult]]) -> None:
        self._slots.release(tenant)
        if not done.cancelled():
            done.exception()  # retrieved here too, since the caller may have stopped waiting


def _addresses(host: str, port: int, family: int) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]).partition("%")[0],
            port=int(address[1]),
            family=kind,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, proto, _, address in found
        if kind in {socket.AF_INET, socket.AF_INET6}
    ]
