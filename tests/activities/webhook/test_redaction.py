"""What outcomes reveal to tenants: nothing about refused addresses, little about allowed private networks."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import cast

import pytest
from structlog.testing import capture_logs

from activities.channels import open_channels
from activities.egress.failures import REDACTED_REASON
from activities.egress.policy import Egress
from activities.sending.channel_sender import ChannelSender
from activities.webhook.channel import WebhookChannel
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from bellwire.webhooks import generate_secret
from starter.local.processes import free_port
from starter.local.receivers.webhooks import Behaviour, WebhookReceiver, WebhookResponse
from tests.activities.listeners import listening, name_server, serving
from tests.factories import send_request, subscription

LOOPBACK = ip_network("127.0.0.0/8")


@asynccontextmanager
async def channel(egress: Egress, **options: object) -> AsyncIterator[WebhookChannel]:
    async with egress.session(**options) as session:  # type: ignore[arg-type]
        yield WebhookChannel(cast(Registry, None), session, egress, timeout=1, origin="sender.example")


async def attempt(webhook: WebhookChannel | ChannelSender, url: str) -> Outcome:
    return await webhook.attempt(
        send_request(subscription({"channel": "webhook", "url": url}), secret=generate_secret())
    )


async def test_refused_addresses_fail_alike_whatever_listens_there() -> None:
    """An open port, a closed one, and an address that never responds: dialled, the three would have three reasons."""
    egress = Egress(allow_http=True, ports=None)
    async with listening("127.0.0.1") as here, name_server({"far.example": [["10.255.255.1"]]}) as (_, resolver):
        async with channel(egress, resolver=resolver) as webhook:
            by_literal = [
                await attempt(webhook, url)
                for url in (f"http://127.0.0.1:{here.port}/", "http://127.0.0.1:1/", "http://10.255.255.1/")
            ]
            by_name = await attempt(webhook, "http://far.example/")
        async with channel(egress) as webhook:
            by_local_name = [await attempt(webhook, f"http://localhost:{port}/") for port in (here.port, 1)]
        assert here.accepted == 0
    assert by_literal == [Outcome(kind=OutcomeKind.REJECTED, reason="address not allowed")] * 3
    assert [by_name, *by_local_name] == [Outcome(kind=OutcomeKind.DEFERRED, reason="address not allowed")] * 3


def as_tenants_see_it(outcome: Outcome) -> Outcome:
    """The outcome without its cause, which only operators see."""
    return outcome.model_copy(update={"cause": None})


@asynccontextmanager
async def failing_ways() -> AsyncIterator[dict[str, str]]:
    """Private URLs that fail in different ways, by the reason that operators see."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with WebhookReceiver() as hooks, serving(mute) as silent:
        hooks.script("/lost", WebhookResponse(behaviour=Behaviour.RESET))
        hooks.script("/garbage", WebhookResponse(behaviour=Behaviour.GARBAGE))
        yield {
            "timeout": f"http://127.0.0.1:{silent}/",
            "connection lost": hooks.url("/lost"),
            "invalid response": hooks.url("/garbage"),
            "connect failed: connection refused": f"http://127.0.0.1:{free_port()}/",
            "TLS failed: no TLS on this port": f"https://127.0.0.1:{hooks.port}/",
        }


@pytest.mark.parametrize("details", [True, False])
async def test_failures_in_allowed_private_networks_have_one_reason_unless_details_are_on(details: bool) -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=details)
    async with failing_ways() as ways, channel(egress) as webhook:
        with capture_logs() as logs:
            outcomes = {reason: await attempt(webhook, url) for reason, url in ways.items()}
    expected = {reason: outcome.reason for reason, outcome in outcomes.items()}
    assert {outcome.kind for outcome in outcomes.values()} == {OutcomeKind.DEFERRED}
    if details:
        assert expected == {reason: reason for reason in ways}
        assert logs == []
    else:
        assert set(expected.values()) == {REDACTED_REASON}
        assert {reason: outcome.cause for reason, outcome in outcomes.items()} == {reason: reason for reason in ways}
        # The operator's log has the reason.
        assert [(one["event"], one["reason"]) for one in logs] == [
            ("egress.private_request_failed", each) for each in ways
        ]
        assert "127.0.0.1" not in str(logs)


