"""ProviderParts: what the channels that send over providers are made of."""

from dataclasses import dataclass

import aiohttp

from activities.providers.hooks import Hooks
from activities.rendering.renderer import Renderer
from bellwire.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ProviderParts:
    """One worker has one of each."""

    #: Posts to the URLs of tenants.
    hooks: Hooks
    #: Calls the APIs of providers.
    session: aiohttp.ClientSession
    renderer: Renderer
    registry: Registry
