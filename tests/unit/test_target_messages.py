"""Targets of chats and pushes: what is refused names the field and says what it must be, without the value."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bellwire.errors import field_errors
from bellwire.models import TRUSTED
from bellwire.targets import Target

TARGET: TypeAdapter[Any] = TypeAdapter(Target)
#: Stands for a credential.
PRIVATE = "pr1vate"
WECOM, DINGTALK = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send", "https://oapi.dingtalk.com/robot/send"
ENDPOINT = f"https://fcm.googleapis.com/fcm/send/{PRIVATE}"
POINT, AUTH = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU", "A" * 22
OTHER_PROVIDER = "is a URL of the channel slack; give one of "
INCOMPLETE = "is not the whole URL of "


def hook(channel: str, url: str, field: str = "webhook", **others: Any) -> dict[str, Any]:
    return {"channel": channel, field: url, **others}


def browser(endpoint: str = ENDPOINT, p256dh: str = POINT, auth: str = AUTH, **others: Any) -> dict[str, Any]:
    return {"channel": "push", "web": {"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}}, **others}


@pytest.mark.parametrize(
    ("target", "field", "message"),
    [
        (
            {"channel": "slack", "conversation": "#general"},
            "slack.conversation",
            "such as C0123456789, and not its name",
        ),
        ({"channel": "telegram", "chat_id": "@x"}, "telegram.chat_id", "must be the id of a chat, such as -100"),
        ({"channel": "telegram", "chat_id": "-1001\n"}, "telegram.chat_id", "must be the id of a chat"),
        ({"channel": "wecom", "user": "li si"}, "wecom.user", "must be one id of up to 64 characters without spaces"),
        ({"channel": "dingtalk", "user": "a,b"}, "dingtalk.user", "must be one id of up to 64 characters"),
        ({"channel": "feishu", "receive_id": "ou 1"}, "feishu.receive_id", "must be one id of up to 254 characters"),
        (
            {"channel": "feishu", "receive_id": "oc_1"},
            "feishu.receive_id_type",
            "is open_id, and the id is one of chat_id; write chat_id",
        ),
        ({"channel": "wechat", "openid": "o 1", "template_id": "t"}, "wechat.openid", "must be an openid: up to 64"),
        (
            {"channel": "wechat", "openid": "o1", "template_id": "t", "kind": "miniprogram", "page": "/a"},
            "wechat.page",
            "without a slash at its start, such as pages/order?id=7",
        ),
        ({"channel": "push", "fcm": "a b"}, "push.fcm", "must be a registration token of Firebase"),
        ({"channel": "push", "apns": "z" * 64}, "push.apns", "must be a device token of Apple, in hexadecimal"),
        ({"channel": "push", "apns": "a" * 65}, "push.apns", "an even number of at least 64 digits"),
        ({"channel": "push", "fcm": ""}, "push.fcm", "must be a registration token of Firebase"),
        (
            {"channel": "push", "fcm": "a", "environment": "sandbox"},
            "push.environment",
            "belongs to apns; leave it out",
        ),
        (
            {"channel": "push", "fcm": "a", "registered_at": "2999-01-01"},
            "push.registered_at",
            "is in the future; write when",
        ),
        ({"channel": "push", "fcm": "a", "registered_at": "soon"}, "push.registered_at", "must be a time, such as 20"),
        (browser(p256dh=POINT[:-2]), "push.web.keys.p256dh", "is not a P-256 key: 65 bytes in base64url"),
        (browser(p256dh="BA" + "A" * 85), "push.web.keys.p256dh", "is not a P-256 key"),
        (browser(auth="A" * 21 + "!"), "push.web.keys.auth", "16 bytes in base64url, as PushSubscription.toJSON()"),
        (browser(ENDPOINT.replace("https", "http")), "push.web.endpoint", "begins with http, and push services take"),
        (browser("https://fcm.googleapis.com"), "push.web.endpoint", "copy what PushSubscription.toJSON() returns"),
        (browser(f"https://a.example:{PRIVATE}/1"), "push.web.endpoint", "is not a valid URL"),
        (hook("slack", f"https://hooks.slack.com/{PRIVATE}"), "slack.webhook", INCOMPLETE + "an incoming webhook"),
        (hook("slack", f"https://app.slack.com/services/T0/B0/{PRIVATE}"), "slack.webhook", INCOMPLETE),
        (
            hook("slack", f"https://hooks.slack.com/services/T0/B0/{PRIVATE} "),
            "slack.webhook",
            "begins or ends with white space",
        ),
        (hook("slack", f"http://hooks.slack.com/services/T0/B0/{PRIVATE}"), "slack.webhook", "write https"),
        (hook("slack", PRIVATE), "slack.webhook", "such as https://hooks.slack.com/services/T0/B0/x"),
        (hook("slack", 7), "slack.webhook", "must be a string; write the number in quotes"),  # type: ignore[arg-type]
        (
            hook("wecom", WECOM),
            "wecom.webhook",
            f"{INCOMPLETE}a group's bot; copy it again: it looks like {WECOM}?key=…",
        ),
        (hook("wecom", f"{WECOM}?key="), "wecom.webhook", INCOMPLETE),
        (hook("wecom", f"https://hooks.slack.com/services/T0/B0/{PRIVATE}"), "wecom.webhook", OTHER_PROVIDER + "wecom"),
        (hook("dingtalk", DINGTALK), "dingtalk.webhook", f"it looks like {DINGTALK}?access_token=…"),
        (
            hook("dingtalk", f"{DINGTALK}?access_token={PRIVATE}", secret=""),
            "dingtalk.secret",
            "leave it out if it has",
        ),
        (
            hook("dingtalk", f"{DINGTALK}?access_token={PRIVATE}", secret=f" {PRIVATE}"),
            "dingtalk.secret",
            "without spaces",
        ),
        (
            {"channel": "dingtalk", "user": "a", "secret": PRIVATE},
            "dingtalk.secret",
            "belongs to a webhook; leave it out",
        ),
        ({"channel": "dingtalk", "user": "@ALL"}, "dingtalk.user", "is everybody whom the application may write to"),
        ({"channel": "wecom", "user": "@all"}, "wecom.user", "is everybody whom the application may write to"),
        (hook("feishu", f"https://open.feishu.cn/open-apis/bot/hook/{PRIVATE}"), "feishu.webhook", INCOMPLETE),
        (hook("feishu", "https://open.larksuite.com/open-apis/bot/v2/hook/"), "feishu.webhook", INCOMPLETE),
        ({"channel": "feishu", "receive_id": "ann@example.com"}, "feishu.receive_id_type", "write email"),
        (
            {"channel": "feishu", "receive_id": "ann", "receive_id_type": "email"},
            "feishu.receive_id",
            "is not an email address",
        ),
        (
            hook("teams", "https://prod-1.logic.azure.com/workflows/1", "url"),
            "teams.url",
            INCOMPLETE + "a workflow's trigger",
        ),
        (hook("teams", f"https://a.webhook.office.com/{PRIVATE}", "url"), "teams.url", "create a workflow in Teams"),
        ({"channel": "telegram", "chat_id": f"123456:{PRIVATE}"}, "telegram.chat_id", "must be the id of a chat"),
        ({"channel": "telegram", "chat_id": -1001}, "telegram.chat_id", "must be a string; write the number in quotes"),
        (
            {"channel": "wechat", "openid": "o1", "template_id": "t", "url": "https://a b"},
            "wechat.url",
            "without spaces",
        ),
        (
            {"channel": "wechat", "openid": "o1", "template_id": "t", "url": "https://:1"},
            "wechat.url",
            "URL with a host",
        ),
        (
            {
                "channel": "wechat",
                "openid": "o1",
                "template_id": "t",
                "kind": "miniprogram",
                "page": "https://a.example",
            },
            "wechat.page",
            "is a URL; write a page of the mini program",
        ),
        ({"channel": "sms", "to": "008613800138000"}, "sms.to", "write + and the country code"),
        ({"channel": "sms", "to": "+86 138 0013 8000"}, "sms.to", "digits only"),
        ({"channel": "sms", "to": "\uff0b8613800138000"}, "sms.to", "digits only"),
        ({"channel": "Slakc"}, "", "has an unknown 'channel'"),
        ({"channel": "Slakc"}, "", "; did you mean slack?"),
    ],
)
def test_a_target_that_is_refused_names_field_and_remedy(target: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TARGET.validate_python(target)
    ((named, said),) = field_errors(refused.value)
    assert named == field
    assert message in said
    assert PRIVATE not in said


@pytest.mark.parametrize(
    "target",
    [
        browser(),
        hook("slack", "https://hooks.slack.com/services/T0/B0/x"),
        hook("wecom", f"{WECOM}?key=x"),
        hook("dingtalk", f"{DINGTALK}?access_token=x", secret="SECx"),
        hook("feishu", "https://open.larksuite.com/open-apis/bot/v2/hook/x"),
        hook("feishu", "https://proxy.example/lark"),
        hook(
            "teams",
            "https://prod-1.westeurope.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sig=x",
            "url",
        ),
        hook(
            "teams",
            "https://default1.a.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/1?sig=x",
            "url",
        ),
    ],
)
def test_targets_as_providers_give_them_are_accepted(target: dict[str, Any]) -> None:
    assert TARGET.validate_python(target).channel == target["channel"]


def test_a_stored_target_that_would_be_refused_now_is_still_read() -> None:
    stored = {"channel": "feishu", "receive_id": "oc_1", "receive_id_type": "open_id"}
    assert TARGET.validate_python(stored, context=TRUSTED).receive_id_type == "open_id"
    for accepted_before in (hook("wecom", WECOM), browser(p256dh="A" * 87), {"channel": "push", "apns": "a" * 65}):
        assert TARGET.validate_python(accepted_before, context=TRUSTED).channel == accepted_before["channel"]


def test_json_schema_has_the_patterns() -> None:
    conversation = TARGET.json_schema()["$defs"]["SlackTarget"]["properties"]["conversation"]
    assert {"type": "string", "pattern": "^[A-Z0-9]{2,32}$"} in conversation["anyOf"]
