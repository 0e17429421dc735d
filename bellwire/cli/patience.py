"""Waiting for a gateway that is away, in commands that run until Ctrl-C."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bellwire.cli.output import note
from bellwire.errors import GatewayUnavailable

#: Seconds between two questions for new events, and at most between two while the gateway is away.
POLL_SECONDS, MAX_POLL_SECONDS = 1.0, 15.0

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` returns once the gateway responds. It is repeated until then."""
    delay, away = POLL_SECONDS, False
    while True:
        try:
            found = await ask()
        except GatewayUnavailable as error:
            if not away:
                note(f"{error}. Trying until it is back")
            away = True
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_POLL_SECONDS)
        else:
            if away:
                note("The gateway responds again")
            return found
