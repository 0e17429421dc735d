"""Example: the tenants, subscriptions, events, scripts and expectations of the demo, read from examples/demo."""

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
from starter.cli.events.publish import read_events
from starter.cli.input.documents import read_items
from starter.local.processes import CHECKOUT
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver

FOLDER = CHECKOUT / "examples" / "demo"

#: The host that webhook URLs of the example name; the demo's own receiver stands in for it.
HOOKS_HOST = "https://hooks.example"


class ExpectedText(StrictInput):
    """A mail or an SMS to an address, with these words in its subject or text."""

    to: str
    contains: str


class ExpectedHook(StrictInput):
    """The requests that brought an event to a path, by what they were answered."""

    path: str
    event: str
    answers: tuple[int, ...]


class Expected(StrictInput):
    """What must be true in the end."""

    #: Ids of events of which a second publication must start nothing.
    duplicates: tuple[str, ...] = ()
    #: How the deliveries of each event must have settled, by the event's id.
    counts: dict[str, Counts]
    #: Subscriptions that Bellwire must have disabled.
    disabled: tuple[str, ...] = ()
    mails: tuple[ExpectedText, ...] = ()
    sms: tuple[ExpectedText, ...] = ()
    webhooks: tuple[ExpectedHook, ...] = ()


class Scripts(StrictInput):
    """How receivers misbehave before they accept: statuses by path, SMTP replies by address."""

    webhooks: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    mail: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """The three receivers of the demo, all on this machine."""

    mailbox: Mailbox
    twilio: FakeTwilio
    hooks: WebhookReceiver

    def settings(self) -> dict[str, str]:
        """The worker's BELLWIRE_* variables that lead it here."""
        return {
            "BELLWIRE_SMTP_HOST": self.mailbox.host,
            "BELLWIRE_SMTP_PORT": str(self.mailbox.port),
            "BELLWIRE_TWILIO_URL": self.twilio.url,
            "BELLWIRE_TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "BELLWIRE_TWILIO_AUTH_TOKEN": self.twilio.auth_token,
            "BELLWIRE_TWILIO_SENDER": "+14155550100",
        }

    def follow(self, scripts: Scripts) -> None:
        """Misbehave as told."""
        for path, statuses in scripts.webhooks.items():
            self.hooks.script(path, *statuses)
        for address, replies in scripts.mail.items():
            self.mailbox.script(address, *replies)


@dataclass(frozen=True, kw_only=True)
class Example:
    """Everything in the folder."""

    #: Names of tenants by their id.
    tenants: Mapping[str, str]
    subscriptions: tuple[Subscription, ...]
    #: In order of publication; one that occurs twice is published twice.
    events: tuple[Event, ...]
    scripts: Scripts
    expected: Expected
    folder: Path = field(default=FOLDER)

    @classmethod
    def read(cls, folder: Path, *, hooks_url: str) -> Self:
        """The example, its webhooks sent to `hooks_url`. Raises InputInvalid or ValidationError."""
        tenants: list[dict[str, str]] = _json(folder / "tenants.json")
        text = (folder / "subscriptions.json").read_text().replace(HOOKS_HOST, hooks_url)
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
        """Store the subscriptions, and let the receiver check signatures with the secrets that come back."""
        for subscription in self.subscriptions:
            secret = await registry.subscriptions.create(subscription)
            if secret and isinstance(subscription.target, WebhookTarget):
                hooks.expect(subscription.target.url.removeprefix(hooks.url("")), secret.get_secret_value())


def _json(file: Path) -> Any:
    return json.loads(file.read_text())
