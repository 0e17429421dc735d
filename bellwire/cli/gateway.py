"""The gateway that commands talk to, from BELLWIRE_URL and BELLWIRE_KEY."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import typer

from bellwire.cli.output import note, printable
from bellwire.errors import ApiKeyRefused, BellwireError
from bellwire.events import uuid7
from bellwire.http.client import REQUEST_TIMEOUT, HttpClient

#: Exit statuses: the command failed; its input is not usable.
FAILURE, BAD_INPUT = 1, 2
#: Items of a page; the gateway allows no more.
PAGE = 200

P = ParamSpec("P")


class InputInvalid(BellwireError, ValueError):
    """An option or argument is not usable. Nothing was sent."""


class Gateway(HttpClient):
    """The client, with the resources that the SDK has no methods for."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.key = key

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of a resource. Query parameters that are None are left out."""
        return await self.get_late(path, 0, **query)

    async def get_late(self, path: str, seconds: float, **query: object) -> Any:
        """As `get`, from a resource that waits up to these seconds before it responds."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return await self._request("GET", path, query=given, timeout=REQUEST_TIMEOUT + seconds)

    async def send(self, method: str, path: str, value: object, *, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON of the response to a change. A POST that is repeated after a lost response is executed once."""
        given = {**({"idempotency-key": str(uuid7())} if method == "POST" else {}), **(headers or {})}
        body = json.dumps(value).encode()
        return await self._request(method, path, body=body, content_type="application/json", headers=given)

    async def items(self, path: str, *, limit: int | None, **query: object) -> AsyncIterator[dict[str, Any]]:
        """The items of a list over all its pages, up to `limit`, or all of them for None."""
        cursor, left = None, limit
        while left is None or left > 0:
            page = await self.get(path, **query, cursor=cursor, limit=PAGE if left is None else min(PAGE, left))
            for item in page["items"]:
                yield item
            left = None if left is None else left - len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return


def command(function: Callable[Concatenate[Gateway, P], Awaitable[None]]) -> Callable[..., None]:
    """The synchronous function that typer needs: it opens the gateway and reports errors."""

    @functools.wraps(function)
    def run(gateway: typer.Context, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(_run(gateway, lambda opened: function(opened, *args, **kwargs)))
        except BellwireError as error:
            for line in str(error).split("\n"):
                note(f"error: {printable(line)}")
            raise typer.Exit(BAD_INPUT if isinstance(error, ValueError) else FAILURE) from error

    # Typer reads the parameters from the annotations: it gives the context where `function` takes the gateway.
    run.__annotations__ = {**function.__annotations__, "gateway": typer.Context}
    return run


async def _run(context: typer.Context, function: Callable[[Gateway], Awaitable[None]]) -> None:
    url, key = context.obj
    if not url:
        raise InputInvalid(
            "BELLWIRE_URL: is not set; set it to the URL of the gateway, or give --url before the command"
        )
    if not url.startswith(("http://", "https://")):
        raise InputInvalid("BELLWIRE_URL: must begin with https:// or http://")
    if not key:
        raise ApiKeyRefused("BELLWIRE_KEY: is not set; set it to an API key of the gateway")
    async with Gateway(url, key) as gateway:
        await function(gateway)
