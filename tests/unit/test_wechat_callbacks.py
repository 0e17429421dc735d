"""WeChat's callbacks over HTTP, in both modes, to a gateway with a real registry. Signatures and encryption are computed here."""

import base64
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.service.settings import Settings
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.gateway.wechat.signatures import SignatureInvalid, aes_key, decrypt, verify
from tests.factories import NOW, event, subscription
from tests.serving import serving

TOKEN, APP_ID, OPENID, MSG_ID = "tok3n", "wx0123456789abcdef", "oAnn-1", "200163836"
ENCODING_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
EVENT = event(id="1")
SUBSCRIPTION = subscription({"channel": "wechat", "openid": OPENID, "template_id": "paid"}, id="sub_wechat")
FINISHED = "<Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event><MsgID>{id}</MsgID><Status><![CDATA[{status}]]></Status>"


def sha1(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def xml(inner: str, openid: str = OPENID, created: int = 1_764_000_000) -> str:
    return (
        f"<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[{openid}]]></FromUserName>"
        f"<CreateTime>{created}</CreateTime><MsgType><![CDATA[event]]></MsgType>{inner}</xml>"
    )


def sealed(text: str, app_id: str = APP_ID) -> str:
    plain = b"r" * 16 + struct.pack(">I", len(text.encode())) + text.encode() + app_id.encode()
    padding = 32 - len(plain) % 32
    key = bytes(range(32))
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


class Called(NamedTuple):
    registry: Registry
    url: str

    async def post(self, body: str | bytes, *, account: str = "default", **query: str) -> tuple[int, str]:
        signed = {"timestamp": str(int(time.time())), "nonce": "n1"}
        signed["signature"] = sha1(TOKEN, signed["timestamp"], signed["nonce"])
        data = body if isinstance(body, bytes) else body.encode()
        url = f"{self.url}/{account}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, params={**signed, **query}, data=data) as response,
        ):
            return response.status, await response.text()

    async def post_safe(self, text: str, *, app_id: str = APP_ID, **query: str) -> tuple[int, str]:
        encrypted, timestamp = sealed(text, app_id), str(int(time.time()))
        signature = sha1(TOKEN, timestamp, "n1", encrypted)
        body = f"<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
        signed = {"timestamp": timestamp, "msg_signature": signature, **query}
        return await self.post(body, account="safe", **signed)

    async def receipt(self) -> SmsReceipt | None:
        (delivery,) = await self.registry.deliveries.list(event_key=EVENT.key)
        return (await self.registry.sms_receipts.of_deliveries([delivery])).get(delivery.id)

    async def suppressed(self) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.WECHAT, [f"default/{OPENID}"], subscription_id="another")

    async def grants(self, template: str = "paid", account: str = "default") -> int | None:
        return await self.registry.wechat_grants.get(Grantee(account, OPENID, template))


@pytest.fixture
async def called(tmp_path: Path) -> AsyncIterator[Called]:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([EVENT], "run")
    group = Group(event_key=EVENT.key, channel=Channel.WECHAT, subscription_ids=(SUBSCRIPTION.id,))
    await registry.deliveries.add("run", [group])
    outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="WeChat 0", provider_id=MSG_ID)
    await registry.attempts.record(
        [
            Attempt(
                event_key=EVENT.key,
                subscription_id=SUBSCRIPTION.id,
                number=1,
                started_at=NOW,
                duration=0.1,
                outcome=outcome,
                state=DeliveryState.DELIVERED,
            )
        ]
    )
    secret = "BELLWIRE_ACCOUNT_SECRETS__"
    plain = {"app_id": APP_ID, "secret": f"{secret}APP", "callback_token": f"{secret}TOKEN"}
    accounts = {"default": plain, "safe": {**plain, "aes_key": f"{secret}AES"}, "silent": {"app_id": "x"}}
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps({"wechat": accounts}))
    settings = Settings.read(accounts=file, account_secrets={"app": "s", "token": TOKEN, "aes": ENCODING_KEY})
    async with serving(settings, registry) as url:
        yield Called(registry, f"{url}/callbacks/wechat")
    await registry.close()


async def test_the_url_is_verified_by_an_echo(called: Called) -> None:
    timestamp = str(int(time.time()))
    query = {"timestamp": timestamp, "nonce": "n", "echostr": "5838479218127813673"}
    good = {**query, "signature": sha1(TOKEN, timestamp, "n")}
    async with aiohttp.ClientSession() as session:
        for account, given, expected in (
            ("default", good, (200, query["echostr"])),
            ("safe", good, (200, query["echostr"])),
            ("default", {**good, "signature": "0" * 40}, (403, "")),
            ("default", {**good, "signature": "é"}, (403, "")),
            ("default", {**good, "echostr": "x" * 300}, (400, "")),
            ("silent", good, (404, "")),
            ("other", good, (404, "")),
        ):
            async with session.get(f"{called.url}/{account}", params=given) as response:
                assert (response.status, await response.text()) == expected


