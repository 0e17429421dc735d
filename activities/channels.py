"""Opens every channel. A new channel is registered here: its settings in ChannelSettings, its `attempt` in `open_channels`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from activities.chat.account_channel import AccountChannel
from activities.chat.opening import open_chat
from activities.egress.download import Downloader
from activities.email.attachments import attachment_fetch
from activities.email.opening import EmailSettings, dkim_signer, open_email
from activities.poll.channel import PollChannel
from activities.providers.accounts import Accounts
from activities.providers.hooks import Hooks
from activities.providers.http import provider_session
from activities.providers.parts import ProviderParts
from activities.push.opening import open_push
from activities.rendering.renderer import Renderer
from activities.rendering.tenant_renderer import TenantRenderer
from activities.sending.attempt import ChannelAttempt
from activities.sending.channel_sender import ChannelSender
from activities.sending.exchanges import keeping_exchanges
from activities.sending.turns import Turns
from activities.sms.opening import SmsSettings, open_sms
from activities.webhook.opening import WebhookSettings, egress_of, open_webhook
from activities.wechat.channel import WechatChannel
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.targets import SPECS, WORKER_CHANNELS, Channel


class ChannelSettings(EmailSettings, SmsSettings, WebhookSettings, Protocol):
    """The settings that channels need. Activities never read the environment, so the entry points pass theirs."""

    @property
    def accounts(self) -> Path | None: ...
    @property
    def account_secrets(self) -> Mapping[str, SecretStr]: ...
    @property
    def keep_exchanges(self) -> KeepExchanges: ...
    @property
    def push_hosts(self) -> tuple[str, ...]: ...
    @property
    def send_concurrency(self) -> int: ...
    @property
    def shutdown_grace(self) -> float: ...
    @property
    def templates(self) -> Path | None: ...
    @property
    def template_memory(self) -> int: ...
    @property
    def template_processes(self) -> int: ...
    @property
    def template_timeout(self) -> float: ...


@asynccontextmanager
async def open_channels(
    settings: ChannelSettings, registry: Registry, turns: Turns | None = None
) -> AsyncIterator[dict[Channel, ChannelSender]]:
    """Open every channel. Leaving waits for attempts in flight, up to the grace period, and closes connections.

    Attempts begin in `turns`. Raises TemplateInvalid, and ValueError if a setting does not fit what it names, such as a file.
    """
    async with AsyncExitStack() as stack:
        renderer = await stack.enter_async_context(_open_renderer(settings))
        egress = egress_of(settings)
        untrusted = await stack.enter_async_context(egress.session(timeout=settings.webhook_timeout))
        fetch = attachment_fetch(Downloader(untrusted, egress), timeout=settings.webhook_timeout)
        accounts = Accounts.read(settings.accounts, settings.account_secrets)
        providers = await stack.enter_async_context(provider_session())
        hooks = Hooks(untrusted, egress, timeout=settings.webhook_timeout)
        parts = ProviderParts(hooks=hooks, session=providers, renderer=renderer, registry=registry)
        push = await stack.enter_async_context(open_push(accounts, parts, hosts=settings.push_hosts))
        chats = open_chat(accounts, parts)
        attempts: dict[Channel, ChannelAttempt] = {
            Channel.EMAIL: (await stack.enter_async_context(open_email(settings, renderer, fetch))).attempt,
            Channel.SMS: (await stack.enter_async_context(open_sms(settings, registry, renderer))).attempt,
            Channel.WEBHOOK: open_webhook(settings, registry, renderer, untrusted, egress).attempt,
            Channel.PUSH: push.attempt,
            **{channel: each.attempt for channel, each in chats.items()},
            Channel.POLL: PollChannel(registry).attempt,
            Channel.WECHAT: WechatChannel(parts, accounts.wechat).attempt,
        }
        if closed := [channel for channel in WORKER_CHANNELS if channel not in attempts]:
            raise RuntimeError(
                f"channel {closed[0]} is not opened: add it to activities/channels.py, or a chat to activities/chat/opening.py"
            )
        recalls = {
            channel: each.take_back
            for channel, each in chats.items()
            if isinstance(each, AccountChannel) and SPECS[channel].recalls
        }
        senders = {
            channel: ChannelSender(
                channel,
                keeping_exchanges(attempt, settings.keep_exchanges),
                registry,
                concurrency=settings.send_concurrency,
                turns=turns,
                recall=recalls.get(channel),
            )
            for channel, attempt in attempts.items()
        }
        for sender in senders.values():
            stack.push_async_callback(sender.close, settings.shutdown_grace)
        yield senders


def check_settings(settings: ChannelSettings) -> None:
    """Raise what `open_channels` would raise of templates, accounts and keys, without opening anything."""
    Renderer(settings.templates).check()
    Accounts.read(settings.accounts, settings.account_secrets)
    dkim_signer(settings)


@asynccontextmanager
async def _open_renderer(settings: ChannelSettings) -> AsyncIterator[Renderer]:
    tenants = TenantRenderer(
        processes=settings.template_processes,
        timeout=settings.template_timeout,
        memory=settings.template_memory * 1024 * 1024,
    )
    renderer = Renderer(settings.templates, tenants=tenants)
    try:
        renderer.check()
        yield renderer
    finally:
        await renderer.close()
