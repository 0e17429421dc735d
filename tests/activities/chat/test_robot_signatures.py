"""Signatures of calls of robots, against libraries that others wrote."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from dingtalkchatbot.chatbot import DingtalkChatbot
from hypothesis import example, given
from hypothesis import strategies as st

from activities.chat import dingtalk, feishu

URL = "https://oapi.dingtalk.com/robot/send?access_token=t"


@given(st.text(min_size=1, max_size=80), st.integers(0, 4_102_444_800_000))
@example("SEC1", 1_700_000_000_123)
@example("SEC密钥 é+~*/=&🔑\n", 1_764_442_800_999)
def test_the_signature_of_a_robot_of_dingtalk_is_that_of_dingtalkchatbot(secret: str, timestamp: int) -> None:
    robot = DingtalkChatbot(URL)
    robot.secret, robot.start_time = secret, timestamp / 1000
    robot.update_webhook()
    signed = f"{URL}&timestamp={timestamp}&sign={dingtalk.sign(secret, timestamp)}"
    assert parse_qs(urlsplit(signed).query) == parse_qs(urlsplit(robot.webhook).query)
    assert signed == robot.webhook


def test_the_signature_of_a_bot_of_feishu_is_that_of_onepush() -> None:
    document = json.loads(Path(__file__).with_name("feishu_vectors.json").read_text())
    assert document["made_by"] == "onepush 1.10.0"
    assert len(document["vectors"]) == 40
    for vector in document["vectors"]:
        assert feishu.sign(vector["secret"], vector["timestamp"]) == vector["sign"], vector
