"""Every channel's target and spec. A new channel is registered here: in the union `Target`, and in SPECS."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Union

from pydantic import Field

from bellwire.targets.channel import Channel, ChannelSpec
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
#: The spec of each channel.
SPECS: Mapping[Channel, ChannelSpec] = MappingProxyType({spec.channel: spec for spec in _SPECS})

#: The channels that the worker sends over.
WORKER_CHANNELS = tuple(channel for channel in Channel if not SPECS[channel].in_services)
