"""The validation handshake, with real endpoints and a real registry."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.egress.policy import Egress
from activities.sending.channel_sender import ChannelSender
from activities.sending.throttling import Throttled
from activities.webhook.channel import WebhookChannel
from activities.webhook.handshake import CONSENT_HOLDS, REFUSAL_HOLDS
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import Consent
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from starter.local.receivers.webhooks import (
    Behaviour,
    Received,
    WebhookReceiver,
    WebhookResponse,
)
from tests.factories import event, subscription

ORIGIN = "notifications.example.com"
WELCOME = WebhookResponse(status=200, headers={"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "*"})
DELIVERED, DEFERRED = OutcomeKind.DELIVERED, OutcomeKind.DEFERRED


class Clock:
    """A clock in Unix seconds that the test advances."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def skip(self, time_span: timedelta) -> None:
        self.now += time_span.total_seconds()


class Bench:
    """An endpoint, a registry, and a channel whose origin is ORIGIN."""

    def __init__(self, registry: Registry, hooks: WebhookReceiver, clock: Clock) -> None:
        self.registry, self.hooks, self.clock = registry, hooks, clock
        self.channel: WebhookChannel
        self.events = 0

    async def subscribe(self, name: str = "sub", *, path: str = "/hook", **fields: Any) -> None:
        target = {"channel": "webhook", "url": self.hooks.url(path), "handshake": True}
        await self.registry.subscriptions.create(subscription(target, id=name, types=["*"], **fields))

    async def requests(self, number: int = 1, *, name: str = "sub") -> Sequence[SendRequest]:
        """New deliveries of a subscription, as loaded now."""
        published = [event(id=str(self.events + nth)) for nth in range(number)]
        self.events += number
        await self.registry.events.accept(published, "run")
        groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=(name,)) for one in published]
        await self.registry.deliveries.add("run", groups)
        return await self.registry.attempts.load(groups)

    async def attempt(self) -> Outcome:
        (request,) = await self.requests()
        return await self.channel.attempt(request)

    def got(self, method: str) -> list[Received]:
        return [one for one in self.hooks.received if one.method == method]

    @property
    def counts(self) -> tuple[int, int]:
        """The number of handshakes and of posts."""
        return len(self.got("OPTIONS")), len(self.got("POST"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with WebhookReceiver() as hooks, egress.session() as session:
        made = Bench(registry, hooks, Clock())
        made.channel = WebhookChannel(registry, session, egress, timeout=5, origin=ORIGIN, clock=made.clock)
        yield made
    await registry.close()


async def test_handshake_precedes_the_first_post_only(bench: Bench) -> None:
    await bench.subscribe(path="/hook?tenant=acme")
    bench.hooks.script_options("/hook", WELCOME)
    for _ in range(3):
        assert await bench.attempt() == Outcome(kind=DELIVERED, reason="HTTP 204")
    assert [one.method for one in bench.hooks.received] == ["OPTIONS", "POST", "POST", "POST"]
    requested, *posted = bench.hooks.received
    assert requested.headers["webhook-request-origin"] == ORIGIN
    assert requested.headers["user-agent"].startswith("Bellwire/")
    assert "webhook-request-rate" not in requested.headers
    assert "webhook-signature" not in requested.headers
    assert not requested.body
    assert {one.headers["webhook-request-origin"] for one in posted} == {ORIGIN}


async def test_no_handshake_unless_the_target_asks_for_it(bench: Bench) -> None:
    subscribed = subscription({"channel": "webhook", "url": bench.hooks.url("/hook")}, id="sub", types=["*"])
    await bench.registry.subscriptions.create(subscribed)
    assert (await bench.attempt()).kind is DELIVERED
    assert bench.counts == (0, 1)
    assert "webhook-request-origin" not in bench.hooks.received[0].headers


@pytest.mark.parametrize(
    ("status", "headers", "consents"),
    [
        (204, {"WebHook-Allowed-Origin": ORIGIN}, True),
        (204, {"WebHook-Allowed-Origin": f" {ORIGIN.upper()} "}, True),
        (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "120"}, True),
        # The status is neither consent nor refusal.
        (405, {"WebHook-Allowed-Origin": "*"}, True),
        (500, {"WebHook-Allowed-Origin": ORIGIN}, True),
        (200, {}, False),
        (204, {"Allow": "POST"}, False),
        (200, {"WebHook-Allowed-Origin": "example.com"}, False),
        (200, {"WebHook-Allowed-Origin": f"other.{ORIGIN}"}, False),
        (200, {"WebHook-Allowed-Origin": ""}, False),
        (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "0"}, False),
        (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "-5"}, False),
        (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "many"}, False),
        (301, {"Location": "/welcome"}, False),
    ],
)
async def test_only_the_headers_give_consent(
    bench: Bench, status: int, headers: dict[str, str], consents: bool
) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WebhookResponse(status=status, headers=headers))
    bench.hooks.script_options("/welcome", WELCOME)
    outcome = await bench.attempt()
    assert outcome.kind is (DELIVERED if consents else DEFERRED)
    assert bench.counts == (1, 1 if consents else 0)
    assert {one.path for one in bench.hooks.received} == {"/hook"}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (WebhookResponse(status=405), Outcome(kind=DEFERRED, reason="no consent (OPTIONS: HTTP 405)")),
        (WebhookResponse(status=410), Outcome(kind=DEFERRED, reason="no consent (OPTIONS: HTTP 410)")),
        (
            WebhookResponse(status=200, headers={"WebHook-Allowed-Origin": "<script>"}),
            Outcome(kind=DEFERRED, reason="consent for another origin (OPTIONS: HTTP 200)"),
        ),
        (
            WebhookResponse(status=200, headers={"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "1.5"}),
            Outcome(kind=DEFERRED, reason="invalid WebHook-Allowed-Rate"),
        ),
        (
            WebhookResponse(status=429, headers={"Retry-After": "70"}),
            Outcome(kind=DEFERRED, reason="no consent (OPTIONS: HTTP 429)", throttle=True, retry_after=70.0),
        ),
        (WebhookResponse(behaviour=Behaviour.RESET), Outcome(kind=DEFERRED, reason="connection lost")),
        (WebhookResponse(behaviour=Behaviour.GARBAGE), Outcome(kind=DEFERRED, reason="invalid response")),
    ],
)
async def test_refusal_has_a_bounded_reason(bench: Bench, answer: WebhookResponse, outcome: Outcome) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", answer)
    assert await bench.attempt() == outcome
    assert not bench.got("POST")


