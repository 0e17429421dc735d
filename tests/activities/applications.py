"""Doubles of the further ways to send over some channels: by the operator's accounts with other providers, and to devices.

A new one is registered in APPLICATIONS. Together with the doubles of channels they are EVERY_DOUBLE.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.providers import aliyun_sms, tencent_sms
from starter.local.receivers.providers.aliyun_sms import FakeAliyunSms
from starter.local.receivers.providers.apns import ApnsAnswer, FakeApns
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.fcm import FakeFcm, refusal
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.tencent_sms import FakeTencentSms
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.doubles import CANARY, DOUBLES, AccountDouble, Double, by_account, said
from tests.activities.push.channels import KEYS, pem


class AppleDouble(AccountDouble):
    """Apple's devices; what identifies a push is its collapse id."""

    def defer(self, number: int) -> None:
        self.fake.script(ApnsAnswer(status=503, reason="ServiceUnavailable"), device=self.address(number))

    def reject(self, number: int) -> None:
        gone_since = int(time.time() * 1000) + 60_000
        self.fake.script(
            ApnsAnswer(status=410, reason="Unregistered", timestamp=gone_since), device=self.address(number)
        )

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        path = f"/3/device/{self.address(number)}"
        return [
            each["headers"]["apns-collapse-id"] for each in list(self.fake.accepted) if each["headers"][":path"] == path
        ]


class FcmDouble(AccountDouble):
    """Phones; what identifies a push is the tag of its notice."""

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [message["android"]["notification"]["tag"] for message in self.fake.contents(self.address(number))]


@dataclass
class MainlandDouble(Double):
    """People in mainland China, to whom one provider sends; the others of the file could send to them, too."""

    fake: FakeAliyunSms | FakeTencentSms
    folder: Path
    channel = Channel.SMS
    exactly_once = True
    #: Seconds after which an SMS that is not listed counts as not sent.
    absent_after: float = 0.0

    @property
    def settings(self) -> Mapping[str, Any]:
        file, name = self.folder / "sms.json", "aliyun" if isinstance(self.fake, FakeAliyunSms) else "tencent"
        common = {"url": self.fake.url, "sign_name": CANARY, "absent_after": self.absent_after}
        account: dict[str, Any]
        if isinstance(self.fake, FakeAliyunSms):
            account = {"access_key_id": self.fake.access_key_id, "access_key_secret": "BELLWIRE_SMS_SECRETS__ALIYUN"}
            account |= {"numbers": ["+86139"], "templates": {"default": {"template": "1", "params": {"a": "{text}"}}}}
        else:
            account = {"secret_id": self.fake.secret_id, "secret_key": "BELLWIRE_SMS_SECRETS__TENCENT"}
            account |= {"app_id": self.fake.app_id, "templates": {"default": {"template": "1", "params": ["{text}"]}}}
        file.write_text(json.dumps({name: [{**account, **common}]}))
        return {"sms_providers": file, "sms_secrets": {name: self.fake.secret}, "sms_reconcile_after": 0}

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": "sms", "to": f"+86{self._national(number)}"}

    def private(self, number: int) -> Sequence[str]:
        return [self._national(number), self.fake.secret]

    def defer(self, number: int) -> None:
        self._script(number, "isv.SIGN_STATE_ILLEGAL", "LimitExceeded.DeliveryFrequencyLimit")

    def reject(self, number: int) -> None:
        self._script(number, "isv.MOBILE_NUMBER_ILLEGAL", "InvalidParameterValue.IncorrectPhoneNumber")

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [each.key for each in list(self.fake.accepted) if each.recipient.endswith(self._national(number))]

    def _script(self, number: int, of_aliyun: str, of_tencent: str) -> None:
        if isinstance(self.fake, FakeAliyunSms):
            self.fake.script(aliyun_sms.refused(of_aliyun, CANARY), recipient=self._national(number))
        else:
            self.fake.script(tencent_sms.refused(of_tencent), recipient=f"+86{self._national(number)}")

    def _national(self, number: int) -> str:
        return f"{'139' if isinstance(self.fake, FakeAliyunSms) else '138'}7735{1000 + number}"