@pytest.mark.parametrize(
    ("status", "stored", "code", "blocked"),
    [
        ("success", SmsReceiptStatus.DELIVERED, None, False),
        ("failed:user block", SmsReceiptStatus.FAILED, "user block", True),
        ("failed: system failed", SmsReceiptStatus.FAILED, "system failed", False),
        ("failed:system failed", SmsReceiptStatus.FAILED, "system failed", False),
        ("failed: <b>new</b>", SmsReceiptStatus.FAILED, "failed", False),
    ],
)
async def test_the_final_word_is_recorded_once(
    called: Called, status: str, stored: SmsReceiptStatus, code: str | None, blocked: bool
) -> None:
    for _ in range(3):
        assert await called.post(xml(FINISHED.format(id=MSG_ID, status=status))) == (200, "success")
    receipt = await called.receipt()
    assert receipt is not None
    assert (receipt.status, receipt.code) == (stored, code)
    assert bool(await called.suppressed()) is blocked


async def test_a_message_that_is_not_known_yet_is_asked_for_again(called: Called) -> None:
    assert (await called.post(xml(FINISHED.format(id="1", status="failed:user block"))))[0] == 404
    body = xml(FINISHED.format(id=MSG_ID, status="failed:user block"), openid="oBob")
    assert (await called.post(body))[0] == 404, "another user's"
    assert await called.suppressed() == {}
    assert await called.receipt() is None


async def test_a_wrong_signature_and_an_old_one_change_nothing(called: Called) -> None:
    body = xml(FINISHED.format(id=MSG_ID, status="failed:user block"))
    old = str(int(time.time()) - 3600)
    assert (await called.post(body, signature="0" * 40))[0] == 403
    assert (await called.post(body, timestamp=old))[0] == 403
    assert (await called.post(body, timestamp=old, signature=sha1(TOKEN, old, "n1")))[0] == 403
    assert (await called.post(body, nonce="n2"))[0] == 403
    assert await called.receipt() is None


async def test_safe_mode_takes_only_what_is_encrypted_for_the_account(called: Called) -> None:
    popup = xml("<Event>subscribe_msg_popup_event</Event>" + choices("SubscribeMsgPopupEvent", ("paid", "accept")))
    assert await called.post_safe(popup) == (200, "success")
    assert await called.grants(account="safe") == 1
    assert (await called.post_safe(popup, app_id="wxanother"))[0] == 403
    assert (await called.post_safe(popup, msg_signature="0" * 40))[0] == 403
    assert (await called.post(popup, account="safe"))[0] == 403, "a plain body"
    assert await called.grants(account="safe") == 1


def choices(event_name: str, *each: tuple[str, str]) -> str:
    inner = "".join(
        f"<List><TemplateId>{template}</TemplateId><SubscribeStatusString>{choice}</SubscribeStatusString></List>"
        for template, choice in each
    )
    return f"<{event_name}>{inner}</{event_name}>"


async def test_grants_are_counted_once_in_xml_of_one_and_of_several(called: Called) -> None:
    one = xml("<Event>subscribe_msg_popup_event</Event>" + choices("SubscribeMsgPopupEvent", ("paid", "accept")))
    for _ in range(3):
        assert await called.post(one) == (200, "success")
    assert await called.grants() == 1
    two = choices("SubscribeMsgPopupEvent", ("paid", "accept"), ("sent", "accept"), ("ads", "reject"))
    await called.post(xml(f"<Event>subscribe_msg_popup_event</Event>{two}", created=1_764_000_009))
    assert [await called.grants(each) for each in ("paid", "sent", "ads")] == [2, 1, None]
    refused = choices("SubscribeMsgChangeEvent", ("paid", "reject"))
    await called.post(xml(f"<Event>subscribe_msg_change_event</Event>{refused}"))
    assert await called.grants() == 0


@pytest.mark.parametrize("several", [False, True])
async def test_grants_are_counted_in_json_of_one_and_of_several(called: Called, several: bool) -> None:
    item = {"TemplateId": "paid", "SubscribeStatusString": "accept", "PopupScene": "0"}
    message: dict[str, Any] = {
        "FromUserName": OPENID,
        "CreateTime": 1_764_000_000,
        "MsgType": "event",
        "Event": "subscribe_msg_popup_event",
        "List": [item, {**item, "TemplateId": "sent"}] if several else item,
    }
    assert await called.post(json.dumps(message)) == (200, "success")
    assert [await called.grants(each) for each in ("paid", "sent")] == [1, 1 if several else None]


async def test_a_notification_that_no_grant_was_left_for_clears_the_count(called: Called) -> None:
    sent = f"<List><TemplateId>paid</TemplateId><MsgID>{MSG_ID}</MsgID><ErrorCode>43101</ErrorCode></List>"
    body = xml(f"<Event>subscribe_msg_sent_event</Event><SubscribeMsgSentEvent>{sent}</SubscribeMsgSentEvent>")
    assert await called.post(body) == (200, "success")
    receipt = await called.receipt()
    assert receipt is not None
    assert (receipt.status, receipt.code) == (SmsReceiptStatus.FAILED, "43101")
    assert (await called.grants(), await called.suppressed()) == (0, {})