async def test_endless_handshake_response_is_not_read(bench: Bench) -> None:
    await bench.subscribe()
    headers = {"WebHook-Allowed-Origin": "*"}
    bench.hooks.script_options("/hook", WebhookResponse(status=200, headers=headers, behaviour=Behaviour.HUGE))
    async with asyncio.timeout(3):
        assert (await bench.attempt()).kind is DELIVERED


async def test_next_attempt_repeats_a_refused_handshake(bench: Bench) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WebhookResponse(status=404), WELCOME)
    assert (await bench.attempt()).kind is DEFERRED
    bench.clock.skip(REFUSAL_HOLDS / 2)
    assert (await bench.attempt()).kind is DEFERRED
    assert bench.counts == (1, 0)
    bench.clock.skip(REFUSAL_HOLDS)
    assert (await bench.attempt()).kind is DELIVERED
    assert bench.counts == (2, 1)


async def test_consent_is_shared_through_the_registry(bench: Bench) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WELCOME)
    assert (await bench.attempt()).kind is DELIVERED
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with egress.session() as session:
        another = WebhookChannel(bench.registry, session, egress, timeout=5, origin=ORIGIN)
        (request,) = await bench.requests()
        assert (await another.attempt(request)).kind is DELIVERED
        assert bench.counts == (1, 2)
        renamed = WebhookChannel(bench.registry, session, egress, timeout=5, origin="example.org")
        (request,) = await bench.requests()
        # Another origin needs a handshake of its own.
        assert (await renamed.attempt(request)).reason == "consent for another origin (OPTIONS: HTTP 200)"


