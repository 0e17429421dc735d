"""`listen`: relays events to a program on this machine, signed as webhooks are. The gateway need not reach this machine."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import aiohttp
import typer

from bellwire.cli.feed import EventFeed
from bellwire.cli.gateway import Gateway, InputInvalid, command
from bellwire.cli.output import note, printable
from bellwire.cli.patience import POLL_SECONDS, patiently
from bellwire.cli.values import read_time
from bellwire.webhooks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

#: Seconds that the program has to respond.
FORWARD_TIMEOUT = 30.0


@command
async def listen(
    gateway: Gateway,
    forward: Annotated[
        str | None, typer.Option(metavar="URL", help="Where events go: http://localhost:3000/webhooks.")
    ] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only these types: order.*. Repeatable.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only events for this tenant; for a key that sees all.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with events since this time, or since so long ago: 10m.")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Sign with this secret (whsec_…); by default with one that stays the same for the API key."),
    ] = None,
    print_secret: Annotated[bool, typer.Option("--print-secret", help="Print the secret and exit.")] = False,
) -> None:
    """Relay new events to a program on this machine, signed, until Ctrl-C.

    Each event is sent as a webhook with a CloudEvent as its body. While the gateway or the program is away, events wait.
    """
    secret = secret or _secret_of(gateway.key)
    if print_secret:
        typer.echo(secret)
        return
    if forward is None:
        raise InputInvalid("--forward: is required, such as --forward http://localhost:3000/webhooks")
    url = forward if "://" in forward else f"http://{forward}"
    begin = None if since is None else read_time("--since", since)
    try:
        sign(secret, "check", 0, b"")
    except ValueError as error:
        raise InputInvalid(f"--{error}") from error
    feed = EventFeed(gateway, tenant=tenant, types=types or ())
    await feed.start(begin)
    note(f"Relaying events to {url}. Verify them with the secret {secret}")
    timeout = aiohttp.ClientTimeout(total=FORWARD_TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        relay = _Relay(session, url, secret)
        while True:
            for item in await patiently(feed.new):
                await relay.send(item)
            await asyncio.sleep(POLL_SECONDS)


class _Relay:
    """Sends events to the program, one after the other."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session, self._url, self._secret = session, url, secret

    async def send(self, item: dict[str, Any]) -> None:
        """Send an event until the program responds, and print its status."""
        event, away = item["event"], False
        started = time.monotonic()
        while True:
            try:
                result = await self._post(f"evt_{item['key']}", event)
                break
            except aiohttp.ClientConnectorError as error:
                if not away:
                    note(f"{self._url} cannot be reached: {error.strerror or error}. Trying until it listens")
                away, started = True, time.monotonic()
                await asyncio.sleep(POLL_SECONDS)
            except (aiohttp.ClientError, TimeoutError) as error:
                result = str(error) or f"no response within {FORWARD_TIMEOUT:g} s"
                break
        milliseconds = (time.monotonic() - started) * 1000
        at = datetime.now(UTC).strftime("%H:%M:%SZ")
        typer.echo(
            f"{at}  {printable(event['type'])}  {printable(event['id'])}  {printable(result)}  {milliseconds:.0f} ms"
        )

    async def _post(self, webhook_id: str, event: dict[str, Any]) -> str:
        body, timestamp = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(), int(time.time())
        headers = {
            "content-type": "application/cloudevents+json",
            ID_HEADER: webhook_id,
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: sign(self._secret, webhook_id, timestamp, body),
        }
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            return f"HTTP {response.status}"


def _secret_of(key: str) -> str:
    """A secret that only who has the API key can derive, and that says nothing about the key."""
    digest = hmac.new(key.encode(), b"bellwire listen", hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(digest).decode()
