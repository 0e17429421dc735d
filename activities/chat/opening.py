"""Opens the channels of chat providers."""

import aiohttp

from activities.chat.slack import SlackChannel
from activities.providers.accounts import Accounts
from activities.providers.hooks import Hooks
from activities.rendering.renderer import Renderer
from activities.sending.attempt import ChannelAttempt
from bellwire.targets import Channel


def open_chat(
    accounts: Accounts, hooks: Hooks, session: aiohttp.ClientSession, renderer: Renderer
) -> dict[Channel, ChannelAttempt]:
    """The `attempt` of each. `session` calls the APIs of providers."""
    return {Channel.SLACK: SlackChannel(hooks, session, renderer, accounts.slack).attempt}
