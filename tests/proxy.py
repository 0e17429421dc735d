"""A way to a server that can be made slow, stopped and cut, as networks and busy servers are."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

Streams = tuple[StreamReader, StreamWriter]


class Proxy:
    """Passes bytes on, between its clients and whatever `dial` connects to. `async with Proxy(dial):` listens until the end.

    It listens on a port of the loopback, or on a Unix socket if `path` is given.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]], *, path: Path | None = None) -> None:
        self.port = 0
        #: Seconds that each piece takes, in each direction.
        self.delay = 0.0
        #: Bytes that clients have sent.
        self.request_bytes = 0
        self._dial, self._path = dial, path
        self._requests, self._responses = asyncio.Event(), asyncio.Event()  # set while they are passed on
        self.resume()
        self._moved = asyncio.Condition()
        self._conversations: set[asyncio.Task[None]] = set()
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
        """Listen, at the address of before if there was one."""
        if self._path is None:
            self._server = await asyncio.start_server(self._converse, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await asyncio.start_unix_server(self._converse, self._path)

    async def close(self) -> None:
        """Refuse new clients, and cut off those there are."""
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    def stall(self, *, requests: bool = True) -> None:
        """Take what is sent, and pass nothing on: in neither direction, or only responses."""
        self._responses.clear()
        if requests:
            self._requests.clear()

    def resume(self) -> None:
        """Pass everything on, and what was held back first."""
        self._requests.set()
        self._responses.set()

    async def cut(self) -> None:
        """End every conversation, in the middle of whatever it was at; what was held back is lost."""
        conversations = set(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    async def until_request(self, more: int = 1) -> None:
        """Wait until clients have sent so many bytes more than now."""
        wanted = self.request_bytes + more
        async with asyncio.timeout(30), self._moved:
            await self._moved.wait_for(lambda: self.request_bytes >= wanted)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        writers = [writer]
        try:
            there, server = await self._dial()
            writers.append(server)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, server, self._requests))
                both.create_task(self._pass(there, writer, self._responses))
        except* OSError:
            pass  # one of the two has gone
        except* asyncio.CancelledError:
            pass  # cut
        finally:
            self._conversations.discard(task)
            for each in writers:
                each.transport.abort()

    async def _pass(self, reader: StreamReader, writer: StreamWriter, flows: asyncio.Event) -> None:
        """One direction of a conversation. All that is sent is taken at once, or a stall would show in the sender's socket."""
        taken: asyncio.Queue[bytes] = asyncio.Queue()

        async def take() -> None:
            while piece := await reader.read(65536):
                if flows is self._requests:
                    self.request_bytes += len(piece)
                    async with self._moved:
                        self._moved.notify_all()
                taken.put_nowait(piece)
            raise ConnectionResetError  # so that the other direction ends too

        async def give() -> None:
            while True:
                piece = await taken.get()
                await asyncio.sleep(self.delay)
                await flows.wait()
                writer.write(piece)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(take())
            both.create_task(give())
