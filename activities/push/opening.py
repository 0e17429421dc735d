"""Opens the push channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from activities.egress.policy import Egress
from activities.providers.accounts import Accounts
from activities.push.apns import Apns
from activities.push.channel import PushChannel
from activities.push.fcm import Fcm
from activities.push.web import WebPush
from activities.rendering.renderer import Renderer
from bellwire.registry import Registry


@asynccontextmanager
async def open_push(
    accounts: Accounts,
    registry: Registry,
    renderer: Renderer,
    untrusted: aiohttp.ClientSession,
    egress: Egress,
    session: aiohttp.ClientSession,
    *,
    hosts: tuple[str, ...],
    timeout: float,
) -> AsyncIterator[PushChannel]:
    """The channel; leaving closes the connections to Apple. `hosts`: patterns of the push services that browsers may have.

    Raises ValueError, which names the account, if a key is not valid.
    """
    web = WebPush(untrusted, egress, accounts.vapid, hosts=hosts, timeout=timeout)
    apns = Apns(accounts.apns)
    try:
        yield PushChannel(renderer, web, Fcm(session, accounts.fcm, registry), apns)
    finally:
        await apns.close()
