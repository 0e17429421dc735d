"""Doubles: for each channel a receiver on this machine that can refuse, so that the same tests run against every channel.

A new channel registers one in DOUBLES. Address `number` is a receiver of its own.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer, FakeProvider
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.teams import FakeTeams
from starter.local.receivers.providers.telegram import FakeTelegram
from starter.local.receivers.providers.web_push import Browser, FakePushService
from starter.local.receivers.providers.wechat import FakeWechat
from starter.local.receivers.providers.wecom import FakeWecom
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.activities.push.channels import raw

#: Stands for private data: in addresses, credentials, events, and in what receivers respond.
CANARY = "canary7f3a"
#: Settings that allow requests to this machine.
PRIVATE_HTTP = {"webhook_allow_http": True, "webhook_ports": "*", "egress_allow": "127.0.0.0/8"}


#: Where receivers keep what they accepted.
_ACCEPTED = ("accepted", "mails", "messages", "received")


class Double(ABC):
    """A receiver of one channel."""

    channel: ClassVar[Channel]
    #: Whether it can refuse: False if delivering needs the registry only.
    refuses: ClassVar[bool] = True
    #: Whether a delivery never arrives twice, even if an attempt at it is interrupted.
    exactly_once: ClassVar[bool] = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """By which a worker reaches it."""
        return {}

    @abstractmethod
    def target(self, number: int) -> dict[str, Any]: ...

    @abstractmethod
    def private(self, number: int) -> Sequence[str]:
        """Texts of the target that no reason and no log line may have."""

    def expect(self, number: int, secret: str) -> None:  # noqa: B027 - most channels do not sign
        """Verify what is signed with this secret."""

    def defer(self, number: int) -> None:
        """Refuse the next attempt for now, in words that have the canary. Not with an answer that throttles, such as 429."""
        raise NotImplementedError

    def reject(self, number: int) -> None:
        """Refuse the next attempt for good, in words that have the canary."""
        raise NotImplementedError

    @abstractmethod
    async def arrived(self, number: int, registry: Registry) -> list[str]:
        """What was accepted, in order: by what the receiver deduplicates, or its text where the channel has nothing for that."""

    def slow_down(self, seconds: float) -> None:
        """Take so long to respond to what was accepted."""
        for each in vars(self).values():
            if hasattr(each, "latency"):
                each.latency = seconds

    @property
    def accepted(self) -> int:
        """How much was accepted so far, by all addresses."""
        return sum(len(getattr(each, name, ())) for each in vars(self).values() for name in _ACCEPTED)


@dataclass
class EmailDouble(Double):
    mailbox: Mailbox
    channel = Channel.EMAIL

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"smtp_host": self.mailbox.host, "smtp_port": self.mailbox.port, "smtp_security": "none"}

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": "email", "to": f"{CANARY}-{number}@example.com"}

    def private(self, number: int) -> Sequence[str]:
        return [f"{CANARY}-{number}@example.com"]

    def defer(self, number: int) -> None:
        self.mailbox.script(f"{CANARY}-{number}@example.com", f"451 4.7.1 try later, {CANARY}")

    def reject(self, number: int) -> None:
        self.mailbox.script(f"{CANARY}-{number}@example.com", f"550 5.1.1 no such user {CANARY}")

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [mail.message_id for mail in self.mailbox.mails if mail.to == f"{CANARY}-{number}@example.com"]


@dataclass
class SmsDouble(Double):
    twilio: FakeTwilio
    channel = Channel.SMS
    exactly_once = True

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "twilio_url": self.twilio.url,
            "twilio_account_sid": self.twilio.account_sid,
            "twilio_auth_token": self.twilio.auth_token,
            "twilio_sender": "+14155550100",
            "sms_reconcile_after": 0,
        }

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": "sms", "to": self._number(number)}

    def private(self, number: int) -> Sequence[str]:
        return [self._number(number), self._number(number)[1:]]

    def defer(self, number: int) -> None:
        self.twilio.script(self._number(number), SmsResponse(status=429, message=CANARY))

    def reject(self, number: int) -> None:
        self.twilio.script(self._number(number), SmsResponse(status=400, code=21211, message=CANARY))

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [sent.body for sent in self.twilio.messages if sent.to == self._number(number)]

    def _number(self, number: int) -> str:
        return f"+1415555{1000 + number}"


@dataclass
class WebhookDouble(Double):
    hooks: WebhookReceiver
    channel = Channel.WEBHOOK

    @property
    def settings(self) -> Mapping[str, Any]:
        return PRIVATE_HTTP

    def target(self, number: int) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {CANARY}-{number}"}
        return {"channel": "webhook", "url": self.hooks.url(self._path(number)), "headers": headers}

    def private(self, number: int) -> Sequence[str]:
        return [self._path(number), f"Bearer {CANARY}", str(self.hooks.port)]

    def expect(self, number: int, secret: str) -> None:
        self.hooks.expect(self._path(number), secret)

    def defer(self, number: int) -> None:
        self.hooks.script(
            self._path(number), WebhookResponse(status=500, body=CANARY.encode(), headers={"x-a": CANARY})
        )

    def reject(self, number: int) -> None:
        headers = {"webhook-delivery": "abort", "x-a": CANARY}
        self.hooks.script(self._path(number), WebhookResponse(status=400, body=CANARY.encode(), headers=headers))

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [
            each.headers["webhook-id"]
            for each in self.hooks.received
            if each.path == self._path(number) and each.status < 300
        ]

    def _path(self, number: int) -> str:
        return f"/{CANARY}/{number}"


@dataclass
class HookDouble(Double):
    """By the webhooks of a chat provider, each of which is a receiver of its own."""

    channel: Channel  # type: ignore[misc]
    fake: FakeProvider
    #: The URL of the hook of this name.
    url: Callable[[str], str]
    later: Answer
    never: Answer
    #: The field of the target that has the URL.
    field: str = "webhook"

    @property
    def settings(self) -> Mapping[str, Any]:
        return PRIVATE_HTTP

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": str(self.channel), self.field: self.url(self._name(number))}

    def private(self, number: int) -> Sequence[str]:
        return [self._name(number), self.fake.url]

    def defer(self, number: int) -> None:
        self.fake.script(self.later, recipient=self._name(number))

    def reject(self, number: int) -> None:
        self.fake.script(self.never, recipient=self._name(number))

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        messages = self.fake.contents(self._name(number))
        return [json.dumps({**message, "timestamp": "", "sign": ""}) for message in messages]

    def _name(self, number: int) -> str:
        return f"{CANARY}-{number}"


@dataclass
class AccountDouble(Double):
    """Users, chats or devices that an account of the operator sends to."""

    channel: Channel  # type: ignore[misc]
    #: The section of the account.
    section: str
    #: A FakeProvider or a FakeApns.
    fake: Any
    folder: Path
    #: The fields of the account, and the one that has the secret.
    account: Mapping[str, Any]
    secret_field: str
    secret: str = field(repr=False)
    #: The target's field with the address of a number, and its other fields.
    target_field: str
    address: Callable[[int], str]
    more: Mapping[str, Any]
    later: Answer
    never: Answer

    @property
    def settings(self) -> Mapping[str, Any]:
        file, name = self.folder / "accounts.json", f"{self.section}_account"
        account = {**self.account, self.secret_field: f"BELLWIRE_ACCOUNT_SECRETS__{name.upper()}"}
        file.write_text(json.dumps({self.section: {"default": account}}))
        return {"accounts": file, "account_secrets": {name: self.secret}}

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": str(self.channel), self.target_field: self.address(number), **self.more}

    def private(self, number: int) -> Sequence[str]:
        issued = self.fake.tokens.issued if isinstance(self.fake, FakeProvider) else self.fake.tokens
        secrets = [line for line in self.secret.splitlines() if not line.startswith("-----")]
        return [self.address(number), *secrets, *issued]

    def defer(self, number: int) -> None:
        self.fake.script(self.later, recipient=self.address(number))

    def reject(self, number: int) -> None:
        self.fake.script(self.never, recipient=self.address(number))

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        address = self.address(number)
        return [each.key or json.dumps(each.content) for each in list(self.fake.accepted) if each.recipient == address]


@dataclass
class PushDouble(Double):
    """Browsers that subscribed at a push service; what identifies a push is its topic."""

    service: FakePushService
    folder: Path
    channel = Channel.PUSH

    def __post_init__(self) -> None:
        self.browser = Browser()

    @property
    def settings(self) -> Mapping[str, Any]:
        file = self.folder / "accounts.json"
        vapid = {"private_key": "BELLWIRE_ACCOUNT_SECRETS__VAPID", "subject": "mailto:push@shop.example.com"}
        file.write_text(json.dumps({"vapid": {"default": vapid}}))
        secrets = {"vapid": raw(self.browser.key)}
        return {**PRIVATE_HTTP, "accounts": file, "account_secrets": secrets, "push_hosts": "127.0.0.1"}

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": "push", "web": self.browser.subscription(self.service.endpoint(self._name(number)))}

    def private(self, number: int) -> Sequence[str]:
        return [self._name(number), self.service.url]

    def defer(self, number: int) -> None:
        self.service.script(Answer(status=500, body=CANARY), recipient=self._name(number))

    def reject(self, number: int) -> None:
        self.service.script(Answer(status=410, body=CANARY), recipient=self._name(number))

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        return [each.key for each in self.service.accepted if each.recipient == self._name(number)]

    def _name(self, number: int) -> str:
        return f"{CANARY}-{number}"


class PollDouble(Double):
    """An app that reads the feeds of its subscriptions, which are named after their numbers."""

    channel = Channel.POLL
    refuses = False
    exactly_once = True

    def target(self, number: int) -> dict[str, Any]:
        return {"channel": "poll"}

    def private(self, number: int) -> Sequence[str]:
        return []

    async def arrived(self, number: int, registry: Registry) -> list[str]:
        page = await registry.feeds.read(name_of(number), after=0, limit=100)
        return [entry.delivery_id for entry in page.entries]


def name_of(number: int) -> str:
    """The id of the subscription of an address."""
    return f"sub-{number}"


@asynccontextmanager
async def _email() -> AsyncIterator[Double]:
    async with Mailbox() as mailbox:
        yield EmailDouble(mailbox)


@asynccontextmanager
async def _sms() -> AsyncIterator[Double]:
    async with FakeTwilio() as twilio:
        yield SmsDouble(twilio)


@asynccontextmanager
async def _webhook() -> AsyncIterator[Double]:
    async with WebhookReceiver() as hooks:
        yield WebhookDouble(hooks)


def _hooks(
    channel: Channel, fake: type[FakeProvider], method: str, later: Answer, never: Answer, field: str = "webhook"
) -> Callable[[], AbstractAsyncContextManager[Double]]:
    """The double of a chat provider, whose URLs the method of its fake makes."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Double]:
        async with fake() as server:
            yield HookDouble(channel, server, getattr(server, method), later, never, field)

    return opened


