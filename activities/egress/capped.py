"""Reading of response bodies, with a limit on their size."""

from contextlib import suppress

import aiohttp


async def read_capped(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The first `limit` bytes of the body. If there are more, leaving the response closes the connection.

    Raises one of CLIENT_ERRORS for a body that is not whole. To tell a body that is too large from one that fits, read one
    byte more than may be used.
    """
    body = bytearray()
    while len(body) < limit and (block := await response.content.read(limit - len(body))):
        body += block
    return bytes(body)


async def read_start(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The first `limit` bytes of the body, or fewer if it is not whole: the response counts without its body."""
    body = bytearray()
    with suppress(aiohttp.ClientError, OSError):
        while len(body) < limit and (block := await response.content.read(limit - len(body))):
            body += block
    return bytes(body)
