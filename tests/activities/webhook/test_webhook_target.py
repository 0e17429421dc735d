"""A subscription's webhook options, and responses that stop deliveries, over real connections."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from temporalio.testing import ActivityEnvironment

from activities.egress.policy import Egress
from activities.sending.attempt import decide_retry
from activities.sending.channel_sender import ChannelSender
from activities.webhook.channel import WebhookChannel
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import RETRY_AFTER_BOUNDS
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from bellwire.webhooks import generate_secret, public_key, verify
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.activities.webhook.test_webhook import LOOPBACK, channel
from tests.certificates import Authority, parts
from tests.factories import event, send_request, subscription

DELIVERED, REJECTED, DEFERRED = OutcomeKind.DELIVERED, OutcomeKind.REJECTED, OutcomeKind.DEFERRED


def due_at(url: str, *secrets: str, **target: Any) -> SendRequest:
    """A delivery signed with the secrets."""
    made = send_request(subscription({"channel": "webhook", "url": url, **target}))
    return replace(made, secrets=tuple(SecretStr(secret) for secret in secrets or (generate_secret(),)))


async def test_extra_headers_do_not_replace_bellwires() -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        extra = {"Authorization": "Bearer abc=", "x-odd": "a  b", "Accept": "text/plain"}
        await webhook.attempt(due_at(hooks.url(), headers=extra))
        await webhook.attempt(due_at(hooks.url()))
        first, second = hooks.received
    assert {name: first.headers[name.lower()] for name in extra} == extra
    assert first.headers["user-agent"].startswith("Bellwire/")
    assert "authorization" not in second.headers
    assert first.headers.keys() - {"authorization", "x-odd"} == second.headers.keys()


async def test_subscription_may_have_a_shorter_timeout() -> None:
    # With the worker's timeout, the test itself would time out.
    async with WebhookReceiver() as hooks, channel(timeout=600) as webhook:
        hooks.script("/", WebhookResponse(delay=600), 204)
        outcome = await webhook.attempt(due_at(hooks.url(), timeout=1))
        assert outcome == Outcome(kind=DEFERRED, reason="timeout")
        assert (await webhook.attempt(due_at(hooks.url(), timeout=30))).kind is DELIVERED


async def test_every_active_secret_signs() -> None:
    shared, older, pair = generate_secret(), generate_secret(), generate_secret("asymmetric")
    async with WebhookReceiver() as hooks, channel() as webhook:
        for path, secret in {"/new": shared, "/old": older}.items():
            hooks.expect(path, secret)
            await webhook.attempt(due_at(hooks.url(path), pair, shared, older))
        assert all(one.verified for one in hooks.received)
        got = hooks.received[0]
    assert [entry.partition(",")[0] for entry in got.headers["webhook-signature"].split()] == ["v1a", "v1", "v1"]
    for secret in (public_key(pair), shared, older):
        assert verify(secret, got.headers, got.body) == got.event


# Delivery control.


@pytest.mark.parametrize(
    ("status", "requested", "kind", "disable", "reason"),
    [
        (204, "disable", DELIVERED, True, "HTTP 204, webhook-delivery: disable"),
        (400, "disable", REJECTED, True, "HTTP 400, webhook-delivery: disable"),
        (503, "disable", REJECTED, True, "HTTP 503, webhook-delivery: disable"),
        (302, " Disable ", REJECTED, True, "HTTP 302, webhook-delivery: disable"),
        (410, "abort-message", REJECTED, True, "HTTP 410, webhook-delivery: abort-message"),
        (200, "abort-message", DELIVERED, False, "HTTP 200"),
        (200, "abort", DELIVERED, False, "HTTP 200"),
        (404, "abort-message", REJECTED, False, "HTTP 404, webhook-delivery: abort-message"),
        (503, "abort-message", REJECTED, False, "HTTP 503, webhook-delivery: abort-message"),
        (429, "ABORT", REJECTED, False, "HTTP 429, webhook-delivery: abort"),
        (503, "pause", DEFERRED, False, "HTTP 503"),
        (503, "", DEFERRED, False, "HTTP 503"),
        (200, "x" * 1000, DELIVERED, False, "HTTP 200"),
    ],
)
async def test_endpoint_can_abort_a_delivery_or_disable_the_subscription(
    status: int, requested: str, kind: OutcomeKind, disable: bool, reason: str
) -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.script("/", WebhookResponse(status=status, headers={"Webhook-Delivery": requested, "retry-after": "7"}))
        outcome = await webhook.attempt(due_at(hooks.url()))
    deferred = kind is DEFERRED
    assert outcome == Outcome(
        kind=kind,
        disable=disable,
        reason=reason,
        retry_after=7 if deferred else None,
        throttle=status == 429 or (status == 503 and deferred),
    )


async def test_delivered_response_with_disable_disables_the_subscription(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    try:
        await registry.migrate()
        published, egress = event(), Egress(allow=[LOOPBACK], allow_http=True, ports=None)
        async with WebhookReceiver() as hooks, egress.session() as session:
            for name, status, requested in (("enough", 204, "disable"), ("not-this", 503, "abort-message")):
                await registry.subscriptions.create(
                    subscription({"channel": "webhook", "url": hooks.url(f"/{name}")}, id=name)
                )
                hooks.script(f"/{name}", WebhookResponse(status=status, headers={"webhook-delivery": requested}))
            group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("enough", "not-this"))
            await registry.events.accept([published], "run")
            await registry.deliveries.add("run", [group])
            webhook = WebhookChannel(registry, session, egress, timeout=10)
            result = await ActivityEnvironment().run(
                ChannelSender(Channel.WEBHOOK, webhook.attempt, registry, concurrency=5).send,
                Chunk(groups=(group,), schedule=(5.0,)),
            )
        assert result.settled == {published.key: {DeliveryState.DELIVERED: 1, DeliveryState.REJECTED: 1}}
        enough, other = await registry.subscriptions.get("enough"), await registry.subscriptions.get("not-this")
        assert (enough.state, enough.state_reason) == (
            SubscriptionState.DISABLED,
            "HTTP 204, webhook-delivery: disable",
        )
        assert other.state is SubscriptionState.ACTIVE
    finally:
        await registry.close()


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("-5", None),
        ("soon", None),
        ("1e9", None),
        ("nan", None),
        ("5, 10", None),
        ("Mon, 99 Nov 2026 08:02:00 GMT", None),
        # The schedule's delay is longer.
        ("0", None),
        ("0.25", None),
        ("1", None),
        ("76.9", None),
        ("77", None),
        ("Mon, 01 Jan 1990 00:00:00 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", None),
        ("77.5", 77.5),
        ("9999999999", RETRY_AFTER_BOUNDS[1]),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_BOUNDS[1]),
        ("9" * 500, None),
    ],
)
async def test_retry_after_counts_only_if_it_is_longer_than_the_delay_and_up_to_a_day(
    value: str, wait: float | None
) -> None:
    async with WebhookReceiver() as hooks, channel() as webhook:
        hooks.script("/", WebhookResponse(status=503, headers={"retry-after": value}))
        sent = due_at(hooks.url())
        outcome = await webhook.attempt(sent)
    from_retry_after = wait is not None
    assert decide_retry(outcome, sent, [77.0]) == (
        DeliveryState.WAITING,
        wait if from_retry_after else 77.0,
        from_retry_after,
    )


# Mutual TLS.


@asynccontextmanager
async def demanding(authority: Authority, folder: Path) -> AsyncIterator[tuple[str, list[tuple[str, int]]]]:
    """An endpoint that requires client certificates; its URL, and per request the certificate's name and the client's port."""
    own, trusted = folder / "server.pem", folder / "authority.pem"
    own.write_text(authority.certificate("receiver"))
    trusted.write_text(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own)
    seen = []

    async def receive(request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        seen.append((certificate["subject"][0][0][1], request.transport.get_extra_info("peername")[1]))
        return web.Response(status=204)

    app = web.Application()

    async def consent(request: web.Request) -> web.Response:
        await receive(request)
        return web.Response(headers={"WebHook-Allowed-Origin": "*"})

    app.router.add_post("/", receive)
    app.router.add_options("/", consent)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/", seen
    finally:
        await runner.cleanup()


async def test_client_certificate_of_the_subscription_is_presented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    async with demanding(authority, tmp_path) as (url, seen), channel() as webhook:
        # OpenSSL's own variable for trusted certificates; it is read when a context is created.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        acme, other = (
            due_at(url, client_certificate=authority.certificate(name), timeout=10) for name in ("acme", "other")
        )
        for sent in (acme, other, acme):
            assert await webhook.attempt(sent) == Outcome(kind=DELIVERED, reason="HTTP 204")
    assert [name for name, _ in seen] == ["acme", "other", "acme"]
    assert seen[0] == seen[2], "a context, and with it the connection, is kept"
    assert seen[0][1] != seen[1][1], "two certificates never share a connection"


async def test_handshake_presents_the_client_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, registry = Authority(), await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    try:
        await registry.migrate()
        async with demanding(authority, tmp_path) as (url, seen), egress.session() as session:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
            webhook = WebhookChannel(registry, session, egress, timeout=10, origin="notifications.example.com")
            sent = due_at(url, client_certificate=authority.certificate("acme"), handshake=True)
            await registry.subscriptions.create(sent.subscription)
            assert await webhook.attempt(sent) == Outcome(kind=DELIVERED, reason="HTTP 204")
    finally:
        await registry.close()
    assert [name for name, _ in seen] == ["acme", "acme"]


async def test_endpoint_that_rejects_the_client_certificate_is_deferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, untrusted = Authority(), Authority("Untrusted")
    async with demanding(authority, tmp_path) as (url, seen), channel() as webhook:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        outcome = await webhook.attempt(due_at(url, client_certificate=untrusted.certificate("acme")))
    # In TLS 1.3 the client finishes its handshake before the endpoint checks the certificate and closes the connection.
    assert outcome.kind is DEFERRED
    assert outcome.reason.partition(":")[0] in {"connection lost", "TLS failed"}
    assert seen == []


async def test_client_certificate_does_not_disable_server_verification(tmp_path: Path) -> None:
    authority = Authority()
    async with demanding(authority, tmp_path) as (url, seen), channel() as webhook:
        outcome = await webhook.attempt(due_at(url, client_certificate=authority.certificate("acme")))
    assert outcome == Outcome(kind=DEFERRED, reason="TLS failed: certificate authority unknown")
    assert seen == []


async def test_invalid_stored_certificate_fails_only_its_own_delivery() -> None:
    sent = due_at("https://127.0.0.1:1/")
    certificate, _ = parts(Authority().certificate("acme"))
    target = sent.subscription.target.model_copy(update={"client_certificate": SecretStr(certificate)})
    broken = replace(sent, subscription=sent.subscription.model_copy(update={"target": target}))
    async with channel() as webhook:
        assert await webhook.attempt(broken) == Outcome(
            kind=DEFERRED, reason="no valid client certificate", fault=Fault.OPERATOR
        )
