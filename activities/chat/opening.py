"""Opens the channels of chat providers."""

import aiohttp

from activities.chat.dingtalk import DingtalkChannel
from activities.chat.feishu import FeishuChannel
from activities.chat.slack import SlackChannel
from activities.chat.teams import TeamsChannel
from activities.chat.telegram import TelegramChannel
from activities.chat.wecom import WecomChannel
from activities.providers.accounts import Accounts
from activities.providers.hooks import Hooks
from activities.rendering.renderer import Renderer
from activities.sending.attempt import ChannelAttempt
from bellwire.registry import Registry
from bellwire.targets import Channel


def open_chat(
    accounts: Accounts, hooks: Hooks, session: aiohttp.ClientSession, renderer: Renderer, registry: Registry
) -> dict[Channel, ChannelAttempt]:
    """The `attempt` of each. `session` calls the APIs of providers."""
    return {
        Channel.DINGTALK: DingtalkChannel(hooks, session, renderer, accounts.dingtalk, registry).attempt,
        Channel.FEISHU: FeishuChannel(hooks, session, renderer, accounts.feishu, registry).attempt,
        Channel.SLACK: SlackChannel(hooks, session, renderer, accounts.slack).attempt,
        Channel.TEAMS: TeamsChannel(hooks, renderer).attempt,
        Channel.TELEGRAM: TelegramChannel(session, renderer, accounts.telegram, registry).attempt,
        Channel.WECOM: WecomChannel(hooks, session, renderer, accounts.wecom, registry).attempt,
    }