@pytest.mark.parametrize("change", ["url", "rate"])
async def test_change_of_url_or_rate_repeats_the_handshake(bench: Bench, change: str) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WELCOME)
    assert (await bench.attempt()).kind is DELIVERED
    (request,) = await bench.requests()
    target = request.subscription.target.model_copy(update={"url": bench.hooks.url("/moved")})
    changed = {"target": target} if change == "url" else {"rate_limit": 2.0}
    moved = dataclasses.replace(request, subscription=request.subscription.model_copy(update=changed))
    assert (await bench.channel.attempt(moved)).kind is (DEFERRED if change == "url" else DELIVERED)
    assert [one.path for one in bench.got("OPTIONS")] == ["/hook", "/moved" if change == "url" else "/hook"]


async def test_consent_is_renewed_after_a_day(bench: Bench) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WELCOME, WELCOME, WebhookResponse(status=403))
    assert (await bench.attempt()).kind is DELIVERED
    bench.clock.skip(CONSENT_HOLDS - timedelta(minutes=1))
    assert (await bench.attempt()).kind is DELIVERED
    assert bench.counts == (1, 2)
    bench.clock.skip(timedelta(minutes=1))
    assert (await bench.attempt()).kind is DELIVERED
    bench.clock.skip(CONSENT_HOLDS)
    assert (await bench.attempt()).reason == "no consent (OPTIONS: HTTP 403)"
    assert bench.counts == (3, 3)


@pytest.mark.parametrize(("answer", "posted"), [(WELCOME, 20), (WebhookResponse(status=404), 0)])
async def test_concurrent_deliveries_share_one_handshake(bench: Bench, answer: WebhookResponse, posted: int) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", dataclasses.replace(answer, delay=0.2))
    outcomes = await asyncio.gather(*map(bench.channel.attempt, await bench.requests(20)))
    assert len({outcome.kind for outcome in outcomes}) == 1
    assert bench.counts == (1, posted)


async def test_hanging_endpoint_does_not_block_waiting_deliveries_one_by_one(bench: Bench) -> None:
    await bench.subscribe()
    bench.hooks.script_options("/hook", WebhookResponse(behaviour=Behaviour.HANG))
    async with asyncio.timeout(60):  # one by one, 20 timeouts of 5 s would take longer
        outcomes = await asyncio.gather(*map(bench.channel.attempt, await bench.requests(20)))
    assert {outcome.reason for outcome in outcomes} == {"timeout"}
    assert bench.counts == (1, 0)


async def test_handshake_sends_the_rate_limit_and_obeys_the_allowed_rate(bench: Bench) -> None:
    await bench.subscribe(rate_limit=50.0)
    headers = {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "6"}
    bench.hooks.script_options("/hook", WebhookResponse(status=200, headers=headers, delay=0.1))
    first, second = await bench.requests(2)
    outcomes = await asyncio.gather(bench.channel.attempt(first), bench.channel.attempt(second), return_exceptions=True)
    assert bench.got("OPTIONS")[0].headers["webhook-request-rate"] == "3000"
    # The delivery that made the handshake is sent; one that waited was not rate-limited yet, and is throttled.
    assert [type(outcome) for outcome in outcomes] == [Outcome, Throttled]
    (loaded, *_) = await bench.requests()
    assert loaded.rate == pytest.approx(0.1)
    assert (await bench.channel.attempt(loaded)).kind is DELIVERED
    assert bench.counts == (1, 2)


