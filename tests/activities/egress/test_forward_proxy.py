"""The forward proxy: every request goes through it, and its failures differ from those of endpoints behind it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from structlog.testing import capture_logs

from activities.channels import open_channels
from activities.egress.download import Downloader, DownloadFailed
from activities.egress.forward_proxy import REFUSED, UNREACHABLE, ForwardProxy
from activities.egress.policy import Egress, EgressRefused
from activities.sending.channel_sender import ChannelSender
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from bellwire.webhooks import generate_secret
from starter.local.processes import free_port
from starter.local.receivers.webhooks import WebhookReceiver
from tests.activities.listeners import forward_proxy, listening, serving
from tests.activities.webhook.test_webhook import self_signed
from tests.factories import send_request, subscription

DEFERRED = OutcomeKind.DEFERRED


@asynccontextmanager
async def channel(proxy_port: int, *, host: str = "127.0.0.1", timeout: float = 5) -> AsyncIterator[WebhookChannel]:
    """A channel that may dial only the proxy: no network is allowed."""
    egress = Egress(allow_http=True, ports=None, proxy=f"http://{host}:{proxy_port}")
    async with egress.session() as session:
        yield WebhookChannel(cast(Registry, None), session, egress, timeout=timeout)


async def attempt(webhook: WebhookChannel | ChannelSender, url: str) -> Outcome:
    return await webhook.attempt(
        send_request(subscription({"channel": "webhook", "url": url}), secret=generate_secret())
    )


async def test_plain_http_is_resolved_by_the_proxy() -> None:
    async with WebhookReceiver() as hooks, forward_proxy() as proxy, channel(proxy.port) as webhook:
        outcome = await attempt(webhook, f"http://app.invalid:{hooks.port}/hooks")
        assert outcome == Outcome(kind=OutcomeKind.DELIVERED, reason="HTTP 204")
        assert proxy.requested == [f"POST http://app.invalid:{hooks.port}/hooks HTTP/1.1"]
        assert [one.path for one in hooks.received] == ["/hooks"]


async def test_https_tunnels_to_the_endpoint(tmp_path: Path) -> None:
    """The endpoint's certificate is verified; the proxy sees only a name and a port."""
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    certificate = self_signed(tmp_path)
    context.load_cert_chain(certificate)
    trusting.load_verify_locations(certificate)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Mine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with serving(serve, context=context) as port, forward_proxy() as proxy:
        egress = Egress(ports=None, proxy=f"http://127.0.0.1:{proxy.port}")
        async with (
            egress.session(timeout=5) as session,
            session.post(f"https://127.0.0.1:{port}/", data=b"x", ssl=trusting) as answer,
        ):
            egress.check_forwarded(answer)  # inside the tunnel a 407 is the receiver's
            assert answer.status == 407
        assert proxy.requested == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]
        assert seen[0].startswith(b"POST / HTTP/1.1\r\n")
        async with channel(proxy.port) as webhook:
            outcome = await attempt(webhook, f"https://app.invalid:{port}/")
        assert outcome == Outcome(kind=DEFERRED, reason="TLS failed: certificate self-signed")


@pytest.mark.parametrize(
    "answer", ["407 Request rejected by proxy", "403 Forbidden", "401 No", "500 Oops", "302 Elsewhere"]
)
async def test_refusing_proxy_is_the_operators_fault(answer: str) -> None:
    async with forward_proxy() as proxy, channel(proxy.port) as webhook:
        proxy.refuse = answer
        with capture_logs() as logs:
            outcome = await attempt(webhook, "https://app.invalid/hooks")
    assert outcome == Outcome(kind=DEFERRED, reason=REFUSED, fault=Fault.OPERATOR)
    [line] = [one for one in logs if one["event"] == "egress.proxy_failed"]
    assert (line["log_level"], line["reason"]) == ("error", REFUSED)
    assert "app.invalid" not in str(logs)


async def test_proxy_authentication_for_plain_http_is_the_operators_fault() -> None:
    async with forward_proxy() as proxy, channel(proxy.port) as webhook:
        proxy.refuse = '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="out"'
        with capture_logs() as logs:
            assert await attempt(webhook, "http://app.invalid/hooks") == Outcome(
                kind=DEFERRED, reason=REFUSED, fault=Fault.OPERATOR
            )
    assert [one["log_level"] for one in logs] == ["error"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "proxy.invalid"])