def _mainland(
    fake: Callable[[], FakeAliyunSms | FakeTencentSms],
) -> Callable[[], AbstractAsyncContextManager[Double]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Double]:
        with TemporaryDirectory() as folder:
            async with fake() as server:
                yield MainlandDouble(server, Path(folder))

    return opened


def _dingtalk() -> FakeDingtalk:
    fake = FakeDingtalk()
    fake.read = True
    return fake


#: By name.
APPLICATIONS: Mapping[str, Callable[[], AbstractAsyncContextManager[Double]]] = {
    "aliyun": _mainland(FakeAliyunSms),
    "tencent": _mainland(FakeTencentSms),
    "apns": by_account(
        "apns",
        FakeApns,
        lambda fake: (
            {
                "team_id": "TEAM123456",
                "key_id": "KEY1234567",
                "topic": "example.shop",
                "production_url": fake.url,
                "sandbox_url": fake.url,
            },
            "private_key",
            pem(KEYS.apple),
        ),
        "apns",
        Answer(),
        Answer(),
        channel=Channel.PUSH,
        address=lambda number: f"{0xCA7A27 + number:064x}",
        kind=AppleDouble,
    ),
    "dingtalk-notice": by_account(
        "dingtalk",
        _dingtalk,
        lambda fake: (
            {"app_key": fake.app_key, "agent_id": fake.agent_id, "url": fake.url},
            "app_secret",
            fake.app_secret,
        ),
        "user",
        said("errcode", -1),
        said("errcode", 33012),
    ),
    "fcm": by_account(
        "fcm",
        lambda: FakeFcm(KEYS.google_public),
        lambda fake: (
            {
                "project_id": fake.project_id,
                "client_email": fake.client_email,
                "url": fake.url,
                "token_url": fake.token_url,
            },
            "private_key",
            pem(KEYS.google),
        ),
        "fcm",
        Answer(status=503, body=refusal(503, "UNAVAILABLE")),
        Answer(status=404, body=refusal(404, "UNREGISTERED")),
        channel=Channel.PUSH,
        kind=FcmDouble,
    ),
    "feishu-application": by_account(
        "feishu",
        FakeFeishu,
        lambda fake: ({"app_id": fake.app_id, "url": fake.url}, "app_secret", fake.app_secret),
        "receive_id",
        Answer(status=500, body=CANARY),
        said("code", 230013),
    ),
    "slack-bot": by_account(
        "slack",
        FakeSlack,
        lambda fake: ({"url": fake.api}, "token", fake.token),
        "conversation",
        Answer(status=500, body=CANARY),
        Answer(body={"ok": False, "error": "channel_not_found", "note": CANARY}),
        address=lambda number: f"C0CANARY7F{number}",
    ),
    "wecom-application": by_account(
        "wecom",
        FakeWecom,
        lambda fake: ({"corp_id": fake.corp_id, "agent_id": fake.agent_id, "url": fake.url}, "secret", fake.secret),
        "user",
        said("errcode", -1),
        said("errcode", 60111),
    ),
}
#: Of these, no first attempt is delivered: what became of it is asked for half a minute later.
ASKED_FOR = frozenset({"dingtalk-notice"})
#: All by name.
EVERY_DOUBLE = {**{str(channel): opened for channel, opened in DOUBLES.items()}, **APPLICATIONS}


def variables_of(doubles: Iterable[Double], folder: Path) -> dict[str, str]:
    """The BELLWIRE_* variables of a worker that reaches all of them. Files of one kind are merged into one in the folder."""
    found = dict[str, str]()
    files: dict[str, dict[str, Any]] = {"accounts": {}, "sms_providers": {}}
    for double in doubles:
        for name, value in double.settings.items():
            if name in files:
                files[name] |= json.loads(value.read_text())
            elif isinstance(value, Mapping):
                found |= {f"BELLWIRE_{name.upper()}__{key.upper()}": secret for key, secret in value.items()}
            else:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                found[f"BELLWIRE_{name.upper()}"] = text
    if of_sms := files["sms_providers"]:
        of_sms["priority"] = [*of_sms, "twilio"]
    for name, merged in files.items():
        if merged or name == "accounts":
            (folder / f"{name}.json").write_text(json.dumps(merged))
            found[f"BELLWIRE_{name.upper()}"] = str(folder / f"{name}.json")
    return found
