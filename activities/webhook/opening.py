"""Opens the webhook channel, and the way to untrusted addresses, by the settings."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

import aiohttp

from activities.egress.policy import Egress
from activities.rendering.renderer import Renderer
from activities.webhook.channel import WebhookChannel
from bellwire.registry import Registry


class WebhookSettings(Protocol):
    """The settings that the channel needs; `bellwire.service.settings.Settings` has them."""

    @property
    def egress_allow(self) -> Sequence[IPv4Network | IPv6Network]: ...
    @property
    def egress_details(self) -> bool: ...
    @property
    def egress_proxy(self) -> str | None: ...
    @property
    def webhook_allow_http(self) -> bool: ...
    @property
    def webhook_connections(self) -> int: ...
    @property
    def webhook_origin(self) -> str | None: ...
    @property
    def webhook_ports(self) -> frozenset[int] | None: ...
    @property
    def webhook_timeout(self) -> float: ...


def egress_of(settings: WebhookSettings) -> Egress:
    """The policy for addresses that tenants choose."""
    return Egress(
        allow=settings.egress_allow,
        allow_http=settings.webhook_allow_http,
        ports=settings.webhook_ports,
        proxy=settings.egress_proxy,
        details=settings.egress_details,
    )


def open_webhook(
    settings: WebhookSettings, registry: Registry, renderer: Renderer, session: aiohttp.ClientSession, egress: Egress
) -> WebhookChannel:
    """The channel over a session of this policy."""
    return WebhookChannel(
        registry,
        session,
        egress,
        timeout=settings.webhook_timeout,
        connections=settings.webhook_connections,
        origin=settings.webhook_origin,
        renderer=renderer,
    )
