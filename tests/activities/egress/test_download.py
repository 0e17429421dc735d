"""Downloads from untrusted URLs: content, misbehaving servers, size limits, private addresses."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from activities.egress.download import Downloader, DownloadFailed
from activities.egress.policy import Egress, EgressRefused
from bellwire.formats.media_types import UNKNOWN as UNKNOWN_TYPE
from starter.local.receivers.webhooks import Behaviour, WebhookReceiver, WebhookResponse
from tests.activities.listeners import listening

LOOPBACK = ip_network("127.0.0.1/32")


@asynccontextmanager
async def fetching(**options: Any) -> AsyncIterator[Downloader]:
    egress = Egress(**{"allow": [LOOPBACK], "allow_http": True, "ports": None, **options})
    async with egress.session() as session:
        yield Downloader(session, egress)


async def refused(url: str, *, limit: int = 100, timeout: float = 5, **options: Any) -> DownloadFailed:
    async with fetching(**options) as downloader:
        with pytest.raises(DownloadFailed) as caught:
            await downloader.download(url, limit=limit, timeout=timeout)
    assert "127.0.0.1" not in str(caught.value)
    assert str(caught.value) == caught.value.reason
    return caught.value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("image/png", "image/png"),
        ("Text/HTML; charset=utf-8", "text/html"),
        ("application/vnd.a+json;x=y", "application/vnd.a+json"),
        ("", UNKNOWN_TYPE),
        ("nonsense", UNKNOWN_TYPE),
        ("a/b/c", UNKNOWN_TYPE),
        ("text/html, text/plain", UNKNOWN_TYPE),
        ("x" * 100 + "/y", UNKNOWN_TYPE),
    ],
)
async def test_download_returns_the_media_type(given: str, expected: str) -> None:
    async with WebhookReceiver() as hooks, fetching() as downloader:
        hooks.script("/logo", WebhookResponse(status=200, headers={"content-type": given}, body=b"\0\xff" * 50))
        assert await downloader.download(hooks.url("/logo"), limit=100, timeout=5) == (expected, b"\0\xff" * 50)
        [got] = hooks.received
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["user-agent"].startswith("Bellwire/")


async def test_content_over_the_limit_is_refused_with_and_without_content_length() -> None:
    for size in (99, 100, 101):
        for head in (f"Content-Length: {size}\r\n", "Connection: close\r\n"):
            answer = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + b"x" * size
            if "Length" in head:
                answer = answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            async with listening("127.0.0.1", answer=answer) as here:
                url = f"http://127.0.0.1:{here.port}/"
                if size <= 100:
                    async with fetching() as downloader:
                        assert await downloader.download(url, limit=100, timeout=5) == (UNKNOWN_TYPE, b"x" * size)
                else:
                    failure = await refused(url)
                    assert (failure.reason, failure.temporary) == ("larger than 100 bytes", False)


@pytest.mark.parametrize(
    ("status", "passing"), [(204, False), (302, False), (404, False), (410, False), (429, True), (503, True)]
)
async def test_only_status_200_counts(status: int, passing: bool) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, headers={"location": hooks.url("/elsewhere")}))
        failure = await refused(hooks.url())
        assert (failure.reason, failure.temporary, failure.operator_fault) == (f"HTTP {status}", passing, False)
        assert [one.path for one in hooks.received] == ["/"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour.HANG, "timeout"),
        (Behaviour.DRIP, "timeout"),
        (Behaviour.RESET, "connection lost"),
        (Behaviour.GARBAGE, "invalid response"),
        (Behaviour.INCOMPLETE, "incomplete response"),
        (Behaviour.HUGE, "larger than 1000 bytes"),
    ],
)
async def test_misbehaving_server_cannot_exceed_time_or_size(behaviour: Behaviour, reason: str) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=200, body=b"begun", behaviour=behaviour), repeat=True)
        # Of a short timeout, half is for connecting, which takes longer on a busy machine.
        failure = await refused(hooks.url(), limit=1000, timeout=2 if reason == "timeout" else 60)
    assert (failure.reason, failure.temporary) == (reason, behaviour is not Behaviour.HUGE)


async def test_compressed_content_is_refused() -> None:
    async with WebhookReceiver() as hooks:
        packed = gzip.compress(b"\0" * 10_000_000)
        hooks.script("/", WebhookResponse(status=200, headers={"content-encoding": "gzip"}, body=packed))
        assert (await refused(hooks.url(), limit=50_000_000)).reason == "unexpected content-encoding"


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://app.example/", "https://app.example:22/", "file:///etc"])
async def test_url_that_breaks_the_policy_is_not_downloaded(url: str) -> None:
    async with fetching(allow=(), allow_http=False, ports=frozenset({443})) as downloader:
        with pytest.raises(EgressRefused):
            await downloader.download(url, limit=100, timeout=5)


async def test_name_of_a_private_address_is_refused_at_the_socket() -> None:
    async with WebhookReceiver() as hooks, fetching(allow=()) as downloader:
        with pytest.raises(EgressRefused, match="address not allowed"):
            await downloader.download(f"http://localhost:{hooks.port}/", limit=100, timeout=5)
        assert hooks.received == []


async def test_content_of_allowed_private_networks_is_never_returned() -> None:
    """Whether something listens there or not, and whatever it responds."""
    async with WebhookReceiver() as hooks, fetching(details=False) as downloader:
        hooks.script("/secret", WebhookResponse(status=200, body=b"secret"))
        hooks.script("/garbage", WebhookResponse(behaviour=Behaviour.GARBAGE))
        for url in (hooks.url("/secret"), hooks.url("/secret"), hooks.url("/garbage"), "http://127.0.0.1:1/"):
            with pytest.raises(EgressRefused, match="address not allowed"):
                await downloader.download(url, limit=100, timeout=5)
