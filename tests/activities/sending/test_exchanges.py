"""Exchanges: what an attempt sent and received is kept as the settings say, over every channel, without secrets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, cast

import pytest
from pydantic import SecretStr

from activities.egress.policy import Egress
from activities.email.channel import EmailChannel
from activities.email.smtp_pool import SmtpPool
from activities.email.transcript import Transcript
from activities.providers.http import provider_session
from activities.rendering.renderer import Renderer
from activities.sending.exchanges import keeping_exchanges
from activities.sending.redaction import PRIVATE_RESPONSE
from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import ProviderConfig
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys, UnsubscribeLinks
from bellwire.exchanges import MAX_BODY, REDACTED, Exchange, KeepExchanges, pack, unpack
from bellwire.registry import Registry
from bellwire.webhooks import generate_secret
from starter.local.processes import free_port
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from starter.local.receivers.webhooks import Behaviour, WebhookReceiver, WebhookResponse
from tests.activities.email.channels import ANN, BOB, request_to
from tests.activities.sms.channels import TO, Claims, first, sms_channel
from tests.activities.sms.test_http_provider import SECRET, SMS, config
from tests.factories import event, send_request, subscription

LOOPBACK = ip_network("127.0.0.0/8")
KEY = "bGluayBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRoZSB0ZXN0cyE="


@asynccontextmanager
async def webhooks(*, details: bool = True) -> AsyncIterator[WebhookChannel]:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=details)
    async with egress.session() as session:
        yield WebhookChannel(cast(Registry, None), session, egress, timeout=2, origin="sender.example")


async def outcome_at(
    channel: WebhookChannel, url: str, *, keep: KeepExchanges = KeepExchanges.FAILED, **target: Any
) -> Outcome:
    to = subscription({"channel": "webhook", "url": url, **target}, id="sub")
    return await keeping_exchanges(channel.attempt, keep)(
        send_request(to, event(id="1", data={"order": "42"}), secret=generate_secret())
    )


def everything(exchanges: tuple[Exchange, ...]) -> str:
    return "\n".join(each.model_dump_json() for each in exchanges)


async def test_request_and_response_of_a_webhook_are_kept() -> None:
    async with WebhookReceiver() as hooks, webhooks() as channel:
        hooks.script("/orders", WebhookResponse(status=503, body=b"database is down", headers={"x-request-id": "r-7"}))
        outcome = await outcome_at(channel, hooks.url("/orders"))
        (received,) = hooks.received
    (exchange,) = outcome.exchanges
    request = exchange.request.split("\n")
    assert request[:2] == ["POST /orders HTTP/1.1", f"host: 127.0.0.1:{hooks.port}"]
    sent = {name.lower(): value for name, value in received.headers.items()}
    for name in ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "content-length"):
        assert f"{name}: {sent[name]}" in request
    assert exchange.request_body == received.body.decode()
    assert exchange.response.startswith("HTTP/1.1 503 Service Unavailable\n")
    assert "x-request-id: r-7" in exchange.response.lower()
    assert exchange.response_body == "database is down"


async def test_secrets_are_kept_nowhere_although_the_endpoint_echoes_them() -> None:
    secrets = {
        "authorization": "Bearer tenants-own-token-1",
        "x-acme": "value-of-a-header-with-any-name",
        "cookie": "sid=of-a-cookie",
    }
    async with WebhookReceiver() as hooks, webhooks() as channel:
        signature = ""

        async def attempt(response: WebhookResponse) -> Outcome:
            nonlocal signature
            hooks.script("/hook", response)
            url = hooks.url("/hook?key=of-the-query&plain")
            outcome = await outcome_at(channel, url, headers=secrets)
            signature = hooks.received[-1].headers["webhook-signature"]
            return outcome

        body = " ".join(secrets.values()).encode() + b' {"access_token": "in the \\"response\\" body"} sid=of-a-cookie'
        headers = {
            "set-cookie": "session=of-the-endpoint",
            "x-auth-token": "of-the-endpoint",
            "location": "https://a.example/next?code=of-the-redirect",
            "www-authenticate": 'Basic realm="orders"',
        }
        outcome = await attempt(WebhookResponse(status=401, body=body, headers=headers))
    text = everything(outcome.exchanges)
    for secret in ("own-token", "any-name", "of-a-cookie", "of-the-", "response\\\\", signature.split(",")[1]):
        assert secret not in text
    (exchange,) = outcome.exchanges
    assert f"webhook-signature: {REDACTED}" in exchange.request
    assert f"x-acme: {REDACTED}" in exchange.request
    assert exchange.request.startswith(f"POST /hook?key={REDACTED}&{REDACTED} HTTP/1.1")
    assert 'Basic realm="orders"' in exchange.response


@pytest.mark.parametrize(
    ("keep", "delivered", "failed"),
    [(KeepExchanges.ALL, 1, 1), (KeepExchanges.FAILED, 0, 1), (KeepExchanges.NONE, 0, 0)],
)
async def test_exchanges_are_kept_as_the_setting_says(keep: KeepExchanges, delivered: int, failed: int) -> None:
    async with WebhookReceiver() as hooks, webhooks() as channel:
        hooks.script("/", 204, 500)
        assert [len((await outcome_at(channel, hooks.url(), keep=keep)).exchanges) for _ in range(2)] == [
            delivered,
            failed,
        ]


async def test_a_test_send_always_keeps_its_exchange() -> None:
    async with WebhookReceiver() as hooks, webhooks() as channel:
        request = send_request(subscription({"channel": "webhook", "url": hooks.url()}), secret=generate_secret())
        attempt = keeping_exchanges(channel.attempt, KeepExchanges.NONE)
        outcome = await attempt(replace(request, recorded=False))
    assert outcome.exchanges[0].response.startswith("HTTP/1.1 204")


async def test_a_handshake_and_the_post_after_it_are_two_exchanges_and_a_lost_response_is_none() -> None:
    async with WebhookReceiver() as hooks, webhooks() as channel:
        hooks.script_options("/", WebhookResponse(headers={"WebHook-Allowed-Origin": "other.example"}))
        refused = await outcome_at(channel, hooks.url(), handshake=True)
        hooks.script("/lost", WebhookResponse(behaviour=Behaviour.RESET))
        lost = await outcome_at(channel, hooks.url("/lost"))
        unreachable = await outcome_at(channel, f"http://127.0.0.1:{free_port()}/")
    assert "OPTIONS / HTTP/1.1" in refused.exchanges[0].request
    assert "webhook-request-origin: sender.example" in refused.exchanges[0].request
    assert "other.example" in refused.exchanges[0].response
    (exchange,) = lost.exchanges
    assert (exchange.request.startswith("POST /lost"), exchange.response) == (True, "")
    assert unreachable.exchanges == ()  # nothing was sent


async def test_exchanges_with_private_networks_tell_nothing_of_what_happened_there() -> None:
    async with WebhookReceiver() as hooks, webhooks(details=False) as channel:
        hooks.script(
            "/", WebhookResponse(status=500, body=b"db-7.internal"), WebhookResponse(behaviour=Behaviour.RESET)
        )
        hooks.script_options("/asked", WebhookResponse(status=429))
        outcomes = [
            await outcome_at(channel, hooks.url()),
            await outcome_at(channel, hooks.url()),
            await outcome_at(channel, f"http://127.0.0.1:{free_port()}/"),
            await outcome_at(channel, hooks.url("/asked"), handshake=True),
        ]
    assert {(each.response, each.response_body) for one in outcomes for each in one.exchanges} == {
        (PRIVATE_RESPONSE, "")
    }
    assert [len(one.exchanges) for one in outcomes] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"x" * 5000, "x" * MAX_BODY),
        (b"\xff\xfe\x00binary", "���binary"),
        (b"a" * (MAX_BODY - 19) + b"tenants-own-token-1", "a" * (MAX_BODY - 19) + REDACTED),
        (b"a" * (MAX_BODY - 9) + b"tenants-own-token-1", "a" * (MAX_BODY - 9)),
        (b" " * (MAX_BODY - 15) + b'"token": "others-token"', " " * (MAX_BODY - 15) + '"token": "[reda'),
    ],
    ids=["long", "not text", "a token at the end", "a token that is cut off", "a field that is cut off"],
)
async def test_a_body_is_cut_without_leaving_half_a_secret(body: bytes, shown: str) -> None:
    async with WebhookReceiver() as hooks, webhooks() as channel:
        hooks.script("/", WebhookResponse(status=500, body=body))
        outcome = await outcome_at(channel, hooks.url(), headers={"authorization": "tenants-own-token-1"})
    assert outcome.exchanges[0].response_body == shown


@asynccontextmanager
async def mails(box: Mailbox) -> AsyncIterator[EmailChannel]:
    pool = SmtpPool(box.host, box.port, timeout=10)
    try:
        yield EmailChannel(
            pool,
            Renderer(),
            sender="Bellwire <bell@example.net>",
            links=UnsubscribeLinks("https://bell.example", KEY),
            return_path=ReturnPath("bounces@example.net", LinkKeys(KEY)),
        )
    finally:
        await pool.close()


async def test_commands_and_replies_of_each_recipient_are_kept_and_the_mail_once_it_was_sent() -> None:
    async with Mailbox() as box, mails(box) as channel:
        box.script(ANN, "550 5.1.1 <ann@example.com> no such user")
        box.script(BOB, "451 4.3.0 queue is full", at="DATA")
        attempt = keeping_exchanges(channel.attempt, KeepExchanges.FAILED)
        outcome = await attempt(request_to(ANN, BOB))
    to_ann, to_bob = outcome.exchanges
    assert to_ann.request == f"MAIL FROM:<bounces+{REDACTED}@example.net>\nRCPT TO:<{ANN}>"
    assert to_ann.response == "250 2.1.0 OK\n550 5.1.1 <ann@example.com> no such user"
    assert to_ann.request_body == ""
    assert to_bob.request.endswith(f"RCPT TO:<{BOB}>\nDATA")
    assert to_bob.response.endswith("451 4.3.0 queue is full")
    assert f"To: {BOB}" in to_bob.request_body
    assert "order.paid" in to_bob.request_body
    assert f"/unsubscribe/{REDACTED}" in to_bob.request_body
    links = UnsubscribeLinks("https://bell.example", KEY)
    assert links.unsubscribe_token("sub", BOB) not in everything(outcome.exchanges)


def test_one_byte_that_is_no_text_in_a_reply_is_kept_as_a_placeholder() -> None:
    transcript = Transcript("bell@example.net", ANN, b"")
    transcript.sends()
    transcript.got(451, "4.3.0 Schl\udcfcssel\nzwei")
    exchange = transcript.exchange
    assert exchange.response == "451 4.3.0 Schl�ssel\n451 zwei"
    assert unpack(pack([exchange])) == (exchange,)


async def test_the_providers_exchange_is_kept_without_its_credentials() -> None:
    async with FakeTwilio() as twilio, provider_session() as session:
        twilio.script(TO, SmsResponse(status=400, code=21211, message="not a number"))
        channel = sms_channel(twilio, session, Claims())
        outcome = await keeping_exchanges(channel.attempt, KeepExchanges.FAILED)(first())
    assert outcome.kind is OutcomeKind.REJECTED
    (exchange,) = outcome.exchanges
    assert exchange.request.startswith("POST /2010-04-01/Accounts/")
    assert f"Authorization: {REDACTED}" in exchange.request
    assert "To=%2B14155550123" in exchange.request_body
    assert exchange.response.startswith("HTTP/1.1 400")
    assert "21211" in exchange.response_body
    assert twilio.auth_token not in everything(outcome.exchanges)


async def test_the_secret_of_a_provider_is_not_kept_when_the_provider_echoes_it() -> None:
    async with WebhookReceiver() as gateway, provider_session() as session:
        gateway.script("/messages", WebhookResponse(status=500, body=b"key s3cr3t-of-acme is wrong"))
        auth = {"kind": "header", "header": "X-Acme", "secret": SECRET}
        described = ProviderConfig.model_validate(config(gateway.url("").rstrip("/"), auth=auth))
        acme = HttpProvider(described, session, secrets={"acme": SecretStr("s3cr3t-of-acme")})

        async def attempt(_: object) -> Outcome:
            return (await acme.send(SMS)).outcome

        outcome = await keeping_exchanges(attempt, KeepExchanges.FAILED)(first())
    assert "s3cr3t" not in everything(outcome.exchanges)
    assert f"key {REDACTED} is wrong" in outcome.exchanges[0].response_body
