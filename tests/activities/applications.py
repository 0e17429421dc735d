"""Doubles of the further ways to send over some channels: by applications and bots of the operator's accounts, and to devices.

A new one is registered in APPLICATIONS. Together with the doubles of channels they are EVERY_DOUBLE.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.providers.apns import ApnsAnswer, FakeApns
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.fcm import FakeFcm, refusal
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
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


def _dingtalk() -> FakeDingtalk:
    fake = FakeDingtalk()
    fake.read = True
    return fake


#: By name.
APPLICATIONS: Mapping[str, Callable[[], AbstractAsyncContextManager[Double]]] = {
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
    """The BELLWIRE_* variables of a worker that reaches all of them. Their accounts are merged into one file in the folder."""
    found, accounts = dict[str, str](), dict[str, Any]()
    for double in doubles:
        for name, value in double.settings.items():
            if name == "accounts":
                accounts |= json.loads(value.read_text())
            elif name == "account_secrets":
                found |= {f"BELLWIRE_ACCOUNT_SECRETS__{key.upper()}": secret for key, secret in value.items()}
            else:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                found[f"BELLWIRE_{name.upper()}"] = text
    file = folder / "accounts.json"
    file.write_text(json.dumps(accounts))
    return {**found, "BELLWIRE_ACCOUNTS": str(file)}
