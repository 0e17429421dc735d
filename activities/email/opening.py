"""Opens the email channel by the settings."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from pydantic import SecretStr

from activities.email.attachments import Fetch
from activities.email.channel import EmailChannel
from activities.email.dkim import DkimSigner
from activities.email.relays import Relays
from activities.rendering.renderer import Renderer
from bellwire.email.relay_urls import Relay
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import UnsubscribeLinks


class EmailSettings(Protocol):
    """The settings that the channel needs; `bellwire.service.settings.Settings` has them."""

    @property
    def relays(self) -> Sequence[Relay]: ...
    @property
    def smtp_connections(self) -> int: ...
    @property
    def smtp_timeout(self) -> float: ...
    @property
    def email_from(self) -> str: ...
    @property
    def links(self) -> UnsubscribeLinks | None: ...
    @property
    def return_path(self) -> ReturnPath | None: ...
    @property
    def dkim_domain(self) -> str | None: ...
    @property
    def dkim_selector(self) -> str | None: ...
    @property
    def dkim_key(self) -> SecretStr | None: ...


@asynccontextmanager
async def open_email(settings: EmailSettings, renderer: Renderer, fetch: Fetch) -> AsyncIterator[EmailChannel]:
    """The channel over the mail relays; leaving closes their connections. Raises ValueError if the DKIM key is not valid."""
    relays = Relays(settings.relays, connections=settings.smtp_connections, timeout=settings.smtp_timeout)
    try:
        yield EmailChannel(
            relays,
            renderer,
            sender=settings.email_from,
            links=settings.links,
            signer=dkim_signer(settings),
            fetch=fetch,
            return_path=settings.return_path,
        )
    finally:
        await relays.close()


def dkim_signer(settings: EmailSettings) -> DkimSigner | None:
    """What signs mails; None without a key. Raises ValueError, which names the variable, if the key is not valid."""
    if settings.dkim_domain is None or settings.dkim_selector is None or settings.dkim_key is None:
        return None
    return DkimSigner(settings.dkim_domain, settings.dkim_selector, settings.dkim_key.get_secret_value())
