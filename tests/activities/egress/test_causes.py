"""Why a connection or a handshake failed: real failures, and the text that each becomes."""

import asyncio
import errno
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from activities.egress.causes import cause_of
from activities.egress.failures import REDACTED_REASON
from activities.egress.policy import Egress
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.webhooks import generate_secret
from starter.local.processes import free_port
from starter.local.receivers.mailbox import self_signed
from starter.local.receivers.webhooks import WebhookReceiver
from tests.activities.listeners import forward_proxy, name_server
from tests.certificates import Authority
from tests.factories import send_request, subscription

LOOPBACK = ip_network("127.0.0.0/8")


async def outcome_at(url: str, *, details: bool = True, **options: object) -> Outcome:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=details)
    async with egress.session(**options) as session:  # type: ignore[arg-type]
        channel = WebhookChannel(cast(Registry, None), session, egress, timeout=5)
        to = subscription({"channel": "webhook", "url": url})
        return await channel.attempt(send_request(to, secret=generate_secret()))


@asynccontextmanager
async def tls_server(pem: bytes, folder: Path) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    file = folder / "server.pem"
    file.write_bytes(pem)
    context.load_cert_chain(file)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_certificate_that_is_not_accepted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    (tmp_path / "authority.pem").write_text(authority.pem)

    async def reason(pem: bytes, host: str = "127.0.0.1") -> str:
        async with (
            tls_server(pem, tmp_path) as port,
            name_server({"other.example": [["127.0.0.1"]]}) as (_, resolver),
        ):
            return (await outcome_at(f"https://{host}:{port}/", resolver=resolver)).reason

    assert await reason(self_signed("127.0.0.1")) == "TLS failed: certificate self-signed"
    assert await reason(authority.certificate("x").encode()) == "TLS failed: certificate authority unknown"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    assert await reason(authority.certificate("x", days=-1).encode()) in {
        "TLS failed: certificate expired",
        # The client's contexts are made once for each process.
        "TLS failed: certificate authority unknown",
    }


@pytest.mark.parametrize(
    ("pem", "host", "cause"),
    [
        ("expired", "127.0.0.1", "certificate expired"),
        ("good", "other.example", "certificate for another name"),
        ("good", "127.0.0.2", "certificate for another address"),
    ],
)
async def test_a_certificate_of_a_trusted_authority_is_checked(tmp_path: Path, pem: str, host: str, cause: str) -> None:
    authority = Authority()
    trusting = ssl.create_default_context(cadata=authority.pem)
    given = authority.certificate("x", days=-1 if pem == "expired" else 1).encode()
    async with (
        tls_server(given, tmp_path) as port,
        name_server({"other.example": [["127.0.0.1"]]}) as (_, resolver),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session,
    ):
        server = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.2", port, ssl=ssl_context(tmp_path)
        )
        async with server:
            with pytest.raises(aiohttp.ClientConnectorCertificateError) as failed:
                await session.get(f"https://{host}:{port}/", ssl=trusting)
    assert cause_of(failed.value) == cause


def ssl_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


async def test_a_failed_handshake_says_why() -> None:
    async with WebhookReceiver() as hooks:
        assert (await outcome_at(f"https://127.0.0.1:{hooks.port}/")).reason == "TLS failed: no TLS on this port"


async def test_a_failed_connect_says_why() -> None:
    assert (await outcome_at(f"http://127.0.0.1:{free_port()}/")).reason == "connect failed: connection refused"

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1")
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await outcome_at(f"https://127.0.0.1:{port}/")).reason == "connect failed: connection reset"


async def test_with_several_addresses_the_first_failure_counts() -> None:
    addresses = {"both.example": [["127.0.0.1", "127.0.0.2"]]}
    async with name_server(addresses) as (_, resolver):
        outcome = await outcome_at(f"http://both.example:{free_port()}/", resolver=resolver)
    assert outcome.reason == "connect failed: connection refused"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_only_the_operator_sees_the_cause_in_a_private_network(scheme: str) -> None:
    async with WebhookReceiver() as hooks:
        port = hooks.port if scheme == "https" else free_port()
        outcome = await outcome_at(f"{scheme}://127.0.0.1:{port}/", details=False)
    causes = {"http": "connect failed: connection refused", "https": "TLS failed: no TLS on this port"}
    assert outcome == Outcome(kind=OutcomeKind.DEFERRED, reason=REDACTED_REASON, cause=causes[scheme])


async def test_behind_a_proxy_whose_addresses_are_unknown_only_the_operator_sees_the_cause(tmp_path: Path) -> None:
    async with tls_server(self_signed("127.0.0.1"), tmp_path) as port, forward_proxy() as proxy:
        egress = Egress(ports=None, proxy=f"http://127.0.0.1:{proxy.port}", details=False)
        async with egress.session() as session:
            channel = WebhookChannel(cast(Registry, None), session, egress, timeout=5)
            to = subscription({"channel": "webhook", "url": f"https://app.invalid:{port}/"})
            outcome = await channel.attempt(send_request(to, secret=generate_secret()))
    assert (outcome.reason, outcome.cause) == ("TLS failed", "TLS failed: certificate self-signed")


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EHOSTUNREACH, "host unreachable"),
        (errno.ENETUNREACH, "network unreachable"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.ENOBUFS, "ENOBUFS"),
        (99_999, None),
    ],
)
def test_the_operating_systems_errors_have_fixed_texts(number: int, cause: str | None) -> None:
    assert cause_of(OSError(number, f"{os.strerror(number)} to 10.0.0.7")) == cause


def test_what_the_other_side_says_is_never_part_of_a_cause() -> None:
    assert cause_of(OSError("connect to 10.0.0.7 failed")) is None
    assert cause_of(aiohttp.ClientError("secret")) is None
    chained = RuntimeError("x")
    chained.__context__ = chained
    assert cause_of(chained) is None
