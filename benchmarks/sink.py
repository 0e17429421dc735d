"""The sink: a receiver of webhooks in a process of its own, cheap enough that it is never what is measured.

`python -m benchmarks.sink PORT` answers POST by the first word of the path: /accept/… 204; /refuse/… 503 twice for each
webhook-id, then 204; /hang/… never. GET /arrivals answers when each webhook-id was first accepted, and forgets it all.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from typing import cast

import aiohttp

#: How often /refuse answers 503 before it accepts.
REFUSALS = 2

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"
_REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class AttemptLedger:
    """What arrived: seconds of the monotonic clock, which all processes of a machine share, by webhook-id."""

    def __init__(self) -> None:
        self.accepted: dict[str, float] = {}
        self.refused: dict[str, int] = defaultdict(int)

    def clear(self) -> None:
        self.accepted.clear()
        self.refused.clear()


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive. Reads as much of HTTP as the clients of the benchmarks write."""

    def __init__(self, book: AttemptLedger) -> None:
        self._book = book
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            head = bytes(self._buffer[:end])
            del self._buffer[:size]
            if answer := self._answer(head):
                self._transport.write(answer)

    def _answer(self, head: bytes) -> bytes | None:
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            return self._told(path)
        given = _ID.search(head)
        webhook_id = given[1].decode() if given else path.decode()
        if path.startswith(b"/hang/"):
            return None
        if path.startswith(b"/refuse/") and self._book.refused[webhook_id] < REFUSALS:
            self._book.refused[webhook_id] += 1
            return _REFUSED
        self._book.accepted.setdefault(webhook_id, time.monotonic())
        return _ACCEPTED

    def _told(self, path: bytes) -> bytes:
        body = json.dumps(self._book.accepted).encode() if path == b"/arrivals" else b"{}"
        if path == b"/arrivals":
            self._book.clear()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Sink:
    """The sink as the benchmarks see it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def arrivals(self) -> dict[str, float]:
        """When each webhook-id was first accepted since the last call, in seconds of `time.monotonic`."""
        async with self._session.get(f"{self.url}/arrivals") as response:
            return cast(dict[str, float], await response.json())

    async def answers(self) -> bool:
        """Whether it is there."""
        try:
            async with self._session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


async def serve(port: int) -> None:
    """Receive until the process is ended."""
    book = AttemptLedger()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(book), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
