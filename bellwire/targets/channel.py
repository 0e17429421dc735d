"""Channel, the base of its targets, and ChannelSpec: the facts about a channel that the rest of the system derives from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from bellwire.formats.mailboxes import folded
from bellwire.models import StrictInput


class Channel(StrEnum):
    """A way to deliver."""

    EMAIL = "email"
    SMS = "sms"
    WEBHOOK = "webhook"
    DINGTALK = "dingtalk"
    FEISHU = "feishu"
    PUSH = "push"
    SLACK = "slack"
    TEAMS = "teams"
    TELEGRAM = "telegram"
    WECHAT = "wechat"
    WECOM = "wecom"
    POLL = "poll"
    HANDLER = "handler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a provider takes messages for one address, of all subscriptions: `burst` at once, and one each `interval`."""

    #: What equals for all targets with this address.
    address: str
    #: Seconds.
    interval: float
    burst: int


class ChannelTarget(StrictInput):
    """Base of all targets: what can be asked of an address without knowing its channel."""

    channel: Channel

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses of people, each once: what can be suppressed and erased. Empty for an endpoint."""
        return ()

    @property
    def address(self) -> str:
        """Where deliveries go, as operators and tenants read it. Holds no secret."""
        return ", ".join(self.recipients)

    @property
    def pace(self) -> Pace | None:
        """How fast the provider takes messages for the address; None: what is too fast, it refuses."""
        return None

    @property
    def is_erased(self) -> bool:
        """Whether its only recipient was erased: then nothing is known of it but its channel."""
        return False

    def keeping(self, recipients: tuple[str, ...]) -> Self:
        """This target with these of its recipients only. Targets that can have several define it."""
        raise NotImplementedError

    @property
    def is_rendered(self) -> bool:
        """Whether what is sent comes from a template; else it is the event itself."""
        return True

    @property
    def needs_consent(self) -> bool:
        """Whether the endpoint is asked for its consent before anything is sent to it."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One channel, described once. Queues, stubs, schedules, template names, tables and docs derive from it."""

    channel: Channel
    #: A target that nothing is sent to, for previews and documentation.
    example: ChannelTarget
    #: Its templates by the name that subscriptions use, such as email.subject, each with its file in a template's folder.
    templates: Mapping[str, str]
    #: Seconds before the second, third, … attempt, for subscriptions without a schedule of their own.
    schedule: tuple[float, ...]
    #: Whether a small first round may be sent within the workflow task, without an activity.
    inline: bool
    #: Whether an attempt is recorded before it is sent, because a duplicate does harm and the provider does not deduplicate.
    #: Such a channel is not sent inline.
    intent: bool = False
    #: Whether providers call back later about what was sent, by its id. Of other channels, ids may show whom a message is for.
    receipts: bool = False
    #: Whether subscriptions have a secret by which receivers verify what they get.
    signed: bool = False
    #: Whether deliveries are calls within services' own processes: no worker sends them, and the delay that a call asks for is
    #: followed to the second, even if the schedule's is longer.
    in_services: bool = False
    #: Whether a message that was sent can be changed: an event that `replaces` another changes the other one's message.
    edits: bool = False
    #: Whether a message that was sent can be taken back.
    recalls: bool = False
    #: What equals for all spellings of one address and differs for two addresses: by it suppressions and erasures find it.
    address_key: Callable[[str], str] = folded
    #: The fields of a target with an address that a person wrote, in any spelling. None: it is in the field in which `example`
    #: has it, on a channel with accounts after its account and a slash.
    fields_of: Callable[[str], Mapping[str, Any]] | None = None

    @property
    def target(self) -> type[ChannelTarget]:
        """The model of an address on this channel."""
        return type(self.example)

    @property
    def activity(self) -> str:
        """The registered name of the channel's send activity."""
        return f"send_{self.channel}"

    @property
    def queue(self) -> str:
        """The channel's own task queue, so that each channel scales, is rate-limited and fails alone."""
        return f"bellwire-{self.channel}"
