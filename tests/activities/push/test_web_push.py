"""Web Push against a push service that checks headers and VAPID, and a browser that decrypts."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import http_ece  # type: ignore[import-untyped]
import pytest
from pydantic import SecretStr, ValidationError

from activities.providers.accounts import SECRETS, Accounts
from activities.push.channel import PushChannel
from activities.sending.exchanges import keeping_exchanges
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import PUSH, PushTarget
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.web_push import Browser, FakePushService
from tests.activities.chat.channels import HOSTILE, request_for
from tests.activities.push.channels import push_channel

NAME = "phone-1"


@pytest.fixture
async def service() -> AsyncIterator[FakePushService]:
    async with FakePushService() as server:
        yield server


@pytest.fixture
async def channel(registry: Registry) -> AsyncIterator[PushChannel]:
    async with push_channel(registry) as opened:
        yield opened


@pytest.fixture
def browser() -> Browser:
    return Browser()


def request(service: FakePushService, browser: Browser, **fields: Any) -> SendRequest:
    return request_for({"channel": "push", "web": browser.subscription(service.endpoint(NAME))}, **fields)


def shown(service: FakePushService, browser: Browser) -> list[dict[str, Any]]:
    """What the browser's service worker is given, by an independent decryptor."""
    return [
        json.loads(http_ece.decrypt(each["body"], private_key=browser.key, auth_secret=browser.auth))
        for each in service.contents(NAME)
    ]


