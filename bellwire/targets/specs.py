"""Every channel's target and spec. A new channel is registered here: in the union `Target`, and in SPECS."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Union, get_args

from pydantic import Field

from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.dingtalk import DINGTALK, DingtalkTarget
from bellwire.targets.chat.feishu import FEISHU, FeishuTarget
from bellwire.targets.chat.slack import SLACK, SlackTarget
from bellwire.targets.chat.teams import TEAMS, TeamsTarget
from bellwire.targets.chat.telegram import TELEGRAM, TelegramTarget
from bellwire.targets.chat.wechat import WECHAT, WechatTarget
from bellwire.targets.chat.wecom import WECOM, WecomTarget
from bellwire.targets.email import EMAIL, EmailTarget
from bellwire.targets.handler import HANDLER, HandlerTarget
from bellwire.targets.poll import POLL, PollTarget
from bellwire.targets.push import PUSH, PushTarget
from bellwire.targets.sms import SMS, SmsTarget
from bellwire.targets.webhook import WEBHOOK, WebhookTarget

#: A target of any channel.
Target = Annotated[
    Union[  # noqa: UP007 - a new channel is a line of its own
        DingtalkTarget,
        EmailTarget,
        HandlerTarget,
        FeishuTarget,
        PollTarget,
        PushTarget,
        SlackTarget,
        SmsTarget,
        TeamsTarget,
        TelegramTarget,
        WebhookTarget,
        WechatTarget,
        WecomTarget,
    ],
    Field(discriminator="channel"),
]

_SPECS = (
    DINGTALK,
    EMAIL,
    HANDLER,
    FEISHU,
    POLL,
    PUSH,
    SLACK,
    SMS,
    TEAMS,
    TELEGRAM,
    WEBHOOK,
    WECHAT,
    WECOM,
)


def by_channel(specs: Iterable[ChannelSpec], targets: Collection[type[ChannelTarget]]) -> Mapping[Channel, ChannelSpec]:
    """The spec of each channel. Raises RuntimeError if a channel is named without being registered."""
    found = {spec.channel: spec for spec in specs}
    for channel in Channel:
        if channel not in found:
            raise RuntimeError(f"channel {channel} has no spec: add it to _SPECS in {__name__}")
        if found[channel].target not in targets:
            raise RuntimeError(f"channel {channel}: add {found[channel].target.__name__} to Target in {__name__}")
    return MappingProxyType(found)


#: The spec of each channel.
SPECS = by_channel(_SPECS, get_args(get_args(Target)[0]))

#: The channels that the worker sends over.
WORKER_CHANNELS = tuple(channel for channel in Channel if not SPECS[channel].in_services)
