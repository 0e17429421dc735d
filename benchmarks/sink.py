"""The sink: receivers of webhooks and mails in a process of their own, so cheap that it does not affect the figures.

`python -m benchmarks.sink PORT MAIL_PORT` responds to POST by the first word of the path: /accept/… 204; /late/… the same
after LATE seconds; /refuse/… 503 twice for each webhook-id, then 204; /interim/… 100 without end; /hang/… never. GET /file is a
small file, and GET /stall/… the head of one that never comes. Mails are accepted. GET /arrivals returns when each webhook-id
and each mail was first accepted, and resets that.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from typing import cast

import aiohttp

from benchmarks.mail_sink import MailConnection

#: Times that /refuse responds 503 before it accepts.
REFUSALS = 2
#: Seconds that /late takes.
LATE = 0.1

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"
_REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" * 100
_FILE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
_STALLED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50000\r\n\r\nhello"


class Arrivals:
    """Times by webhook-id, in seconds of the monotonic clock, which all processes of a machine share."""

    def __init__(self) -> None:
        self.accepted: dict[str, float] = {}
        self.refused: dict[str, int] = defaultdict(int)

    def clear(self) -> None:
        self.accepted.clear()
        self.refused.clear()


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with keep-alive. It parses as much of HTTP as the clients of the benchmarks send."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
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
            if response := self._respond(head):
                self._transport.write(response)

    def _respond(self, head: bytes) -> bytes | None:
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            return self._report(path)
        given = _ID.search(head)
        webhook_id = given[1].decode() if given else path.decode()
        if path.startswith(b"/hang/"):
            return None
        if path.startswith(b"/interim/"):
            self._repeat(_INTERIM)
            return None
        if path.startswith(b"/refuse/") and self._arrivals.refused[webhook_id] < REFUSALS:
            self._arrivals.refused[webhook_id] += 1
            return _REFUSED
        self._arrivals.accepted.setdefault(webhook_id, time.monotonic())
        if path.startswith(b"/late/"):
            asyncio.get_running_loop().call_later(LATE, self._transport.write, _ACCEPTED)
            return None
        return _ACCEPTED

    def _repeat(self, response: bytes) -> None:
        """Write it again and again, until the client hangs up."""
        if not self._transport.is_closing():
            self._transport.write(response)
            asyncio.get_running_loop().call_later(0.01, self._repeat, response)

    def _report(self, path: bytes) -> bytes:
        if path.startswith(b"/file"):
            return _FILE
        if path.startswith(b"/stall/"):
            return _STALLED
        body = json.dumps(self._arrivals.accepted).encode() if path == b"/arrivals" else b"{}"
        if path == b"/arrivals":
            self._arrivals.clear()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Sink:
    """A client of the sink."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def arrivals(self) -> dict[str, float]:
        """When each webhook-id was first accepted since the last call, in seconds of `time.monotonic`."""
        async with self._session.get(f"{self.url}/arrivals") as response:
            return cast(dict[str, float], await response.json())

    async def ready(self) -> bool:
        """Whether it responds."""
        try:
            async with self._session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


async def serve(port: int, mail_port: int) -> None:
    """Receive until the process is stopped."""
    arrivals, loop = Arrivals(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(arrivals), "127.0.0.1", port, backlog=4096)
    mails = await loop.create_server(lambda: MailConnection(arrivals.accepted), "127.0.0.1", mail_port)
    await asyncio.gather(server.serve_forever(), mails.serve_forever())


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