async def test_unreachable_proxy_is_the_operators_fault(scheme: str, host: str) -> None:
    async with channel(free_port(), host=host) as webhook:
        with capture_logs() as logs:
            outcome = await attempt(webhook, f"{scheme}://app.invalid/hooks")
    assert outcome == Outcome(kind=DEFERRED, reason=UNREACHABLE, fault=Fault.OPERATOR)
    assert [one["log_level"] for one in logs] == ["error"]


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
async def test_endpoint_that_the_proxy_cannot_reach_counts_against_the_endpoint(status: str) -> None:
    async with forward_proxy() as proxy, channel(proxy.port) as webhook:
        proxy.refuse = status
        with capture_logs() as logs:
            assert await attempt(webhook, "https://app.invalid/") == Outcome(kind=DEFERRED, reason="connect failed")
    assert logs == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://[::ffff:7f00:1]:{port}/"])
async def test_address_literals_are_checked_before_the_proxy(url: str) -> None:
    async with WebhookReceiver() as hooks, forward_proxy() as proxy, channel(proxy.port) as webhook:
        outcome = await attempt(webhook, url.format(port=hooks.port))
        assert (outcome.kind, outcome.reason) == (OutcomeKind.REJECTED, "address not allowed")
        assert proxy.requested == []


async def test_schemes_and_ports_are_checked_before_the_proxy() -> None:
    egress = Egress(ports=frozenset({443}), proxy="http://127.0.0.1:3128")
    with pytest.raises(EgressRefused, match="address not allowed"):
        egress.checked("https://2130706433/")  # 127.0.0.1 to some resolvers; no subscription can have it
    with pytest.raises(EgressRefused, match="port not allowed"):
        egress.checked("https://app.example:22/")
    with pytest.raises(EgressRefused, match="scheme not allowed"):
        egress.checked("http://app.example/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_only_the_proxy_is_dialled(host: str) -> None:
    """Its address is private, as the operator chose; nothing else is reached, not even on the same machine."""
    async with listening("127.0.0.1") as other, WebhookReceiver() as hooks, forward_proxy() as proxy:
        egress = Egress(allow_http=True, ports=None, proxy=f"http://{host}:{proxy.port}")
        async with egress.session(timeout=5) as session:
            async with session.post(f"http://app.invalid:{hooks.port}/") as answer:
                assert answer.status == 204
            pool = session.connector
            assert pool is not None
            async with aiohttp.ClientSession(connector=pool, connector_owner=False) as around:
                for target in (f"http://127.0.0.1:{other.port}/", f"http://localhost:{other.port}/"):
                    with pytest.raises(aiohttp.ClientConnectorError) as caught:
                        await around.post(target)
                    assert isinstance(caught.value.__cause__, PermissionError)
        assert other.accepted == 0


def test_sockets_are_created_only_for_the_proxys_address_and_port() -> None:
    proxy = ForwardProxy("http://10.0.0.7:4750")
    proxy.socket_factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.7", 4750))).close()
    for target in (("10.0.0.7", 4751), ("10.0.0.8", 4750), ("8.8.8.8", 443)):
        with pytest.raises(PermissionError):
            proxy.socket_factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", target))


async def test_download_reports_a_proxy_failure_as_operator_fault() -> None:
    egress = Egress(ports=None, proxy=f"http://127.0.0.1:{free_port()}")
    async with egress.session() as session:
        with pytest.raises(DownloadFailed) as caught:
            await Downloader(session, egress).download("https://app.invalid/", limit=10, timeout=5)
    assert (caught.value.reason, caught.value.temporary, caught.value.operator_fault) == (UNREACHABLE, True, True)


async def test_worker_reads_the_proxy_from_its_settings() -> None:
    settings = Settings.read(egress_proxy=f"http://127.0.0.1:{free_port()}")
    async with open_channels(settings, cast(Registry, None)) as opened:
        assert (await attempt(opened[Channel.WEBHOOK], "https://app.invalid/")).reason == UNREACHABLE
