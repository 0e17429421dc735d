"""FCM and APNs against servers that answer as Google's and Apple's do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from h2.errors import ErrorCodes

from activities.push.apns import TOKEN_LEAST_SECONDS, TOKEN_SECONDS, Apns
from activities.push.channel import PushChannel
from activities.push.content import PushContent
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import PUSH, PushTarget
from starter.local.receivers.providers.apns import ApnsAnswer, FakeApns
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.fcm import FakeFcm, refusal
from tests.activities.chat.channels import request_for
from tests.activities.push.channels import DEVICE, KEYS, push_channel
from tests.factories import event, send_request, subscription

PHONE = "phone:token-1"


@pytest.fixture
async def fcm() -> AsyncIterator[FakeFcm]:
    async with FakeFcm(KEYS.google_public) as server:
        yield server


@pytest.fixture
async def apns() -> AsyncIterator[FakeApns]:
    async with FakeApns() as server:
        yield server


@pytest.fixture
async def channel(fcm: FakeFcm, apns: FakeApns, registry: Registry) -> AsyncIterator[PushChannel]:
    async with push_channel(registry, fcm=fcm, apns=apns) as opened:
        yield opened


def to_phone(**fields: Any) -> SendRequest:
    return request_for({"channel": "push", "fcm": PHONE}, **fields)


def to_device(*, of_event: dict[str, Any] | None = None, **target: Any) -> SendRequest:
    return request_for({"channel": "push", "apns": DEVICE, **target}, of_event=of_event or {})


async def test_fcm_gets_texts_and_data_of_texts(fcm: FakeFcm, channel: PushChannel) -> None:
    outcome = await channel.attempt(to_phone(data={"order": 42, "url": "https://shop.example/42", "badge": 2}))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "FCM 200")
    assert outcome.provider_id is not None
    assert outcome.provider_id.startswith("projects/shop-1/messages/")
    (message,) = fcm.contents(PHONE)
    assert message["notification"]["title"] == "Order 42 is paid"
    assert all(isinstance(value, str) for value in message["data"].values())
    assert message["webpush"]["fcm_options"]["link"] == "https://shop.example/42"
    assert message["android"]["notification"]["notification_count"] == 2


async def test_fcm_tokens_that_die_are_replaced_once(fcm: FakeFcm, channel: PushChannel) -> None:
    await channel.attempt(to_phone())
    fcm.tokens.revoke()
    outcomes = await asyncio.gather(*(channel.attempt(to_phone()) for _ in range(5)))
    assert {outcome.reason for outcome in outcomes} == {"FCM 200"}
    assert len(fcm.tokens.issued) == 2


VIOLATION = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "message.token"}]}
OTHER = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "message.data"}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "fault", "suppressed"),
    [
        (404, refusal(404, "UNREGISTERED"), "rejected", "receiver", True),
        (400, refusal(400, "INVALID_ARGUMENT", VIOLATION), "rejected", "receiver", True),
        (400, refusal(400, "INVALID_ARGUMENT", OTHER), "rejected", "operator", False),
        (400, refusal(400, "INVALID_ARGUMENT"), "rejected", "operator", False),
        (403, refusal(403, "SENDER_ID_MISMATCH"), "rejected", "operator", True),
        (401, refusal(401, "THIRD_PARTY_AUTH_ERROR"), "deferred", "operator", False),
        (401, refusal(401, "APNS_AUTH_ERROR"), "deferred", "operator", False),
        (429, refusal(429, "RESOURCE_EXHAUSTED"), "deferred", "provider", False),
        (429, refusal(429, "SOMETHING_NEW"), "deferred", "provider", False),
        (429, "<html>", "deferred", "provider", False),
        (500, refusal(500, "INTERNAL"), "deferred", "provider", False),
        (503, refusal(503, "UNAVAILABLE"), "deferred", "provider", False),
        (502, "<html>", "deferred", "provider", False),
        (200, "<html>", "unknown", "provider", False),
        (200, {}, "unknown", "provider", False),
        (413, "", "rejected", "operator", False),
        (400, {"error": {"status": "INVALID_ARGUMENT", "details": 5}}, "rejected", "operator", False),
        (400, {"error": {"details": [{**VIOLATION, "fieldViolations": 5}]}}, "deferred", "operator", False),
    ],
)
async def test_what_a_refusal_of_fcm_means(
    fcm: FakeFcm, channel: PushChannel, status: int, body: Any, kind: str, fault: str, suppressed: bool
) -> None:
    fcm.script(Answer(status=status, body=body))
    outcome = await channel.attempt(to_phone())
    assert (outcome.kind, outcome.fault) == (OutcomeKind(kind), Fault(fault))
    assert [each.address for each in outcome.suppress] == ([f"default/{PHONE}"] if suppressed else [])


@pytest.mark.parametrize(
    ("status", "body", "wait"),
    [
        (429, refusal(429, "QUOTA_EXCEEDED"), 60),
        (429, "<html>", 60),
        (503, refusal(503, "UNAVAILABLE"), 10),
        (500, refusal(500, "INTERNAL"), 10),
    ],
)
async def test_fcm_is_given_time_without_asking(
    fcm: FakeFcm, channel: PushChannel, status: int, body: Any, wait: float
) -> None:
    fcm.script(Answer(status=status, body=body))
    outcome = await channel.attempt(to_phone())
    assert (outcome.retry_after, outcome.throttle) == (wait, status == 429)


async def test_a_401_without_a_known_code_replaces_the_token(fcm: FakeFcm, channel: PushChannel) -> None:
    fcm.script(Answer(status=401, body="<html>"))
    assert (await channel.attempt(to_phone())).reason == "FCM 200"
    assert len(fcm.tokens.issued) == 2


async def test_only_codes_of_fcm_are_in_a_reason(fcm: FakeFcm, channel: PushChannel) -> None:
    fcm.script(Answer(status=400, body={"error": {"status": f"not a token: {PHONE}"}}))
    assert (await channel.attempt(to_phone())).reason == "FCM 400"


async def test_a_later_attempt_replaces_the_notice_of_an_earlier_one(
    fcm: FakeFcm, apns: FakeApns, channel: PushChannel
) -> None:
    """Also for subscriptions whose ids only differ beyond the 64 bytes that devices take."""
    found: dict[str, set[str]] = {"fcm": set(), "fcm for Apple": set(), "apns": set()}
    for last in "ab":
        for target in ({"fcm": PHONE}, {"apns": DEVICE}):
            given = subscription({"channel": "push", **target}, id="s" * 62 + last)
            for number in (1, 2):
                assert (await channel.attempt(send_request(given, event(id="1"), number=number))).reason.endswith("200")
    for message in fcm.contents(PHONE):
        found["fcm"].add(message["android"]["notification"]["tag"])
        found["fcm for Apple"].add(message["apns"]["headers"]["apns-collapse-id"])
        assert "collapse_key" not in message["android"], "FCM keeps only four of them for a device"
    found["apns"] |= {push["headers"]["apns-collapse-id"] for push in apns.accepted}
    assert (len(fcm.contents(PHONE)), len(apns.accepted)) == (4, 4)
    assert {name: len(ids) for name, ids in found.items()} == dict.fromkeys(found, 2)
    assert max(len(each) for each in found["apns"] | found["fcm for Apple"]) <= 64


async def test_fcm_says_how_long_to_wait(fcm: FakeFcm, channel: PushChannel) -> None:
    fcm.script(Answer(status=429, body=refusal(429, "QUOTA_EXCEEDED"), headers={"Retry-After": "90"}))
    outcome = await channel.attempt(to_phone())
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 90, True)


async def test_a_lost_answer_of_fcm_is_unknown(fcm: FakeFcm, channel: PushChannel) -> None:
    fcm.script(Answer(accept=True, reset=True))
    assert (await channel.attempt(to_phone())).kind is OutcomeKind.UNKNOWN


async def test_apple_gets_a_signed_push_that_replaces_itself(apns: FakeApns, channel: PushChannel) -> None:
    request = to_device()
    outcome = await channel.attempt(request)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "APNs 200")
    (push,) = apns.accepted
    headers = push["headers"]
    assert headers[":path"] == f"/3/device/{DEVICE}"
    assert (headers["apns-topic"], headers["apns-collapse-id"]) == ("example.shop", request.id[:64])
    public = KEYS.apple.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = headers["authorization"].removeprefix("bearer ")
    assert jwt.decode(token, public, algorithms=["ES256"])["iss"] == "TEAM123456"
    assert push["payload"]["aps"]["alert"]["title"] == "Order 42 is paid"


@pytest.mark.parametrize(
    ("number", "schedule", "seconds"),
    [
        (1, None, sum(PUSH.schedule)),
        (5, None, PUSH.schedule[-1]),
        (6, None, 3600),
        (1, (7200.0, 100.0), 7300),
        (1, (), 3600),
    ],
)
async def test_a_push_is_kept_as_long_as_it_would_be_attempted(
    fcm: FakeFcm,
    apns: FakeApns,
    channel: PushChannel,
    number: int,
    schedule: tuple[float, ...] | None,
    seconds: float,
) -> None:
    for request in (to_phone(), to_device()):
        subscribed = request.subscription.model_copy(update={"retry_schedule": schedule})
        await channel.attempt(replace(request, subscription=subscribed, number=number))
    (message,), now = fcm.contents(PHONE), datetime.now(UTC).timestamp()
    assert message["android"]["ttl"] == f"{int(seconds)}s"
    for headers in (message["apns"]["headers"], apns.accepted[0]["headers"]):
        assert now - 60 < int(headers["apns-expiration"]) - seconds <= now


async def test_many_pushes_share_a_connection_and_a_token(apns: FakeApns, channel: PushChannel) -> None:
    outcomes = await asyncio.gather(*(channel.attempt(to_device()) for _ in range(60)))
    assert {outcome.reason for outcome in outcomes} == {"APNs 200"}
    assert (len(apns.accepted), apns.connections, len(apns.tokens)) == (60, 1, 1)


async def test_a_server_that_allows_one_stream_gets_one_at_a_time(registry: Registry) -> None:
    async with FakeApns(max_streams=1) as apns, push_channel(registry, apns=apns) as channel:
        outcomes = await asyncio.gather(*(channel.attempt(to_device()) for _ in range(10)))
    assert {outcome.reason for outcome in outcomes} == {"APNs 200"}
    assert apns.most_at_once == 1


async def test_a_server_that_goes_away_before_a_push_gets_it_on_another_connection(
    apns: FakeApns, channel: PushChannel
) -> None:
    apns.script(ApnsAnswer(go_away_after=0, accept=False))
    outcome = await channel.attempt(to_device())
    assert outcome.reason == "APNs 200"
    assert (apns.connections, len(apns.accepted)) == (2, 1)


async def test_a_push_that_a_server_may_have_processed_is_unknown(apns: FakeApns, channel: PushChannel) -> None:
    apns.script(ApnsAnswer(go_away_after=1, accept=True))
    assert (await channel.attempt(to_device())).kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ErrorCodes.REFUSED_STREAM, OutcomeKind.DEFERRED), (ErrorCodes.INTERNAL_ERROR, OutcomeKind.UNKNOWN)],
)
async def test_a_stream_that_is_reset(
    apns: FakeApns, channel: PushChannel, code: ErrorCodes, kind: OutcomeKind
) -> None:
    apns.script(ApnsAnswer(reset=code))
    assert (await channel.attempt(to_device())).kind is kind


async def test_no_answer_is_unknown_and_the_connection_goes_on(apns: FakeApns, channel: PushChannel) -> None:
    apns.script(ApnsAnswer(never=True, accept=True))
    assert (await channel.attempt(to_device())).kind is OutcomeKind.UNKNOWN
    assert (await channel.attempt(to_device())).reason == "APNs 200"
    assert apns.connections == 1


@pytest.mark.parametrize(
    ("answer", "kind", "fault", "suppressed"),
    [
        (ApnsAnswer(status=410, reason="Unregistered", timestamp=4102444800000), "rejected", "receiver", True),
        (ApnsAnswer(status=400, reason="BadDeviceToken"), "deferred", "operator", False),
        (ApnsAnswer(status=400, reason="PayloadEmpty"), "rejected", "operator", False),
        (ApnsAnswer(status=403, reason="BadCertificate"), "deferred", "operator", False),
        (ApnsAnswer(status=429, reason="TooManyRequests"), "deferred", "provider", False),
        (ApnsAnswer(status=400, reason="DeviceTokenNotForTopic"), "deferred", "operator", False),
        (ApnsAnswer(status=400, reason="TopicDisallowed"), "deferred", "operator", False),
        (ApnsAnswer(status=400, reason="BadMessageId"), "rejected", "operator", False),
        (ApnsAnswer(status=400, reason="DuplicateHeaders"), "rejected", "operator", False),
        (ApnsAnswer(status=400, reason="IdleTimeout"), "deferred", "provider", False),
        (ApnsAnswer(status=410, reason="ExpiredToken"), "rejected", "receiver", True),
        (ApnsAnswer(status=410, reason="SomethingNew"), "rejected", "receiver", True),
        (ApnsAnswer(status=410), "rejected", "receiver", True),
        (ApnsAnswer(status=413), "rejected", "operator", False),
        (ApnsAnswer(status=429, reason="SomethingNew"), "deferred", "provider", False),
        (ApnsAnswer(status=500), "deferred", "provider", False),
        (ApnsAnswer(status=503, reason="Shutdown"), "deferred", "provider", False),
    ],
)
async def test_what_a_refusal_of_apple_means(
    apns: FakeApns, channel: PushChannel, answer: ApnsAnswer, kind: str, fault: str, suppressed: bool
) -> None:
    apns.script(answer)
    outcome = await channel.attempt(to_device())
    assert (outcome.kind, outcome.fault) == (OutcomeKind(kind), Fault(fault))
    assert [each.address for each in outcome.suppress] == ([f"default/{DEVICE}"] if suppressed else [])


async def test_a_bad_token_of_a_known_environment_is_suppressed(apns: FakeApns, channel: PushChannel) -> None:
    apns.script(ApnsAnswer(status=400, reason="BadDeviceToken"))
    assert (await channel.attempt(to_device(environment="production"))).suppress


@pytest.mark.parametrize("timestamp", [1_700_000_000_000, "1700000000000", 1.7e12])
async def test_a_token_that_was_registered_again_survives_an_old_notice(
    apns: FakeApns, channel: PushChannel, timestamp: Any
) -> None:
    apns.script(ApnsAnswer(status=410, reason="Unregistered", timestamp=timestamp))
    outcome = await channel.attempt(to_device())
    assert (outcome.kind, outcome.suppress) == (OutcomeKind.DEFERRED, ())


async def test_a_new_token_is_not_made_within_twenty_minutes(apns: FakeApns, channel: PushChannel) -> None:
    apns.script(*[ApnsAnswer(status=403, reason="ExpiredProviderToken")] * 2)
    outcome = await channel.attempt(to_device())
    assert (outcome.kind, outcome.fault, len(apns.tokens)) == (OutcomeKind.DEFERRED, Fault.OPERATOR, 1)
    assert (await channel.attempt(to_device())).reason == "APNs ExpiredProviderToken", (
        "it was not sent twice with the same token"
    )


async def test_an_old_token_is_replaced_once_for_all_pushes(apns: FakeApns) -> None:
    times = [1_000_000.0]
    service = Apns(KEYS.accounts(apns=apns).apns, clock=lambda: times[0])

    async def send() -> str:
        request = to_device()
        target = request.subscription.target
        assert isinstance(target, PushTarget)
        content = PushContent(
            title="t", body="b", url=None, badge=None, notice_id="1", data={"delivery": "1"}, kept=3600
        )
        return (await service.send(request, target, content)).reason

    assert await send() == "APNs 200"
    times[0] += TOKEN_LEAST_SECONDS + 1
    apns.script(*[ApnsAnswer(status=403, reason="ExpiredProviderToken")] * 5)
    assert set(await asyncio.gather(*(send() for _ in range(5)))) == {"APNs 200"}
    assert len(apns.tokens) == 2
    times[0] += TOKEN_SECONDS
    assert await send() == "APNs 200"
    assert len(apns.tokens) == 3
    await service.close()


async def test_an_account_that_is_missing_is_named(channel: PushChannel) -> None:
    request = to_device(account="other")
    assert (await channel.attempt(request)).reason == "no APNs account other"
    target = request.subscription.target.model_copy(update={"apns": None, "fcm": "x"})
    subscription = request.subscription.model_copy(update={"target": target})
    assert (await channel.attempt(replace(request, subscription=subscription))).reason == "no FCM account other"


async def test_an_event_that_replaces_another_takes_the_place_of_its_notification(
    fcm: FakeFcm, apns: FakeApns, channel: PushChannel
) -> None:
    first, later = {"id": "1"}, {"id": "2", "replaces": "1"}
    for of_event in (first, later):
        await channel.attempt(to_phone(of_event=of_event))
        await channel.attempt(to_device(of_event=of_event))
    one, two = fcm.contents(PHONE)
    assert one["android"]["notification"]["tag"] == two["android"]["notification"]["tag"] == one["data"]["delivery"]
    assert len({each["apns"]["headers"]["apns-collapse-id"] for each in (one, two)}) == 1
    assert two["data"]["delivery"] != two["data"]["notice"] == one["data"]["delivery"]
    assert len({push["headers"]["apns-collapse-id"] for push in apns.accepted}) == 1


async def test_a_time_of_registration_without_a_zone_is_one_of_utc(apns: FakeApns, channel: PushChannel) -> None:
    apns.script(ApnsAnswer(status=410, reason="Unregistered", timestamp=1_700_000_000_000))
    outcome = await channel.attempt(to_device(registered_at="2023-01-01T00:00:00"))
    assert [each.address for each in outcome.suppress] == [f"default/{DEVICE}"]


async def test_an_apple_service_that_cannot_be_reached_holds_up_no_other(tmp_path: Path) -> None:
    async with FakeApns() as apns, unanswered() as sandbox:
        accounts = KEYS.accounts(apns=apns)
        account = accounts.apns["default"].model_copy(update={"sandbox_url": sandbox, "timeout": 1.0})
        service = Apns({"default": account})
        data = {"delivery": "1"}
        content = PushContent(title="t", body="b", url=None, badge=None, notice_id="1", data=data, kept=3600)

        async def send(environment: str) -> str:
            request = to_device(environment=environment)
            target = cast(PushTarget, request.subscription.target)
            return (await service.send(request, target, content)).reason

        try:
            async with asyncio.timeout(3):
                reasons = await asyncio.gather(*(send("sandbox") for _ in range(20)), send("production"))
        finally:
            await service.close()
    assert reasons == ["APNs unreachable: connect timeout"] * 20 + ["APNs 200"]


@asynccontextmanager
async def unanswered() -> AsyncIterator[str]:
    """The URL of a server that accepts no connection: those that wait for it fill its queue."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield f"http://{host}:{port}"
