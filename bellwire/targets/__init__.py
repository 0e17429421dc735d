"""Targets: what a subscription delivers to.

One module per channel holds its target, which says what an address is, and its ChannelSpec.
"""

from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.email import EMAIL, EmailTarget
from bellwire.targets.poll import POLL, PollTarget
from bellwire.targets.slack import SLACK, SlackTarget
from bellwire.targets.sms import SMS, SmsTarget
from bellwire.targets.specs import SPECS, Target
from bellwire.targets.webhook import WEBHOOK, WebhookFormat, WebhookTarget

__all__ = [
    "EMAIL",
    "POLL",
    "SLACK",
    "SMS",
    "SPECS",
    "WEBHOOK",
    "Channel",
    "ChannelSpec",
    "ChannelTarget",
    "EmailTarget",
    "PollTarget",
    "SlackTarget",
    "SmsTarget",
    "Target",
    "WebhookFormat",
    "WebhookTarget",
]
