"""Example: the tenants, subscriptions, events, scripts and expected results of the demo, read from examples/demo."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from bellwire.deliveries import Counts
from bellwire.events import Event
from bellwire.models import StrictInput
from bellwire.registry import Registry
from bellwire.subscriptions import Subscription
from bellwire.targets import WebhookTarget
from starter.checkout import CHECKOUT
from starter.cli.input.documents import read_items
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.web_push import Browser, FakePushService, vapid_key
from starter.local.receivers.providers.wechat import FakeWechat
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.operations.delivery.publishing import read_events

FOLDER = CHECKOUT / "examples" / "demo"

#: The host in webhook URLs of the example; the demo's own receiver replaces it.
WEBHOOK_HOST = "https://hooks.example"
#: The same of push subscriptions.
PUSH_HOST = "https://push.example"
#: The private key and the secret of the push subscription in the example: those of RFC 8291, Appendix A.
BROWSER_KEYS = ("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94", "BTBZMqHH6r4Tts7J_aSIgg")


class ExpectedText(StrictInput):
    """A mail, an SMS, a push or a message by chat or WeChat, with these words in its title or text."""

    to: str
    contains: str


class ExpectedWebhook(StrictInput):
    """The requests that delivered an event to a path, by the statuses of their responses."""

    path: str
    event: str
    responses: tuple[int, ...]


class Expected(StrictInput):
    """What must be true once all events are settled."""

    #: Ids of events that are published twice: the second time must start nothing.
    duplicates: tuple[str, ...] = ()
    #: How the deliveries of each event must have settled, by the event's id.
    counts: dict[str, Counts]
    #: Subscriptions that Bellwire must have disabled.
    disabled: tuple[str, ...] = ()
    mails: tuple[ExpectedText, ...] = ()
    sms: tuple[ExpectedText, ...] = ()
    webhooks: tuple[ExpectedWebhook, ...] = ()
    pushes: tuple[ExpectedText, ...] = ()
    chats: tuple[ExpectedText, ...] = ()
    wechat: tuple[ExpectedText, ...] = ()
    #: What providers must have reported back in the end, by subscription.
    final: dict[str, str] = Field(default_factory=dict)
    #: Ids of the events that the demo's handler is called for.
    handled: tuple[str, ...] = ()


class Scripts(StrictInput):
    """How receivers refuse before they accept: statuses by path, SMTP replies by address."""

    webhooks: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    mail: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """The receivers of the demo, all on this machine."""

    mailbox: Mailbox
    twilio: FakeTwilio
    hooks: WebhookReceiver
    pushes: FakePushService
    slack: FakeSlack
    wechat: FakeWechat
    browser: Browser = field(default_factory=lambda: Browser(*BROWSER_KEYS))

    def settings(self, folder: Path) -> dict[str, str]:
        """The BELLWIRE_* variables for these receivers. The file of accounts is written into `folder`."""
        accounts = folder / "accounts.json"
        secret = "BELLWIRE_ACCOUNT_SECRETS__"  # noqa: S105 - the prefix of variables
        slack = {"token": f"{secret}SLACK", "url": self.slack.api}
        vapid = {"private_key": f"{secret}VAPID", "subject": "mailto:push@shop.example"}
        wechat = {
            "app_id": self.wechat.app_id,
            "secret": f"{secret}WECHAT",
            "url": self.wechat.url,
            "callback_token": f"{secret}WECHAT_TOKEN",
            "aes_key": f"{secret}WECHAT_AES",
        }
        sections = {"slack": slack, "vapid": vapid, "wechat": wechat}
        accounts.write_text(json.dumps({name: {"default": account} for name, account in sections.items()}))
        return {
            "BELLWIRE_ACCOUNTS": str(accounts),
            f"{secret}SLACK": self.slack.token,
            f"{secret}VAPID": vapid_key(),
            f"{secret}WECHAT": self.wechat.secret,
            f"{secret}WECHAT_TOKEN": self.wechat.callbacks.token,
            f"{secret}WECHAT_AES": self.wechat.callbacks.aes_key,
            "BELLWIRE_PUSH_HOSTS": "127.0.0.1",
            "BELLWIRE_SMTP_HOST": self.mailbox.host,
            "BELLWIRE_SMTP_PORT": str(self.mailbox.port),
            "BELLWIRE_TWILIO_URL": self.twilio.url,
            "BELLWIRE_TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "BELLWIRE_TWILIO_AUTH_TOKEN": self.twilio.auth_token,
            "BELLWIRE_TWILIO_SENDER": "+14155550100",
        }

    def follow(self, scripts: Scripts, *, gateway: str) -> None:
        """Refuse as the scripts say, and report back to this gateway."""
        self.wechat.callbacks.url, self.wechat.callbacks.safe_mode = f"{gateway}/callbacks/wechat/default", True
        for path, statuses in scripts.webhooks.items():
            self.hooks.script(path, *statuses)
        for address, replies in scripts.mail.items():
            self.mailbox.script(address, *replies)


@dataclass(frozen=True, kw_only=True)
class Example:
    """The contents of the folder."""

    #: Names of tenants by their id.
    tenants: Mapping[str, str]
    subscriptions: tuple[Subscription, ...]
    #: In the order of publication; an event that occurs twice is published twice.
    events: tuple[Event, ...]
    scripts: Scripts
    expected: Expected
    folder: Path = field(default=FOLDER)

    @classmethod
    def read(cls, folder: Path, *, webhook_url: str, push_url: str) -> Self:
        """The example, with its webhooks and pushes sent to these URLs. Raises InputInvalid, ValidationError."""
        tenants: list[dict[str, str]] = _json(folder / "tenants.json")
        text = (folder / "subscriptions.json").read_text()
        text = text.replace(WEBHOOK_HOST, webhook_url).replace(f"{PUSH_HOST}/", push_url)
        return cls(
            tenants={tenant["id"]: tenant["name"] for tenant in tenants},
            subscriptions=tuple(Subscription.model_validate(item) for item in json.loads(text)),
            events=tuple(read_events(read_items(str(folder / "events.json")))),
            scripts=Scripts.model_validate(_json(folder / "receivers.json")),
            expected=Expected.model_validate(_json(folder / "expected.json")),
            folder=folder,
        )

    @property
    def distinct_events(self) -> tuple[Event, ...]:
        """Each event once."""
        return tuple({event.key: event for event in self.events}.values())

    async def subscribe(self, registry: Registry, hooks: WebhookReceiver) -> None:
        """Store the subscriptions, and give their secrets to the receiver, which verifies signatures."""
        for subscription in self.subscriptions:
            secret = await registry.subscriptions.create(subscription)
            if secret and isinstance(subscription.target, WebhookTarget):
                hooks.expect(subscription.target.url.removeprefix(hooks.url("")), secret.get_secret_value())


def _json(file: Path) -> Any:
    return json.loads(file.read_text())
