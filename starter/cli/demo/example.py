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
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.operations.delivery.publishing import read_events

FOLDER = CHECKOUT / "examples" / "demo"

#: The host in webhook URLs of the example; the demo's own receiver replaces it.
WEBHOOK_HOST = "https://hooks.example"


class ExpectedText(StrictInput):
    """A mail or an SMS to an address, with these words in its subject or text."""

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
    #: Ids of the events that the demo's handler is called for.
    handled: tuple[str, ...] = ()


class Scripts(StrictInput):
    """How receivers refuse before they accept: statuses by path, SMTP replies by address."""

    webhooks: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    mail: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """The three receivers of the demo, all on this machine."""

    mailbox: Mailbox
    twilio: FakeTwilio
    hooks: WebhookReceiver

    def settings(self) -> dict[str, str]:
        """The worker's BELLWIRE_* variables for these receivers."""
        return {
            "BELLWIRE_SMTP_HOST": self.mailbox.host,
            "BELLWIRE_SMTP_PORT": str(self.mailbox.port),
            "BELLWIRE_TWILIO_URL": self.twilio.url,
            "BELLWIRE_TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "BELLWIRE_TWILIO_AUTH_TOKEN": self.twilio.auth_token,
            "BELLWIRE_TWILIO_SENDER": "+14155550100",
        }

    def follow(self, scripts: Scripts) -> None:
        """Refuse as the scripts say."""
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
    def read(cls, folder: Path, *, webhook_url: str) -> Self:
        """The example, with its webhooks sent to `webhook_url`. Raises InputInvalid, ValidationError."""
        tenants: list[dict[str, str]] = _json(folder / "tenants.json")
        text = (folder / "subscriptions.json").read_text().replace(WEBHOOK_HOST, webhook_url)
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
