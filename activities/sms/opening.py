"""Opens the SMS channel from the values of the settings."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.http_provider import HttpProvider
from activities.sms.prices import Prices
from activities.sms.provider_config import ProvidersFile
from activities.sms.provider_http import provider_session
from activities.sms.providers import Provider, Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.registry import Registry
from bellwire.sms.twilio_codes import CALLBACKS


@dataclass(frozen=True, kw_only=True)
class TwilioAccount:
    """How to send by Twilio."""

    sid: str
    token: SecretStr
    #: A number, a name or a messaging service (MG…).
    sender: str
    url: str
    #: Seconds for one call.
    timeout: float
    #: The gateway's public URL, for status callbacks; None: no callbacks.
    public_url: str | None


@asynccontextmanager
async def open_sms(
    registry: Registry,
    renderer: Renderer,
    *,
    twilio: TwilioAccount | None,
    providers: Path | None,
    secrets: Mapping[str, SecretStr],
    reconcile_after: float,
    max_segments: int,
    senders: Collection[str] | None,
    prices: Path | None,
) -> AsyncIterator[SmsChannel]:
    """The channel over Twilio and the providers of a file; leaving closes their connections.

    `secrets` are those that the file names, `prices` is a file, and the rest is as in SmsChannel.
    """
    async with provider_session() as session:
        yield SmsChannel(
            registry,
            Providers(_providers(registry, session, twilio, providers, secrets)),
            renderer,
            reconcile_after=reconcile_after,
            max_segments=max_segments,
            senders=senders,
            prices=Prices.read(prices) if prices else None,
        )


def _providers(
    registry: Registry,
    session: aiohttp.ClientSession,
    twilio: TwilioAccount | None,
    file: Path | None,
    secrets: Mapping[str, SecretStr],
) -> list[Provider]:
    """Twilio, if there is an account, and the providers of the file, in the order in which they are tried."""
    providers: list[Provider] = []
    if twilio is not None:
        token = twilio.token.get_secret_value()
        client = twilio_client(twilio.sid, token, url=twilio.url, timeout=twilio.timeout, session=session)
        callbacks = twilio.public_url and f"{twilio.public_url}{CALLBACKS}"
        providers.append(TwilioProvider(client, registry.attempts, sender=twilio.sender, callbacks=callbacks))
    if file is None:
        return providers
    configured = ProvidersFile.read(file)
    providers += [HttpProvider(each, session, secrets=secrets) for each in configured.provider]
    return configured.in_order(providers)