async def test_backlog_is_sent_at_the_allowed_rate(bench: Bench) -> None:
    await bench.subscribe()
    headers = {"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "6"}
    bench.hooks.script_options("/hook", WebhookResponse(status=200, headers=headers))
    requests = await bench.requests(5)
    groups = tuple(
        Group(event_key=request.delivery.event_key, channel=Channel.WEBHOOK, subscription_ids=("sub",))
        for request in requests
    )
    first = await ActivityEnvironment().run(
        ChannelSender(Channel.WEBHOOK, bench.channel.attempt, bench.registry, concurrency=5).send,
        Chunk(groups=groups, schedule=(5.0,)),
    )
    assert list(first.settled.values()) == [{DeliveryState.DELIVERED: 1}]
    assert [(item.reason, item.attempts, item.delay) for item in first.deferred] == [("rate limit", 0, 0.0)] * 4
    left = tuple(group for group in groups if group.event_key not in first.settled)
    second = await ActivityEnvironment().run(
        ChannelSender(Channel.WEBHOOK, bench.channel.attempt, bench.registry, concurrency=5).send,
        Chunk(groups=left, schedule=(5.0,)),
    )
    assert sorted(round(item.delay) for item in second.deferred) == [10, 20, 30]
    assert bench.counts == (1, 2)


async def test_workers_with_different_origins_both_make_progress(bench: Bench) -> None:
    """As while workers are replaced by ones with another origin: each makes its own handshake, and neither blocks forever."""
    await bench.subscribe()
    headers = {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "6000"}
    bench.hooks.script_options("/hook", WebhookResponse(status=200, headers=headers))
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with egress.session() as session:
        other = WebhookChannel(bench.registry, session, egress, timeout=5, origin="example.org", clock=bench.clock)
        for _ in range(4):
            for channel in (bench.channel, other):
                (request,) = await bench.requests()
                bench.clock.skip(timedelta(seconds=1))
                assert (await channel.attempt(request)).kind is DELIVERED


async def test_lost_consent_is_recorded_again(bench: Bench) -> None:
    """As after a subscription was created again: a throttled delivery must find the rate when it returns."""
    await bench.subscribe()
    headers = {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "6000"}
    bench.hooks.script_options("/hook", WebhookResponse(status=200, headers=headers))
    first, second = await bench.requests(2)
    assert (await bench.channel.attempt(first)).kind is DELIVERED
    await bench.registry.subscriptions.record_consent("sub", Consent("another", first.delivery.updated_at))
    with pytest.raises(Throttled):
        await bench.channel.attempt(second)
    (again,) = await bench.requests()
    assert (await bench.channel.attempt(again)).kind is DELIVERED
    assert bench.counts == (1, 2)


async def test_without_an_origin_the_delivery_is_deferred_as_operator_fault(bench: Bench) -> None:
    await bench.subscribe()
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with egress.session() as session:
        nameless = WebhookChannel(bench.registry, session, egress, timeout=5)
        (request,) = await bench.requests()
        outcome = await nameless.attempt(request)
    assert outcome == Outcome(
        kind=DEFERRED, reason="BELLWIRE_WEBHOOK_ORIGIN is not set; the handshake needs it", fault=Fault.OPERATOR
    )
    assert bench.counts == (0, 0)


async def test_handshake_obeys_the_egress_policy(bench: Bench) -> None:
    await bench.subscribe()
    egress = Egress(allow_http=True, ports=None)
    async with egress.session() as session:
        guarded = WebhookChannel(bench.registry, session, egress, timeout=5, origin=ORIGIN)
        (request,) = await bench.requests()
        named = request.subscription.target.model_copy(update={"url": f"http://localhost:{bench.hooks.port}/hook"})
        subscribed = request.subscription.model_copy(update={"target": named})
        outcome = await guarded.attempt(dataclasses.replace(request, subscription=subscribed))
    assert outcome.reason == "address not allowed"
    assert bench.counts == (0, 0)


def test_refusal_expires_before_the_next_attempt() -> None:
    assert timedelta(seconds=5) > REFUSAL_HOLDS
