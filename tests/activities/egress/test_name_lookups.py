"""Names that never resolve take threads from their tenant only."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from activities.egress import name_lookups
from activities.egress.name_lookups import MAX_LOOKUPS_PER_TENANT, TenantResolver, requesting_tenant
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import OutcomeKind
from bellwire.webhooks import generate_secret
from starter.local.receivers.webhooks import WebhookReceiver
from tests.activities.egress.test_bypasses import guard
from tests.activities.webhook.test_webhook import NO_REGISTRY
from tests.factories import send_request, subscription


class NameService:
    """The system's resolver, with a name server for *.slow.test that never answers."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.current: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._lock = threading.Lock()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        zone = host.partition(".")[2]
        with self._lock:
            self.current[zone] += 1
            self.most[zone] = max(self.most[zone], self.current[zone])
        try:
            if zone == "slow.test":
                self.released.wait()
                raise socket.gaierror("no answer")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        finally:
            with self._lock:
                self.current[zone] -= 1


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    service = NameService()
    monkeypatch.setattr(socket, "getaddrinfo", service.getaddrinfo)
    monkeypatch.setattr(name_lookups, "LOOKUP_SECONDS", 3.0)
    yield service
    service.released.set()


async def looked_up(resolver: TenantResolver, tenant: str, host: str) -> str:
    requesting_tenant.set(tenant)
    try:
        return (await resolver.resolve(host, 443))[0]["host"]
    except OSError as error:
        return str(error)


async def test_tenant_with_names_that_never_resolve_holds_up_itself_only(names: NameService) -> None:
    resolver = TenantResolver()
    hanging = [asyncio.create_task(looked_up(resolver, "evil", f"n{n}.slow.test")) for n in range(600)]
    await asyncio.sleep(0.1)
    others = [looked_up(resolver, f"tenant-{n}", f"n{n}.good.test") for n in range(50)]
    assert set(await asyncio.gather(*others)) == {"127.0.0.1"}
    assert not any(task.done() for task in hanging)
    assert set(await asyncio.gather(*hanging)) == {"the name server does not answer"}
    # The threads that still wait for the name server count, although nothing waits for them.
    assert await looked_up(resolver, "evil", "n.good.test") == "the name server does not answer"
    assert names.most["slow.test"] == MAX_LOOKUPS_PER_TENANT
    names.released.set()
    while names.current["slow.test"]:
        await asyncio.sleep(0.01)
    assert await looked_up(resolver, "evil", "n.good.test") == "127.0.0.1"
    await resolver.close()


async def test_many_tenants_with_such_names_leave_threads_for_others(names: NameService) -> None:
    resolver = TenantResolver()
    hanging = [
        asyncio.create_task(looked_up(resolver, f"evil-{n % 60}", f"n{n}.slow.test"))
        for n in range(60 * MAX_LOOKUPS_PER_TENANT)
    ]
    while names.current["slow.test"] < 60:
        await asyncio.sleep(0.01)
    others = [looked_up(resolver, f"tenant-{n}", f"n{n}.good.test") for n in range(50)]
    assert set(await asyncio.gather(*others)) == {"127.0.0.1"}
    assert not any(task.done() for task in hanging)
    assert set(await asyncio.gather(*hanging)) == {"the name server does not answer"}
    names.released.set()
    await resolver.close()


async def test_webhooks_of_other_tenants_are_delivered_meanwhile(names: NameService) -> None:
    egress = guard()
    async with WebhookReceiver() as hooks, egress.session() as session:
        webhook = WebhookChannel(NO_REGISTRY, session, egress, timeout=10)

        async def attempt(tenant: str, host: str) -> tuple[OutcomeKind, str]:
            target = {"channel": "webhook", "url": f"http://{host}:{hooks.port}/"}
            outcome = await webhook.attempt(send_request(subscription(target, tenant=tenant), secret=generate_secret()))
            return outcome.kind, outcome.reason

        hanging = [asyncio.create_task(attempt("evil", f"n{n}.slow.test")) for n in range(200)]
        await asyncio.sleep(0.1)
        assert await attempt("good", "hooks.good.test") == (OutcomeKind.DELIVERED, "HTTP 204")
        assert not any(task.done() for task in hanging)
        assert set(await asyncio.gather(*hanging)) == {(OutcomeKind.DEFERRED, "name not resolved")}


async def test_system_resolver_is_used() -> None:
    resolver = TenantResolver()
    found = await resolver.resolve("localhost", 80, socket.AF_INET)
    assert {(one["host"], one["port"], one["family"]) for one in found} == {("127.0.0.1", 80, socket.AF_INET)}
    with pytest.raises(OSError):
        await resolver.resolve("nobody.invalid", 80)
    await resolver.close()