def numbered(number: int) -> str:
    return f"{CANARY}-{number}"


def by_account(
    section: str,
    fake: Callable[[], Any],
    account: Callable[[Any], tuple[Mapping[str, Any], str, str]],
    target_field: str,
    later: Answer,
    never: Answer,
    *,
    channel: Channel | None = None,
    address: Callable[[int], str] = numbered,
    more: Mapping[str, Any] | None = None,
    kind: type[AccountDouble] = AccountDouble,
) -> Callable[[], AbstractAsyncContextManager[Double]]:
    """The double of what an account sends to.

    `account` gives the fields of the account, the field that has the secret, and the secret. `later` and `never` are how the
    fake defers and rejects.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[Double]:
        with TemporaryDirectory() as folder:
            async with fake() as server:
                fields, secret_field, secret = account(server)
                yield kind(
                    channel=channel or Channel(section),
                    section=section,
                    fake=server,
                    folder=Path(folder),
                    account=fields,
                    secret_field=secret_field,
                    secret=secret,
                    target_field=target_field,
                    address=address,
                    more=more or {},
                    later=later,
                    never=never,
                )

    return opened


@asynccontextmanager
async def _push() -> AsyncIterator[Double]:
    with TemporaryDirectory() as folder:
        async with FakePushService() as service:
            yield PushDouble(service, Path(folder))


@asynccontextmanager
async def _poll() -> AsyncIterator[Double]:
    yield PollDouble()


def said(name: str, code: int) -> Answer:
    """A refusal that says a code in the field of this name."""
    return Answer(body={name: code, "errmsg": CANARY, "msg": CANARY})


def _telegram_says(code: int) -> Answer:
    return Answer(status=code, body={"ok": False, "error_code": code, "description": CANARY})


#: The double of each channel that a worker opens.
DOUBLES = {
    Channel.DINGTALK: _hooks(Channel.DINGTALK, FakeDingtalk, "robot", said("errcode", -1), said("errcode", 34016)),
    Channel.EMAIL: _email,
    Channel.FEISHU: _hooks(Channel.FEISHU, FakeFeishu, "bot", Answer(status=500, body=CANARY), said("code", 19001)),
    Channel.POLL: _poll,
    Channel.PUSH: _push,
    Channel.SLACK: _hooks(
        Channel.SLACK, FakeSlack, "webhook", Answer(status=500, body=CANARY), Answer(status=404, body=CANARY)
    ),
    Channel.SMS: _sms,
    Channel.TEAMS: _hooks(
        Channel.TEAMS,
        FakeTeams,
        "workflow",
        Answer(status=500, body=CANARY),
        Answer(status=404, body=f"workflow deleted {CANARY}"),
        "url",
    ),
    Channel.TELEGRAM: by_account(
        "telegram",
        FakeTelegram,
        lambda fake: ({"url": fake.url}, "token", fake.token),
        "chat_id",
        _telegram_says(500),
        _telegram_says(403),
        address=lambda number: str(-100_7351_000 - number),
    ),
    Channel.WEBHOOK: _webhook,
    Channel.WECHAT: by_account(
        "wechat",
        FakeWechat,
        lambda fake: ({"app_id": fake.app_id, "url": fake.url}, "secret", fake.secret),
        "openid",
        said("errcode", -1),
        said("errcode", 43004),
        more={"template_id": "paid"},
    ),
    Channel.WECOM: _hooks(Channel.WECOM, FakeWecom, "bot", said("errcode", -1), said("errcode", 93000)),
}
