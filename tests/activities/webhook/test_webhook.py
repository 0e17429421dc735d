"""One webhook attempt against real endpoints: what is sent, and the outcome of each response."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from temporalio.testing import ActivityEnvironment

from activities.egress.failures import classify_error
from activities.egress.forward_proxy import REFUSED, UNREACHABLE
from activities.egress.policy import Egress, EgressRefused
from activities.egress.retry_after import retry_after
from activities.sending.channel_sender import ChannelSender
from activities.webhook.body import STRUCTURED
from activities.webhook.channel import WebhookChannel
from activities.webhook.responses import classify_status
from bellwire.contract import Chunk, Group
from bellwire.deliveries import MAX_REASON, MAX_RESPONSE, DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from bellwire.webhooks import generate_secret, verify
from starter.local.receivers.webhooks import Behaviour, WebhookReceiver, WebhookResponse
from tests.factories import event, send_request, subscription

LOOPBACK = ip_network("127.0.0.1/32")
#: `attempt` uses no registry.
NO_REGISTRY = cast(Registry, None)

DELIVERED, REJECTED, DEFERRED = OutcomeKind.DELIVERED, OutcomeKind.REJECTED, OutcomeKind.DEFERRED


def due_at(url: str, published: Event | None = None, *, secret: str | None = None, number: int = 1) -> SendRequest:
    subscribed = subscription({"channel": "webhook", "url": url}, id="sub_1")
    return send_request(subscribed, published, secret=secret or generate_secret(), number=number)


@asynccontextmanager
async def channel(
    *, egress: Egress | None = None, timeout: float = 10, **options: Any
) -> AsyncIterator[WebhookChannel]:
    egress = egress or Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with egress.session() as session:
        yield WebhookChannel(NO_REGISTRY, session, egress, timeout=timeout, **options)


async def attempt(url: str, **options: Any) -> Outcome:
    async with channel(**options) as webhook:
        return await webhook.attempt(due_at(url))


async def test_signed_cloudevent_is_delivered() -> None:
    secret, published = generate_secret(), event(subject="Größe 42", data={"text": "naïve 你好 \u2028"})
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.expect("/hooks", secret)
        sent = due_at(hooks.url("/hooks?tenant=acme"), published, secret=secret)
        assert await webhook.attempt(sent) == Outcome(kind=DELIVERED, reason="HTTP 204")
        [got] = await hooks.arrived(1, "/hooks")
    assert got.verified
    assert got.event == published.structured()
    assert verify(secret, got.headers, got.body) == published.structured()
    assert got.headers["content-type"] == STRUCTURED
    assert got.headers["webhook-id"] == sent.delivery.id
    assert got.headers["user-agent"].startswith("Bellwire/")
    assert got.headers["accept-encoding"] == "identity"
    assert b": " not in got.body
    assert "你好".encode() in got.body


async def test_endpoint_with_another_secret_refuses() -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.expect("/", generate_secret())
        assert (await webhook.attempt(due_at(hooks.url()))).reason == "HTTP 401"
        assert [(one.verified, one.status) for one in hooks.received] == [(False, 401)]


async def test_attempts_share_the_id_but_not_the_timestamp() -> None:
    secret, start = generate_secret(), datetime.now(UTC).timestamp()
    ticks = iter([start, start, start + 60, start + 60])
    async with WebhookReceiver() as hooks, channel(clock=lambda: next(ticks)) as webhook:
        hooks.expect("/", secret)
        hooks.script("/", 503, 204)
        published = event()
        first = await webhook.attempt(due_at(hooks.url(), published, secret=secret))
        second = await webhook.attempt(due_at(hooks.url(), published, secret=secret, number=2))
        assert (first.kind, second.kind) == (DEFERRED, DELIVERED)
        one, two = hooks.received
    assert one.verified
    assert two.verified
    assert one.headers["webhook-id"] == two.headers["webhook-id"]
    assert int(two.headers["webhook-timestamp"]) == int(one.headers["webhook-timestamp"]) + 60
    assert one.headers["webhook-signature"] != two.headers["webhook-signature"]
    assert one.body == two.body


async def test_consecutive_attempts_share_a_connection() -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.script("/", 204, WebhookResponse(status=200, body=b"x" * 100), 503, 410)
        for _ in range(5):
            await webhook.attempt(due_at(hooks.url()))
        assert len(hooks.received) == 5
        assert len({one.peer for one in hooks.received}) == 1


STATUSES = [
    *((status, DELIVERED) for status in (200, 201, 202, 204, 206, 299)),
    *((status, DEFERRED) for status in (300, 301, 302, 303, 304, 307, 308)),
    (410, REJECTED),
    *((status, DEFERRED) for status in (400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 411, 412, 413, 414, 415)),
    *((status, DEFERRED) for status in (418, 421, 422, 425, 426, 428, 429, 431, 451, 499)),
    *((status, DEFERRED) for status in (500, 501, 502, 503, 504, 599)),
    *((status, DEFERRED) for status in (101, 600, 999)),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_each_status_has_an_outcome(status: int, kind: OutcomeKind) -> None:
    assert classify_status(status) is kind


@pytest.mark.parametrize("status", [200, 302, 400, 410, 429, 500, 503])
async def test_outcome_names_the_status(status: int) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, body=b"so be it"))
        outcome = await attempt(hooks.url())
    assert outcome == Outcome(
        kind=classify_status(status),
        reason=f"HTTP {status}",
        disable=status == 410,
        throttle=status == 429,
        response="so be it",
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/old", WebhookResponse(status=status, headers={"location": hooks.url("/new")}))
        outcome = await attempt(hooks.url("/old"))
        assert (outcome.kind, outcome.reason) == (DEFERRED, f"HTTP {status}")
        assert [one.path for one in hooks.received] == ["/old"]


NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("9999999999", 9999999999),
        ("Mon, 23 Nov 2026 08:02:00 GMT", 120),
        ("Monday, 23-Nov-26 08:02:00 GMT", 120),
        ("Mon, 23 Nov 2026 09:02:00 +0100", 120),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0),
        *((garbage, None) for garbage in ("", "-1", "+1", "soon", "1e3", "nan", "inf", "0x10", "\uff11", "9" * 5000)),
        ("Mon, 99 Nov 2026 08:02:00 GMT", None),
        ("Mon, 23 Nov 99999999999999999999 08:02:00 GMT", None),
        ("Mon, 23 Nov 2026 08:02:00 +99999999999999", None),
        ("Mon, 23 Nov 2026 25:02:00 GMT", None),
        ("Mon Nov 23 08:02:00 2026", 120),
        ("120, 240", None),
        ("\udcff", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_else_ignored(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=NOW.timestamp()) == seconds


def test_a_date_without_zone_is_in_utc_wherever_the_worker_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        assert retry_after("Mon Nov 23 08:02:00 2026", now=NOW.timestamp()) == 120
    time.tzset()


@pytest.mark.parametrize(
    ("status", "wait"), [(429, 120.0), (503, 120.0), (500, 120.0), (302, 120.0), (200, None), (404, 120.0), (410, None)]
)
async def test_any_deferred_response_may_carry_retry_after(status: int, wait: float | None) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, headers={"retry-after": "120"}))
        assert (await attempt(hooks.url())).retry_after == wait


async def test_retry_after_date_is_relative_to_the_response() -> None:
    later = format_datetime(NOW + timedelta(minutes=3), usegmt=True)
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=503, headers={"retry-after": later}))
        assert (await attempt(hooks.url(), clock=NOW.timestamp)).retry_after == 180


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour.HANG, "timeout"),
        (Behaviour.RESET, "connection lost"),
        (Behaviour.GARBAGE, "invalid response"),
    ],
)
async def test_misbehaving_endpoint_is_deferred(behaviour: Behaviour, reason: str) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=200, body=b"begun", behaviour=behaviour))
        outcome = await attempt(hooks.url(), timeout=2 if reason == "timeout" else 60)
        assert len(hooks.received) == 1
    assert outcome == Outcome(kind=DEFERRED, reason=reason)


@pytest.mark.parametrize("behaviour", [Behaviour.DRIP, Behaviour.INCOMPLETE])
@pytest.mark.parametrize(("status", "kind"), [(200, DELIVERED), (503, DEFERRED)])
async def test_response_whose_body_does_not_end_counts(behaviour: Behaviour, status: int, kind: OutcomeKind) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, body=b"begun", behaviour=behaviour))
        outcome = await attempt(hooks.url(), timeout=1)
    assert (outcome.kind, outcome.reason) == (kind, f"HTTP {status}")


async def test_slow_response_is_delivered_within_the_timeout_and_deferred_after_it() -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(delay=0.05), WebhookResponse(delay=30))
        assert (await attempt(hooks.url(), timeout=10)).kind is DELIVERED
        assert (await attempt(hooks.url(), timeout=2)).reason == "timeout"


async def test_endless_response_is_read_up_to_the_cap() -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=200, behaviour=Behaviour.HUGE))
        outcome = await attempt(hooks.url())
    assert outcome == Outcome(kind=DELIVERED, reason="HTTP 200", response="." * MAX_RESPONSE)


async def test_connection_is_not_reused_after_a_huge_response() -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.script("/", WebhookResponse(status=500, body=b"x" * 10_000_000), 204)
        outcomes = [(await webhook.attempt(due_at(hooks.url()))).reason for _ in range(2)]
        assert outcomes == ["HTTP 500", "HTTP 204"]
        assert len({one.peer for one in hooks.received}) == 2


async def test_gzip_bomb_is_not_decompressed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=500, headers={"content-encoding": "gzip"}, body=bomb))
        assert await attempt(hooks.url()) == Outcome(kind=DEFERRED, reason="HTTP 500")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", None),
        (b"no such order", "no such order"),
        ("zu spät, 太晚了".encode(), "zu spät, 太晚了"),
        (b"\xff\xfe!", "\ufffd\ufffd!"),
        (b"a\0b", "a\ufffdb"),
        ("😀".encode() * 5000, "😀" * MAX_RESPONSE),
    ],
)
async def test_start_of_the_response_is_stored_as_valid_text(body: bytes, answer: str | None) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=400, body=body))
        assert (await attempt(hooks.url())).response == answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
async def test_invalid_responses_are_deferred(garbage: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        outcome = await attempt(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout=5)
    assert outcome.kind is DEFERRED
    assert outcome.reason in {"invalid response", "incomplete response", "connection lost"}


async def test_closed_port_and_unknown_name_are_deferred() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert await attempt(f"http://127.0.0.1:{port}/") == Outcome(
        kind=DEFERRED, reason="connect failed: connection refused"
    )
    assert await attempt("http://nobody.invalid/") == Outcome(kind=DEFERRED, reason="name not resolved")


@pytest.mark.parametrize(
    ("url", "kind", "reason"),
    [
        ("https://127.0.0.1/", REJECTED, "address not allowed"),
        ("https://[::ffff:7f00:1]/", REJECTED, "address not allowed"),
        ("https://169.254.169.254/latest/meta-data", REJECTED, "address not allowed"),
        ("http://app.example/", REJECTED, "scheme not allowed"),
        ("https://app.example:22/", REJECTED, "port not allowed"),
        ("https://localhost/", DEFERRED, "address not allowed"),
    ],
)
async def test_refused_url_is_never_dialled(url: str, kind: OutcomeKind, reason: str) -> None:
    outcome = await attempt(url, egress=Egress(ports=frozenset({443})))
    assert outcome == Outcome(kind=kind, reason=reason)


async def test_refusals_do_not_distinguish_open_from_closed_ports() -> None:
    async with WebhookReceiver() as hooks:
        egress = Egress(allow_http=True, ports=None)
        open_port, closed_port = hooks.port, 1
        for host in ("127.0.0.1", "localhost"):
            assert await attempt(f"http://{host}:{open_port}/", egress=egress) == await attempt(
                f"http://{host}:{closed_port}/", egress=egress
            )
        assert hooks.received == []


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "a b", "%00", "é" * 80 + ".example"])
async def test_invalid_host_does_not_raise(host: str) -> None:
    target = due_at("https://app.example/")
    odd = target.subscription.target.model_copy(update={"url": f"http://{host}/"})
    async with channel() as webhook:
        outcome = await webhook.attempt(
            replace(target, subscription=target.subscription.model_copy(update={"target": odd}))
        )
    assert outcome.reason in {"invalid URL", "name not resolved"}


@pytest.mark.parametrize("secret", [None, "whsec_short"])
async def test_without_a_valid_secret_nothing_is_sent(secret: str | None) -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        subscribed = subscription({"channel": "webhook", "url": hooks.url()})
        assert await webhook.attempt(send_request(subscribed, secret=secret)) == Outcome(
            kind=DEFERRED, reason="no valid signing secret", fault=Fault.OPERATOR
        )
        assert hooks.received == []


async def test_plain_http_server_behind_https_is_a_tls_failure() -> None:
    async with WebhookReceiver() as hooks:
        outcome = await attempt(f"https://127.0.0.1:{hooks.port}/")
    assert outcome == Outcome(kind=DEFERRED, reason="TLS failed: no TLS on this port")


async def test_untrusted_certificate_is_a_tls_failure(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", ssl=context)
    async with server:
        outcome = await attempt(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert outcome == Outcome(kind=DEFERRED, reason="TLS failed: certificate self-signed")


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    both = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "self-signed.pem"
    path.write_bytes(both)
    return path


async def test_activity_returns_what_did_not_settle(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    try:
        await registry.migrate()
        published, egress = event(), Egress(allow=[LOOPBACK], allow_http=True, ports=None)
        async with WebhookReceiver() as hooks, egress.session() as session:
            for name, status in {"fine": 204, "busy": 503, "gone": 410}.items():
                subscribed = subscription({"channel": "webhook", "url": hooks.url(f"/{name}")}, id=name)
                secret = await registry.subscriptions.create(subscribed)
                assert secret is not None
                hooks.expect(f"/{name}", secret.get_secret_value())
                hooks.script(f"/{name}", status, repeat=True)
            await registry.events.accept([published], "event//shop/1")
            group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("busy", "fine", "gone"))
            await registry.deliveries.add("event//shop/1", [group])
            webhook = WebhookChannel(registry, session, egress, timeout=10)
            for _ in range(2):  # as Temporal does when the first answer is lost
                result = await ActivityEnvironment().run(
                    ChannelSender(Channel.WEBHOOK, webhook.attempt, registry, concurrency=5).send,
                    Chunk(groups=(group,), schedule=(5.0,)),
                )
                assert result.settled == {published.key: {DeliveryState.DELIVERED: 1, DeliveryState.REJECTED: 1}}
                assert [(one.subscription_id, one.delay, one.reason) for one in result.deferred] == [
                    ("busy", 5.0, "HTTP 503")
                ]
            assert sorted(one.path for one in hooks.received) == ["/busy", "/fine", "/gone"]
            assert all(one.verified for one in hooks.received)
        assert (await registry.subscriptions.get("gone")).state is SubscriptionState.DISABLED
    finally:
        await registry.close()


FAILURES: dict[type[BaseException], tuple[OutcomeKind, str]] = {
    aiohttp.ClientError: (DEFERRED, "request failed"),
    aiohttp.ClientResponseError: (DEFERRED, "invalid response"),
    aiohttp.ContentTypeError: (DEFERRED, "invalid response"),
    aiohttp.WSServerHandshakeError: (DEFERRED, "invalid response"),
    aiohttp.ClientHttpProxyError: (DEFERRED, "egress proxy refused"),
    aiohttp.TooManyRedirects: (DEFERRED, "redirect"),
    aiohttp.ClientConnectionError: (DEFERRED, "connection lost"),
    aiohttp.ClientConnectionResetError: (DEFERRED, "connection lost"),
    aiohttp.ClientOSError: (DEFERRED, "connection lost"),
    aiohttp.ClientConnectorError: (DEFERRED, "connect failed"),
    aiohttp.ClientConnectorDNSError: (DEFERRED, "name not resolved"),
    aiohttp.ClientProxyConnectionError: (DEFERRED, "egress proxy unreachable"),
    aiohttp.client_exceptions.UnixClientConnectorError: (DEFERRED, "connect failed"),
    aiohttp.ServerConnectionError: (DEFERRED, "connection lost"),
    aiohttp.ServerDisconnectedError: (DEFERRED, "connection lost"),
    aiohttp.ServerTimeoutError: (DEFERRED, "timeout"),
    aiohttp.ConnectionTimeoutError: (DEFERRED, "connect failed: timeout"),
    aiohttp.SocketTimeoutError: (DEFERRED, "timeout"),
    aiohttp.ServerFingerprintMismatch: (DEFERRED, "TLS failed"),
    aiohttp.ClientPayloadError: (DEFERRED, "incomplete response"),
    aiohttp.client_exceptions.UploadAbortedError: (DEFERRED, "connection lost"),
    aiohttp.InvalidURL: (REJECTED, "invalid URL"),
    aiohttp.InvalidUrlClientError: (REJECTED, "invalid URL"),
    aiohttp.RedirectClientError: (DEFERRED, "redirect"),
    aiohttp.NonHttpUrlClientError: (REJECTED, "invalid URL"),
    aiohttp.InvalidUrlRedirectClientError: (DEFERRED, "redirect"),
    aiohttp.NonHttpUrlRedirectClientError: (DEFERRED, "redirect"),
    aiohttp.ClientSSLError: (DEFERRED, "TLS failed"),
    aiohttp.ClientConnectorSSLError: (DEFERRED, "TLS failed"),
    aiohttp.ClientConnectorCertificateError: (DEFERRED, "TLS failed"),
    TimeoutError: (DEFERRED, "timeout"),
    ConnectionResetError: (DEFERRED, "connection lost"),
    UnicodeError: (REJECTED, "invalid URL"),
}


def classes_below(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(classes_below(below) for below in kind.__subclasses__()))


def test_every_client_exception_has_an_outcome() -> None:
    library = {kind for kind in classes_below(aiohttp.ClientError) if kind.__module__.startswith("aiohttp.")}
    assert library <= FAILURES.keys()
    for kind, (outcome, reason) in FAILURES.items():
        error = kind.__new__(kind)
        vars(error)["status"] = 403
        fault = Fault.OPERATOR if reason in {REFUSED, UNREACHABLE} else Fault.RECEIVER
        assert classify_error(error) == Outcome(kind=outcome, reason=reason, fault=fault), kind
        assert len(reason) <= MAX_REASON


def test_refused_address_differs_from_a_failed_connect() -> None:
    error = aiohttp.ClientConnectorError.__new__(aiohttp.ClientConnectorError)
    error.__cause__ = EgressRefused("address not allowed")
    assert classify_error(error) == Outcome(kind=DEFERRED, reason="address not allowed")