@pytest.mark.parametrize("details", [True, False])
async def test_handshake_does_not_tell_what_listens_in_a_private_network(details: bool) -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=details)
    async with failing_ways() as ways, WebhookReceiver() as hooks, channel(egress) as webhook:
        for path, headers in (
            ("/other", {"WebHook-Allowed-Origin": "x"}),
            ("/no", {}),
            ("/busy", {"retry-after": "9"}),
        ):
            hooks.script_options(path, WebhookResponse(status=429, headers=headers))
            ways[path] = hooks.url(path)
        ways["/rate"] = hooks.url("/rate")
        hooks.script_options(
            "/rate", WebhookResponse(headers={"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "many"})
        )
        with capture_logs() as logs:
            outcomes = []
            for number, url in enumerate(ways.values()):
                asking = subscription({"channel": "webhook", "url": url, "handshake": True}, id=f"s{number}")
                outcomes.append(await webhook.attempt(send_request(asking, secret=generate_secret())))
        assert not any(one.method == "POST" for one in hooks.received)
    if details:
        assert len({outcome.reason for outcome in outcomes}) > 5
    else:
        assert {as_tenants_see_it(each) for each in outcomes} == {
            Outcome(kind=OutcomeKind.DEFERRED, reason=REDACTED_REASON)
        }
        assert all(outcome.cause for outcome in outcomes)
        # The operator's log has the reason.
        reasons = [one["reason"] for one in logs if one["event"] == "egress.private_request_failed"]
        assert len(reasons) == len(ways)
        assert "no consent (OPTIONS: HTTP 429)" in reasons


async def test_private_response_counts_but_its_body_is_hidden_on_new_and_reused_connections() -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=False)
    async with WebhookReceiver() as hooks, channel(egress) as webhook:
        hooks.script(
            "/",
            *[WebhookResponse(status=503, body=b"db-7.internal is down")] * 2,
            WebhookResponse(behaviour=Behaviour.RESET),
        )
        outcomes = [await attempt(webhook, hooks.url()) for _ in range(3)]
        assert len({one.peer for one in hooks.received}) == 1
    shown = Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 503")
    hidden = Outcome(kind=OutcomeKind.DEFERRED, reason=REDACTED_REASON, cause="connection lost")
    assert outcomes == [shown, shown, hidden]


async def test_private_names_are_redacted_and_unknown_names_are_not() -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=False)
    async with (
        WebhookReceiver() as hooks,
        name_server({"inside.example": [["127.0.0.1"]], "both.example": [["127.0.0.2", "127.0.0.1"]]}) as (_, resolver),
        channel(egress, resolver=resolver) as webhook,
    ):
        hooks.script("/", WebhookResponse(status=400, body=b"secret"), WebhookResponse(status=400, body=b"secret"))
        for name in ("inside.example", "both.example"):
            outcome = await attempt(webhook, f"http://{name}:{hooks.port}/")
            assert outcome == Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 400")
        assert (await attempt(webhook, "http://inside.example:1/")).reason == REDACTED_REASON
        assert (await attempt(webhook, "http://nowhere.example/")).reason == "name not resolved"


async def test_concurrent_attempts_are_redacted_independently() -> None:
    """One attempt goes to a private address, one to an unknown name: each has its own reason."""
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None, details=False)
    async with WebhookReceiver() as hooks, channel(egress) as webhook:
        hooks.script("/", *[WebhookResponse(status=200, delay=0.1, body=b"secret")] * 5)
        outcomes = await asyncio.gather(*(attempt(webhook, url) for url in [hooks.url(), "http://nobody.invalid/"] * 5))
    assert {one.response for one in outcomes} == {None}
    assert sorted(one.reason for one in outcomes) == ["HTTP 200"] * 5 + ["name not resolved"] * 5


async def test_only_private_addresses_are_redacted() -> None:
    egress = Egress(allow=[ip_network("10.0.0.0/8")], ports=None, details=False)
    for address, inside in (("8.8.8.8", False), ("10.0.0.1", True), ("2606:4700:4700::1111", False)):
        dialled = egress.dialling()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        egress.socket_factory((family, socket.SOCK_STREAM, 0, "", (address, 443))).close()
        assert dialled.private is inside


@pytest.mark.parametrize(
    ("details", "reason"), [(None, REDACTED_REASON), ("true", "connect failed: connection refused")]
)
async def test_worker_redacts_unless_its_settings_show_details(details: str | None, reason: str) -> None:
    given = {"egress_allow": "127.0.0.0/8", "webhook_ports": "*", "webhook_allow_http": True}
    settings = Settings.read(**given, **({"egress_details": details} if details else {}))
    async with open_channels(settings, cast(Registry, None)) as opened:
        assert (await attempt(opened[Channel.WEBHOOK], f"http://127.0.0.1:{free_port()}/")).reason == reason


@pytest.mark.parametrize("host", ["169.254.169.254", "2130706433", "127.1", "0x7f.1"])
async def test_stored_url_is_checked_at_each_attempt(host: str) -> None:
    """The address is loaded and checked at each attempt."""
    sound = send_request(secret=generate_secret())
    changed = sound.subscription.target.model_copy(update={"url": f"https://{host}/latest/meta-data"})
    changed_due = replace(sound, subscription=sound.subscription.model_copy(update={"target": changed}))
    async with channel(Egress(ports=None)) as webhook:
        outcome = await webhook.attempt(changed_due)
    assert outcome == Outcome(kind=OutcomeKind.REJECTED, reason="address not allowed")
