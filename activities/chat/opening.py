"""Opens the channels of chat providers."""

from typing import Any

from activities.chat.channel import ChatChannel
from activities.chat.dingtalk import DingtalkChannel
from activities.chat.feishu import FeishuChannel
from activities.chat.slack import SlackChannel
from activities.chat.teams import TeamsChannel
from activities.chat.telegram import TelegramChannel
from activities.chat.wecom import WecomChannel
from activities.providers.accounts import Accounts
from activities.providers.parts import ProviderParts
from activities.rendering.sandbox.markup import MARKUPS
from bellwire.targets import Channel


def open_chat(accounts: Accounts, parts: ProviderParts) -> dict[Channel, ChatChannel[Any]]:
    """Every chat channel, with the accounts that it sends by. Raises RuntimeError if the markup of one is missing."""
    opened: dict[Channel, ChatChannel[Any]] = {
        Channel.DINGTALK: DingtalkChannel(parts, accounts.dingtalk),
        Channel.FEISHU: FeishuChannel(parts, accounts.feishu),
        Channel.SLACK: SlackChannel(parts, accounts.slack),
        Channel.TEAMS: TeamsChannel(parts),
        Channel.TELEGRAM: TelegramChannel(parts, accounts.telegram),
        Channel.WECOM: WecomChannel(parts, accounts.wecom),
    }
    for channel in opened:
        if f"{channel}.text" not in MARKUPS:
            raise RuntimeError(
                f"channel {channel}: add {channel}.text to MARKUPS in activities/rendering/sandbox/markup.py"
            )
    return opened