@pytest.mark.parametrize("reason", [SuppressionReason.BOUNCED, SuppressionReason.OPERATOR])
async def test_following_again_lifts_what_refusals_suppressed_and_no_operator(
    called: Called, reason: SuppressionReason
) -> None:
    address = f"default/{OPENID}"
    await called.registry.suppressions.add(
        Suppression(channel=Channel.WECHAT, address=address, reason=reason, cause="WeChat 43004")
    )
    assert await called.post(xml("<Event>subscribe</Event>")) == (200, "success")
    assert bool(await called.suppressed()) is (reason is SuppressionReason.OPERATOR)


async def test_unfollowing_suppresses_until_the_user_follows_or_asks_for_a_message(called: Called) -> None:
    away, back = xml("<Event><![CDATA[unsubscribe]]></Event>"), xml("<Event>subscribe</Event>")
    for _ in range(2):
        assert await called.post(away) == (200, "success")
    assert await called.suppressed() == {f"default/{OPENID}": SuppressionReason.UNSUBSCRIBED}
    assert await called.post(back) == (200, "success")
    assert await called.suppressed() == {}
    asked = xml("<Event>subscribe_msg_popup_event</Event>" + choices("SubscribeMsgPopupEvent", ("paid", "accept")))
    await called.post(away)
    await called.post(asked)
    assert await called.suppressed() == {}
    await called.post(away)
    await called.post(asked)
    assert await called.suppressed() != {}, "WeChat repeats an event, and the user asked before unfollowing"


LAUGHS = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><xml><Event>&b;</Event></xml>'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (LAUGHS.encode(), 400),
        (b'<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml/>', 400),
        (LAUGHS.encode("utf-16"), 400),
        (b"<xml><a>&unknown;</a></xml>", 400),
        (b"<a>" * 5_000 + b"</a>" * 5_000, 400),
        (b"<xml>" + b"<a/>" * 10_000 + b"</xml>", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b"{" * 60_000, 400),
        (b"", 400),
        (b"x" * 100_000, 413),
    ],
    ids=map(str, range(11)),
)
async def test_hostile_bodies_are_refused(called: Called, body: bytes, status: int) -> None:
    assert (await called.post(body))[0] == status


def json_event(event: str, **fields: Any) -> str:
    return json.dumps({"MsgType": "event", "FromUserName": OPENID, "Event": event, **fields})


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
async def test_texts_that_cannot_be_stored_are_no_texts(called: Called, text: str) -> None:
    agreed = {"TemplateId": text, "SubscribeStatusString": "accept"}
    created = int(time.time())
    for body, expected in (
        (json_event("TEMPLATESENDJOBFINISH", MsgID=text, Status="success"), 404),
        (json_event("subscribe_msg_popup_event", CreateTime=created, List=agreed), 200),
        (json_event("subscribe", FromUserName=text), 200),
    ):
        assert (await called.post(body))[0] == expected
    assert (await called.post(json.dumps({"Encrypt": text}), account="safe", msg_signature="0" * 40))[0] == 403


async def test_a_time_that_no_clock_shows_counts_nothing(called: Called) -> None:
    agreed = {"TemplateId": "paid", "SubscribeStatusString": "accept"}
    body = json_event("subscribe_msg_popup_event", CreateTime=999_999_999_999, List=agreed)
    assert (await called.post(body))[0] == 200
    assert await called.grants() is None


async def test_a_list_is_read_up_to_a_limit(called: Called) -> None:
    agreed = [{"TemplateId": f"t{number}", "SubscribeStatusString": "accept"} for number in range(200)]
    body = json_event("subscribe_msg_popup_event", CreateTime=int(time.time()), List=agreed)
    assert await called.post(body) == (200, "success")
    assert (await called.grants("t0"), await called.grants("t199")) == (1, None)


def test_a_published_vector() -> None:
    """From WeCom's "Encryption and decryption" (path/90968), whose scheme this is."""
    query = {
        "msg_signature": "477715d11cdb4164915debcba66cb864d751f3e6",
        "timestamp": "1409659813",
        "nonce": "1372623149",
    }
    encrypted = (
        "RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/0lWfrf0QADHHhGd3QczcdCUpj911L3vg3W/sYYvuJTs3"
        "TUUkSUXxaccAS0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06DOdnLxAUHzM6+kDZ+HMZfJYuR+LtwGc2hgf5gs"
        "ijff0ekUNXZiqATP7PF5mZxZ3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQH03v+BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUa"
        "x5wLVMNS0+rUPA3k22Ncx4XXZS9o0MBH27Bo6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/T8Z1ptDAVe0lXdQ2YoyyH2uyPIG"
        "HBZZIs2pDBS8R07+qN+E7Q=="
    )
    verify("QDG6eK", query, encrypted=encrypted, now=1409659813)
    key = aes_key("jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C")
    assert b"<Content><![CDATA[hello]]></Content>" in decrypt(key, encrypted, app_id="wx5823bf96d3bd56c7")
    with pytest.raises(SignatureInvalid):
        decrypt(key, encrypted, app_id="wx5823bf96d3bd56c8")
    with pytest.raises(SignatureInvalid):
        verify("QDG6eK", query, encrypted=encrypted)
