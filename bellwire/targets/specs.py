"""Every channel's target and spec. A new channel is registered here: in the union `Target`, and in SPECS."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from bellwire.targets.channel import Channel, ChannelSpec
from bellwire.targets.email import EMAIL, EmailTarget
from bellwire.targets.poll import POLL, PollTarget
from bellwire.targets.sms import SMS, SmsTarget
from bellwire.targets.webhook import WEBHOOK, WebhookTarget

#: A target of any channel.
Target = Annotated[
    EmailTarget | SmsTarget | WebhookTarget | PollTarget,
    Field(discriminator="channel"),
]

#: The spec of each channel.
SPECS: Mapping[Channel, ChannelSpec] = MappingProxyType(
    {spec.channel: spec for spec in (EMAIL, SMS, WEBHOOK, POLL)},
)
