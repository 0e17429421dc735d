"""Connections per endpoint are limited, and waiting for one holds up nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from activities.egress.policy import Egress
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.webhooks import generate_secret
from tests.activities.egress.test_bypasses import guard
from tests.activities.listeners import serving
from tests.activities.webhook.test_webhook import LOOPBACK, NO_REGISTRY, channel, due_at
from tests.factories import event, send_request, subscription


@dataclass
class Slow:
    """An endpoint that takes `seconds` for each request, except for those to /quick."""

    seconds: float
    #: When the test ends, so do all requests.
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    url: str = ""
    current: int = 0
    most: int = 0
    paths: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.current += 1
        self.most = max(self.most, self.current)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.paths.append(path)
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.wait([self.over], timeout=0 if path == "/quick" else self.seconds)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        finally:
            self.current -= 1


@asynccontextmanager
async def slow_endpoint(seconds: float) -> AsyncIterator[Slow]:
    here = Slow(seconds)
    async with serving(here.serve) as port:
        here.url = f"http://127.0.0.1:{port}"
        try:
            yield here
        finally:
            here.over.set_result(None)


async def test_burst_opens_no_more_connections_than_the_limit_and_is_sent_in_order() -> None:
    async with slow_endpoint(0.02) as endpoint, channel(connections=3) as webhook:
        outcomes = await asyncio.gather(*(webhook.attempt(due_at(f"{endpoint.url}/{n}")) for n in range(40)))
    assert {one.kind for one in outcomes} == {OutcomeKind.DELIVERED}
    assert endpoint.most == 3
    numbers = [int(path[1:]) for path in endpoint.paths]
    assert all(abs(number - place) < 3 for place, number in enumerate(numbers))


async def test_waiting_for_a_connection_does_not_count_against_the_timeout() -> None:
    async with slow_endpoint(0.3) as endpoint, channel(connections=1, timeout=2) as webhook:
        outcomes = await asyncio.gather(*(webhook.attempt(due_at(f"{endpoint.url}/{n}")) for n in range(10)))
    assert {one.reason for one in outcomes} == {"HTTP 204"}
    assert endpoint.most == 1


async def test_slow_endpoint_does_not_hold_up_another_one() -> None:
    async with slow_endpoint(30) as slow, slow_endpoint(0) as quick, channel(connections=2, timeout=25) as webhook:
        waiting = [asyncio.create_task(webhook.attempt(due_at(f"{slow.url}/{n}"))) for n in range(20)]
        while slow.most < 2:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            assert (await webhook.attempt(due_at(f"{quick.url}/"))).reason == "HTTP 204"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert slow.most == 2


async def test_tenants_with_endpoints_at_one_host_take_turns() -> None:
    async with slow_endpoint(0.02) as endpoint, channel(connections=2) as webhook:

        def attempt(tenant: str, number: int) -> asyncio.Task[Outcome]:
            target = {"channel": "webhook", "url": f"{endpoint.url}/{tenant}/{number}"}
            sent = send_request(subscription(target, tenant=tenant), event(), secret=generate_secret())
            return asyncio.create_task(webhook.attempt(sent))

        burst = [attempt("loud", number) for number in range(60)]
        while len(endpoint.paths) < 2:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(attempt("quiet", 0), 30)
        assert len(endpoint.paths) < 20
        await asyncio.gather(*burst)
    assert len(endpoint.paths) == 61
    assert endpoint.most == 2


async def test_slow_endpoint_of_one_tenant_leaves_connections_of_its_host_to_others() -> None:
    async with slow_endpoint(30) as endpoint, channel(connections=10, timeout=25) as webhook:

        def attempt(tenant: str) -> asyncio.Task[Outcome]:
            target = {"channel": "webhook", "url": f"{endpoint.url}/{tenant}"}
            sent = send_request(subscription(target, tenant=tenant), event(), secret=generate_secret())
            return asyncio.create_task(webhook.attempt(sent))

        waiting = [attempt("slow") for _ in range(20)]
        while len(endpoint.paths) < 8:
            await asyncio.sleep(0.01)
        assert (await asyncio.wait_for(attempt("quick"), 20)).reason == "HTTP 204"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_cancelled_attempt_gives_its_connection_back() -> None:
    async with slow_endpoint(30) as slow, channel(connections=1) as webhook:
        first = asyncio.create_task(webhook.attempt(due_at(f"{slow.url}/")))
        while not slow.paths:
            await asyncio.sleep(0.01)
        slow.seconds = 0
        second = asyncio.create_task(webhook.attempt(due_at(f"{slow.url}/")))
        await asyncio.sleep(0.05)
        assert not second.done()
        first.cancel()
        assert (await asyncio.wait_for(second, 10)).reason == "HTTP 204"


async def test_signature_has_the_time_of_the_request_and_not_of_the_wait() -> None:
    secret, now = generate_secret(), 1_800_000_000.0
    heads: list[dict[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            heads.append({line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head})
            await reader.readexactly(int(heads[-1]["content-length"]))
            now += 600
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with serving(serve) as port, egress.session() as session:
        webhook = WebhookChannel(NO_REGISTRY, session, egress, timeout=5, connections=1, clock=lambda: now)
        sent = [due_at(f"http://127.0.0.1:{port}/", event(), secret=secret) for _ in range(2)]
        await asyncio.gather(*map(webhook.attempt, sent))
    assert [int(head["webhook-timestamp"]) for head in heads] == [1_800_000_000, 1_800_000_600]


async def test_slow_endpoints_of_one_tenant_leave_requests_for_others() -> None:
    async with (
        slow_endpoint(30) as slow,
        slow_endpoint(0) as quick,
        guard().session() as session,
    ):
        webhook = WebhookChannel(NO_REGISTRY, session, guard(), timeout=25, max_requests=40)

        def attempt(tenant: str, url: str) -> asyncio.Task[Outcome]:
            target = {"channel": "webhook", "url": url}
            sent = send_request(subscription(target, tenant=tenant), event(), secret=generate_secret())
            return asyncio.create_task(webhook.attempt(sent))

        waiting = [attempt("evil", f"{slow.url}/{number}") for number in range(60)]
        while slow.most < 10:
            await asyncio.sleep(0.01)
        for number in range(5):
            assert (await asyncio.wait_for(attempt(f"good-{number}", f"{quick.url}/"), 20)).reason == "HTTP 204"
        assert slow.most == 10
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
