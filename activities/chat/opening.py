"""Opens the channels of chat providers."""

from activities.chat.channel import ChatParts
from activities.chat.dingtalk import DingtalkChannel
from activities.chat.feishu import FeishuChannel
from activities.chat.slack import SlackChannel
from activities.chat.teams import TeamsChannel
from activities.chat.telegram import TelegramChannel
from activities.chat.wecom import WecomChannel
from activities.providers.accounts import Accounts
from activities.sending.attempt import ChannelAttempt
from bellwire.targets import Channel


def open_chat(accounts: Accounts, parts: ChatParts) -> dict[Channel, ChannelAttempt]:
    """The `attempt` of each."""
    return {
        Channel.DINGTALK: DingtalkChannel(parts, accounts.dingtalk).attempt,
        Channel.FEISHU: FeishuChannel(parts, accounts.feishu).attempt,
        Channel.SLACK: SlackChannel(parts, accounts.slack).attempt,
        Channel.TEAMS: TeamsChannel(parts).attempt,
        Channel.TELEGRAM: TelegramChannel(parts, accounts.telegram).attempt,
        Channel.WECOM: WecomChannel(parts, accounts.wecom).attempt,
    }
