"""Opens the email channel from the values of the settings."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from activities.email.attachments import Fetch
from activities.email.channel import EmailChannel
from activities.email.dkim import DkimSigner
from activities.email.relays import Relays
from activities.rendering.renderer import Renderer
from bellwire.email.relay_urls import Relay
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import UnsubscribeLinks


@asynccontextmanager
async def open_email(
    renderer: Renderer,
    *,
    relays: Sequence[Relay],
    connections: int,
    timeout: float,
    sender: str,
    links: UnsubscribeLinks | None,
    signer: DkimSigner | None,
    return_path: ReturnPath | None,
    fetch: Fetch,
) -> AsyncIterator[EmailChannel]:
    """The channel over these mail relays; leaving closes their connections. `timeout`: seconds for each SMTP command."""
    pool = Relays(relays, connections=connections, timeout=timeout)
    try:
        yield EmailChannel(
            pool, renderer, sender=sender, links=links, signer=signer, fetch=fetch, return_path=return_path
        )
    finally:
        await pool.close()
