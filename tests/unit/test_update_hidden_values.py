"""Private values of targets in updates: stars stand for the stored value, and are never stored themselves."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bellwire.models import TRUSTED
from bellwire.subscriptions import Subscription
from bellwire.targets.stored_secret import HIDDEN
from tests.factories import subscription
from tests.unit.test_cli import errors_of, output_of, registry_url
from tests.unit.test_update_command import UPDATE, file_of, stored, within

__all__ = ["registry_url"]

KEYS = {
    "p256dh": "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM",
    "auth": "tBHItJI5svbpez7KI4CCXg",
}
PRIVATE: dict[str, dict[str, Any]] = {
    "slack": {"channel": "slack", "webhook": "https://hooks.slack.com/services/T0/B0/x"},
    "teams": {"channel": "teams", "url": "https://prod-1.logic.azure.com/workflows/1?sig=x"},
    "wecom": {"channel": "wecom", "webhook": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x"},
    "dingtalk": {
        "channel": "dingtalk",
        "webhook": "https://oapi.dingtalk.com/robot/send?access_token=x",
        "secret": "SEC1",
    },
    "feishu": {"channel": "feishu", "webhook": "https://open.feishu.cn/open-apis/bot/v2/hook/x", "secret": "s"},
    "push": {"channel": "push", "web": {"endpoint": "https://fcm.googleapis.com/fcm/send/x", "keys": KEYS}},
}
every_target = pytest.mark.parametrize("target", PRIVATE.values(), ids=PRIVATE)


@pytest.fixture
def url(registry_url: str, target: dict[str, Any]) -> str:
    """A registry with a subscription of this target."""
    within(registry_url, lambda registry: registry.subscriptions.create(subscription(target, id="one")))
    return registry_url


def target_of(url: str) -> Any:
    return stored(url, "one").subscription.model_dump(mode="json", by_alias=True, context=TRUSTED)["target"]


@every_target
def test_what_show_prints_can_be_given_back(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = target_of(url)
    shown = output_of(["subscriptions", "show", "one"], capsys)
    assert HIDDEN in str(shown["target"])
    shown["locale"] = "zh"
    output_of([*UPDATE, "one", "--file", file_of(tmp_path, shown)], capsys)
    assert target_of(url) == before
    assert stored(url, "one").subscription.locale == "zh"


@every_target
def test_stars_are_not_taken_for_the_value(target: dict[str, Any]) -> None:
    shown = subscription(target).model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError, match="has stars instead of the value; give the value itself"):
        Subscription.model_validate(shown)


@pytest.mark.parametrize("target", [PRIVATE["slack"]], ids=["slack"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"headers": {"x-key": HIDDEN}}, "target.headers: is hidden by stars, and no value is stored"),
        ({"secret": HIDDEN}, "target.secret: is hidden by stars, and no value is stored"),
    ],
)
def test_stars_without_a_stored_value_are_refused(
    url: str, change: object, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of([*UPDATE, "one", "--file", file_of(tmp_path, {"target": change})], capsys)
    assert len(lines) == 1
    assert named in lines[0]
