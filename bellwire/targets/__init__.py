"""Targets: what a subscription delivers to.

One module per channel holds its target, which says what an address is, and its ChannelSpec.
"""

from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.dingtalk import DINGTALK, DingtalkTarget
from bellwire.targets.email import EMAIL, EmailTarget
from bellwire.targets.feishu import FEISHU, FeishuTarget
from bellwire.targets.poll import POLL, PollTarget
from bellwire.targets.push import PUSH, PushTarget
from bellwire.targets.slack import SLACK, SlackTarget
from bellwire.targets.sms import SMS, SmsTarget
from bellwire.targets.specs import SPECS, Target
from bellwire.targets.teams import TEAMS, TeamsTarget
from bellwire.targets.telegram import TELEGRAM, TelegramTarget
from bellwire.targets.webhook import WEBHOOK, WebhookFormat, WebhookTarget
from bellwire.targets.wecom import WECOM, WecomTarget

__all__ = [
    "DINGTALK",
    "EMAIL",
    "FEISHU",
    "POLL",
    "PUSH",
    "SLACK",
    "SMS",
    "SPECS",
    "TEAMS",
    "TELEGRAM",
    "WEBHOOK",
    "WECOM",
    "Channel",
    "ChannelSpec",
    "ChannelTarget",
    "DingtalkTarget",
    "EmailTarget",
    "FeishuTarget",
    "PollTarget",
    "PushTarget",
    "SlackTarget",
    "SmsTarget",
    "Target",
    "TeamsTarget",
    "TelegramTarget",
    "WebhookFormat",
    "WebhookTarget",
    "WecomTarget",
]
