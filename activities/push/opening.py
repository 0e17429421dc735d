"""Opens the push channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from activities.providers.accounts import Accounts
from activities.providers.parts import ProviderParts
from activities.push.apns import Apns
from activities.push.channel import PushChannel
from activities.push.fcm import Fcm
from activities.push.web import WebPush


@asynccontextmanager
async def open_push(accounts: Accounts, parts: ProviderParts, *, hosts: tuple[str, ...]) -> AsyncIterator[PushChannel]:
    """The channel; leaving closes the connections to Apple. `hosts`: patterns of the push services that browsers may have.

    Raises ValueError, which names the account, if a key is not valid.
    """
    web = WebPush(parts.hooks, accounts.vapid, hosts=hosts)
    fcm = Fcm(parts.session, accounts.fcm, parts.registry)
    apns = Apns(accounts.apns)
    try:
        yield PushChannel(parts.renderer, web, fcm, apns)
    finally:
        await apns.close()
