"""Targets of chats and pushes: what is refused names the field and says what it must be, without the value."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bellwire.errors import field_errors
from bellwire.models import TRUSTED
from bellwire.targets import Target

TARGET: TypeAdapter[Any] = TypeAdapter(Target)


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
            "feishu",
            "receive_id_type: is open_id, and the id is one of chat_id; write chat_id",
        ),
        ({"channel": "wechat", "openid": "o 1", "template_id": "t"}, "wechat.openid", "must be an openid: up to 64"),
        (
            {"channel": "wechat", "openid": "o1", "template_id": "t", "kind": "miniprogram", "page": "/a"},
            "wechat.page",
            "without a slash at its start, such as pages/order?id=7",
        ),
        ({"channel": "push", "fcm": "a b"}, "push.fcm", "must be a registration token of Firebase"),
        ({"channel": "push", "apns": "z" * 64}, "push.apns", "must be a device token of Apple, in hexadecimal"),
    ],
)
def test_a_target_that_is_refused_names_field_and_remedy(target: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TARGET.validate_python(target)
    ((named, said),) = field_errors(refused.value)
    assert named == field
    assert message in said


def test_a_stored_id_of_another_type_is_still_read() -> None:
    stored = {"channel": "feishu", "receive_id": "oc_1", "receive_id_type": "open_id"}
    assert TARGET.validate_python(stored, context=TRUSTED).receive_id_type == "open_id"


def test_json_schema_has_the_patterns() -> None:
    conversation = TARGET.json_schema()["$defs"]["SlackTarget"]["properties"]["conversation"]
    assert {"type": "string", "pattern": "^[A-Z0-9]{2,32}$"} in conversation["anyOf"]
