"""Targets: what a subscription delivers to.

One module per channel holds its target, which says what an address is, and its ChannelSpec.
"""

from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.dingtalk import DINGTALK, DingtalkTarget
from bellwire.targets.chat.feishu import FEISHU, FeishuTarget
from bellwire.targets.chat.slack import SLACK, SlackTarget
from bellwire.targets.chat.teams import TEAMS, TeamsTarget
from bellwire.targets.chat.telegram import TELEGRAM, TelegramTarget
from bellwire.targets.chat.wechat import WECHAT, WechatKind, WechatTarget
from bellwire.targets.chat.wecom import WECOM, WecomTarget
from bellwire.targets.email import EMAIL, EmailTarget
from bellwire.targets.handler import HANDLER, HandlerTarget
from bellwire.targets.poll import POLL, PollTarget
from bellwire.targets.push import PUSH, PushTarget
from bellwire.targets.sms import SMS, SmsTarget
from bellwire.targets.specs import SPECS, WORKER_CHANNELS, Target
from bellwire.targets.webhook import WEBHOOK, WebhookFormat, WebhookTarget

__all__ = [
    "DINGTALK",
    "EMAIL",
    "FEISHU",
    "HANDLER",
    "POLL",
    "PUSH",
    "SLACK",
    "SMS",
    "SPECS",
    "TEAMS",
    "TELEGRAM",
    "WEBHOOK",
    "WECHAT",
    "WECOM",
    "WORKER_CHANNELS",
    "Channel",
    "ChannelSpec",
    "ChannelTarget",
    "DingtalkTarget",
    "EmailTarget",
    "FeishuTarget",
    "HandlerTarget",
    "PollTarget",
    "PushTarget",
    "SlackTarget",
    "SmsTarget",
    "Target",
    "TeamsTarget",
    "TelegramTarget",
    "WebhookFormat",
    "WebhookTarget",
    "WechatKind",
    "WechatTarget",
    "WecomTarget",
]
