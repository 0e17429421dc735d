"""Opens the SMS channel by the settings."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
from pydantic import SecretStr

from activities.providers.http import provider_session
from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.config_fields import secret_of
from activities.sms.http_provider import HttpProvider
from activities.sms.mainland.aliyun import AliyunProvider
from activities.sms.mainland.signatures import AccessKey
from activities.sms.mainland.tencent import TencentProvider
from activities.sms.prices import Prices
from activities.sms.provider_config import ProvidersFile
from activities.sms.providers import Provider, Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.registry import Registry
from bellwire.sms.twilio_codes import CALLBACKS


class SmsSettings(Protocol):
    """The settings that the channel needs; `bellwire.service.settings.Settings` has them."""

    @property
    def twilio_account_sid(self) -> str | None: ...
    @property
    def twilio_auth_token(self) -> SecretStr | None: ...
    @property
    def twilio_sender(self) -> str | None: ...
    @property
    def twilio_url(self) -> str: ...
    @property
    def twilio_timeout(self) -> float: ...
    @property
    def public_url(self) -> str | None: ...
    @property
    def sms_providers(self) -> Path | None: ...
    @property
    def sms_secrets(self) -> Mapping[str, SecretStr]: ...
    @property
    def sms_reconcile_after(self) -> float: ...
    @property
    def sms_max_segments(self) -> int: ...
    @property
    def sms_senders(self) -> Collection[str] | None: ...
    @property
    def sms_prices(self) -> Path | None: ...


@asynccontextmanager
async def open_sms(settings: SmsSettings, registry: Registry, renderer: Renderer) -> AsyncIterator[SmsChannel]:
    """The channel over Twilio and the operator's providers; leaving closes their connections.

    Raises ValueError, which names the setting, if a file or a secret is missing or not valid.
    """
    async with provider_session() as session:
        yield SmsChannel(
            registry,
            Providers(_providers(settings, registry, session)),
            renderer,
            reconcile_after=settings.sms_reconcile_after,
            max_segments=settings.sms_max_segments,
            senders=settings.sms_senders,
            prices=Prices.read(settings.sms_prices) if settings.sms_prices else None,
        )


def _providers(settings: SmsSettings, registry: Registry, session: aiohttp.ClientSession) -> list[Provider]:
    """Twilio, if there is an account, and the providers of the operator's file, in the order in which they are tried."""
    providers: list[Provider] = []
    if settings.twilio_account_sid and settings.twilio_auth_token:
        client = twilio_client(
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            url=settings.twilio_url,
            timeout=settings.twilio_timeout,
            session=session,
        )
        callbacks = settings.public_url and f"{settings.public_url}{CALLBACKS}"
        sender = settings.twilio_sender or ""
        providers.append(TwilioProvider(client, registry.attempts, sender=sender, callbacks=callbacks))
    if settings.sms_providers is None:
        return providers
    configured = ProvidersFile.read(settings.sms_providers)
    secrets = settings.sms_secrets
    providers += [HttpProvider(each, session, secrets=secrets) for each in configured.provider]
    for aliyun in configured.aliyun:
        key = AccessKey(id=aliyun.access_key_id, secret=secret_of(aliyun.name, aliyun.access_key_secret, secrets))
        providers.append(AliyunProvider(aliyun, session, registry.attempts, key=key))
    for tencent in configured.tencent:
        key = AccessKey(id=tencent.secret_id, secret=secret_of(tencent.name, tencent.secret_key, secrets))
        providers.append(TencentProvider(tencent, session, registry.attempts, key=key))
    return configured.in_order(providers)