async def test_the_browser_gets_title_body_page_badge_and_data(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    data = {"order": "42", "url": "https://shop.example/orders/42", "badge": 3}
    outcome = await channel.attempt(request(service, browser, data=data))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Web Push 201")
    assert outcome.provider_id is None
    (push,) = shown(service, browser)
    assert (push["title"], push["url"], push["badge"]) == ("Order 42 is paid", "https://shop.example/orders/42", 3)
    assert "order: 42" in push["body"]
    assert push["data"]["type"] == "order.paid"
    headers = service.accepted[0].content["headers"]
    assert (headers["content-encoding"], headers["urgency"], headers["ttl"]) == (
        "aes128gcm",
        "normal",
        str(int(sum(PUSH.schedule))),
    )
    assert len(headers["topic"]) == 32


async def test_two_attempts_have_one_topic_and_two_deliveries_have_two(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    first = request(service, browser)
    for each in (first, first):
        await channel.attempt(each)
    assert service.duplicates == 1


async def test_an_event_that_replaces_another_takes_the_place_of_its_notification(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    for of_event in ({"id": "1"}, {"id": "2", "replaces": "1"}, {"id": "3", "replaces": "1"}):
        await channel.attempt(request(service, browser, of_event=of_event))
    assert len({each.content["headers"]["topic"] for each in service.accepted}) == 1
    first, *later = (push["data"] for push in shown(service, browser))
    assert "notice" not in first
    assert [data["notice"] for data in later] == [first["delivery"]] * 2


async def test_a_page_with_another_scheme_is_left_out(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    await channel.attempt(request(service, browser, data={"url": "javascript:alert(1)", "note": HOSTILE, "badge": "x"}))
    (push,) = shown(service, browser)
    assert "url" not in push
    assert "badge" not in push


async def test_large_data_is_cut_to_what_push_services_take(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    outcome = await channel.attempt(request(service, browser, data={f"f{n}": "\u4e2d" * 200 for n in range(50)}))
    assert outcome.kind is OutcomeKind.DELIVERED
    assert len(service.contents(NAME)[0]["body"]) <= 4096


async def test_a_push_that_is_large_in_every_part_is_cut_to_what_push_services_take(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    made = request(service, browser, data={"url": f"https://shop.example/{'x' * 700}"})
    templates = {
        "push.title": "\U0001f6d2" * 120,
        "push.body": '\U0001f6d2"' * 250,
        "push.data": json.dumps({"note": "x" * 1_300}),
    }
    own = made.subscription.model_copy(update={"templates": templates})
    outcome = await channel.attempt(replace(made, subscription=own))
    assert outcome.kind is OutcomeKind.DELIVERED
    (push,) = shown(service, browser)
    assert push["body"].endswith("…")


@pytest.mark.parametrize("url", [f"https://a.example/{'x' * 5_000}", "https://[x"])
async def test_a_page_whose_url_is_too_long_or_not_valid_is_left_out(
    service: FakePushService, channel: PushChannel, browser: Browser, url: str
) -> None:
    outcome = await channel.attempt(request(service, browser, data={"url": url}))
    assert outcome.kind is OutcomeKind.DELIVERED
    assert "url" not in shown(service, browser)[0]


@pytest.mark.parametrize(
    ("status", "kind", "fault", "suppressed"),
    [
        (404, OutcomeKind.REJECTED, Fault.RECEIVER, True),
        (410, OutcomeKind.REJECTED, Fault.RECEIVER, True),
        (400, OutcomeKind.DEFERRED, Fault.OPERATOR, False),
        (403, OutcomeKind.DEFERRED, Fault.OPERATOR, False),
        (413, OutcomeKind.REJECTED, Fault.OPERATOR, False),
        (500, OutcomeKind.DEFERRED, Fault.PROVIDER, False),
        (502, OutcomeKind.DEFERRED, Fault.PROVIDER, False),
        (503, OutcomeKind.DEFERRED, Fault.PROVIDER, False),
        (204, OutcomeKind.UNKNOWN, Fault.PROVIDER, False),
        (302, OutcomeKind.DEFERRED, Fault.PROVIDER, False),
    ],
)
async def test_what_a_status_means(
    service: FakePushService,
    channel: PushChannel,
    browser: Browser,
    status: int,
    kind: OutcomeKind,
    fault: Fault,
    suppressed: bool,
) -> None:
    service.script(Answer(status=status, body={"errno": 1}))
    outcome = await channel.attempt(request(service, browser))
    assert (outcome.kind, outcome.fault, outcome.reason) == (kind, fault, f"Web Push {status}")
    assert [each.address for each in outcome.suppress] == ([service.endpoint(NAME)] if suppressed else [])


async def test_a_token_that_a_push_service_rejects_is_replaced_once(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    await channel.attempt(request(service, browser))
    service.script(Answer(status=401, body={"errno": 109}))
    assert (await channel.attempt(request(service, browser))).reason == "Web Push 201"
    first, second = (each.content["headers"]["authorization"] for each in service.accepted)
    assert first != second
    service.script(*[Answer(status=401, body={"errno": 109})] * 2)
    outcome = await channel.attempt(request(service, browser))
    assert (outcome.kind, outcome.fault, outcome.suppress) == (OutcomeKind.DEFERRED, Fault.OPERATOR, ())


async def test_a_push_service_that_is_busy_is_given_its_time(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    service.script(Answer(status=429, body="", headers={"Retry-After": "120"}))
    outcome = await channel.attempt(request(service, browser))
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 120, True)


async def test_a_lost_answer_is_unknown(service: FakePushService, channel: PushChannel, browser: Browser) -> None:
    service.script(Answer(accept=True, reset=True))
    assert (await channel.attempt(request(service, browser))).kind is OutcomeKind.UNKNOWN


async def test_a_page_is_no_push_service(service: FakePushService, channel: PushChannel, browser: Browser) -> None:
    service.script(Answer(status=200, body="<html>Log in"))
    assert (await channel.attempt(request(service, browser))).kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize("location", ["http://[", "/wpush/m0ssage-of-it", "//", ""])
async def test_the_url_of_a_message_may_be_none(
    service: FakePushService, channel: PushChannel, browser: Browser, location: str
) -> None:
    service.script(Answer(status=400, body=f"at {location}", headers={"Location": location}))
    outcome = await channel.attempt(request(service, browser))
    assert outcome.reason == "Web Push 400"
    assert "m0ssage" not in str(outcome.response)


async def test_only_push_services_get_pushes(channel: PushChannel, browser: Browser) -> None:
    target = {"channel": "push", "web": browser.subscription("https://internal.example/push")}
    outcome = await channel.attempt(request_for(target))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.REJECTED, "push service not allowed")


async def test_a_key_that_the_operator_does_not_have_is_named(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    target = {"channel": "push", "account": "old", "web": browser.subscription(service.endpoint(NAME))}
    outcome = await channel.attempt(request_for(target))
    assert (outcome.reason, outcome.cause) == ("no VAPID key old", "add [vapid.old] to BELLWIRE_ACCOUNTS")


async def test_the_endpoint_and_the_keys_stay_secret(
    service: FakePushService, channel: PushChannel, browser: Browser
) -> None:
    made = request(service, browser)
    outcome = await keeping_exchanges(channel.attempt, KeepExchanges.ALL)(made)
    (exchange,) = outcome.exchanges
    web = browser.subscription("")["keys"]
    assert isinstance(web, dict)
    for secret in (*web.values(), "vapid t="):
        assert secret not in exchange.request + made.subscription.model_dump_json()
    assert NAME not in exchange.request + outcome.reason + made.subscription.target.address
    # With the URL of the message, anybody can delete it.
    assert service.accepted[0].id not in exchange.response
    service.script(Answer(status=400, body=f"bad endpoint {service.endpoint(NAME)}"))
    outcome = await keeping_exchanges(channel.attempt, KeepExchanges.ALL)(made)
    assert NAME not in f"{outcome.response}{outcome.exchanges}"


@pytest.mark.parametrize(
    "subject",
    ["mailto:push@localhost", "mailto:<a@example.com>", "mailto: a@example.com", "https://a.invalid", "a@example.com"],
)
def test_a_subject_that_apple_would_refuse_is_refused_at_the_start(subject: str) -> None:
    account = {"vapid": {"default": {"private_key": f"{SECRETS}VAPID", "subject": subject}}}
    with pytest.raises(ValidationError, match="real address"):
        Accounts.model_validate(account, context={"vapid": SecretStr("x")})


def test_what_is_no_push_subscription_is_refused() -> None:
    with pytest.raises(ValueError, match=r"web\.keys\.auth: is not an authentication secret"):
        PushTarget(web={"endpoint": "https://a.example/1", "keys": {"p256dh": "A" * 87, "auth": "AAAA"}})
    with pytest.raises(ValueError, match="give one of them"):
        PushTarget(fcm="a", apns="ab" * 32)
