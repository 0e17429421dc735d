"""A TCP proxy that can be slowed down, stalled and cut, as networks and busy servers are."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

Streams = tuple[StreamReader, StreamWriter]


class Proxy:
    """Forwards bytes between its clients and the server that `dial` connects to. `async with Proxy(dial):` listens.

    It listens on a loopback port, or on a Unix socket if `path` is given.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]], *, path: Path | None = None) -> None:
        self.port = 0
        #: Seconds that each piece is delayed, in each direction.
        self.delay = 0.0
        #: Bytes that clients have sent.
        self.request_bytes = 0
        self._dial, self._path = dial, path
        self._requests, self._responses = asyncio.Event(), asyncio.Event()  # set while they are forwarded
        self.resume()
        self._received = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    def to_port(cls, address: str) -> Self:
        """In front of host:port."""
        host, _, port = address.rpartition(":")
        return cls(lambda: asyncio.open_connection(host, int(port)))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen, again at the same address if it was open before."""
        if self._path is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Refuse new clients, and cut the connections."""
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    def stall(self, *, requests: bool = True) -> None:
        """Read what is sent, and forward nothing: in neither direction, or with `requests` false no responses."""
        self._responses.clear()
        if requests:
            self._requests.clear()

    def resume(self) -> None:
        """Forward everything, what was held back first."""
        self._requests.set()
        self._responses.set()

    async def cut(self) -> None:
        """Close every connection; what was held back is lost."""
        connections = set(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def until_request(self, more: int = 1) -> None:
        """Wait until clients have sent `more` further bytes."""
        wanted = self.request_bytes + more
        async with asyncio.timeout(30), self._received:
            await self._received.wait_for(lambda: self.request_bytes >= wanted)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            responses, server = await self._dial()
            writers.append(server)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, server, self._requests))
                both.create_task(self._forward(responses, writer, self._responses))
        except* OSError:
            pass  # one side has closed
        except* asyncio.CancelledError:
            pass  # cut
        finally:
            self._connections.discard(task)
            for each in writers:
                each.transport.abort()

    async def _forward(self, reader: StreamReader, writer: StreamWriter, forwarding: asyncio.Event) -> None:
        """One direction of a connection. It reads everything at once, so that the sender does not notice a stall."""
        received: asyncio.Queue[bytes] = asyncio.Queue()

        async def receive() -> None:
            while piece := await reader.read(65536):
                if forwarding is self._requests:
                    self.request_bytes += len(piece)
                    async with self._received:
                        self._received.notify_all()
                received.put_nowait(piece)
            raise ConnectionResetError  # so that the other direction ends too

        async def send() -> None:
            while True:
                piece = await received.get()
                await asyncio.sleep(self.delay)
                await forwarding.wait()
                writer.write(piece)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(receive())
            both.create_task(send())
