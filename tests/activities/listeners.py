"""Real servers on this machine's addresses: public and private hosts, a name server, a proxy."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
from aiohttp.abc import AbstractResolver, ResolveResult

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
GOODBYE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A server on the given port or a free one; on exit its connections are closed."""
    conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        conversations[task] = writer
        with suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        await _closed(writer)
        del conversations[task]

    server = await asyncio.start_server(serve, host, port, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        for writer in conversations.values():
            writer.transport.abort()
        await asyncio.gather(*conversations)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@dataclass
class Listener:
    port: int
    #: Connections, and requests over them with their first lines and headers.
    accepted: int = 0
    heads: list[str] = field(default_factory=list)


@asynccontextmanager
async def listening(host: str, port: int = 0, *, answer: bytes = GOODBYE) -> AsyncIterator[Listener]:
    """A server that counts connections and sends `response` to each request without a body."""
    here = Listener(port)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.accepted += 1
        while True:
            here.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            writer.write(answer)
            await writer.drain()
            if b"close" in answer:
                return

    async with serving(handle, host, port) as here.port:
        yield here


class NameServer(asyncio.DatagramProtocol):
    """A DNS server under the test's control, with no time to live for anything.

    `names` says what each name has in turn, the last for ever: addresses, or the name that it is another name for.
    """

    def __init__(self, names: Mapping[str, list[list[str]]]) -> None:
        self.names = {name: list(answers) for name, answers in names.items()}
        self.requested: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        question = query.question[0]
        name = question.name.to_text()
        # One look-up sends two queries; the one for IPv4 moves to the next answer.
        if question.rdtype == dns.rdatatype.A:
            self.requested.append(name)
        while name and question.rdtype == dns.rdatatype.A:
            found = self._next(name.rstrip(".").lower())
            alias = next((one for one in found if not one[0].isdigit()), None)
            kind, records = ("CNAME", [f"{alias}."]) if alias else ("A", found)
            if records:
                answer.answer.append(dns.rrset.from_text(name, 0, "IN", kind, *records))
            name = f"{alias}." if alias else ""
        self.transport.sendto(answer.to_wire(), peer)

    def _next(self, name: str) -> list[str]:
        if name.endswith(".nip.io"):  # as the public service does: the address is in the name
            return [".".join(name.removesuffix(".nip.io").split(".")[-4:])]
        answers = self.names.get(name, [[]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Asking(AbstractResolver):
    """A resolver that queries the name server at the port, without a cache."""

    def __init__(self, port: int) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = ["127.0.0.1"]
        self._resolver.port = port
        self._resolver.lifetime = 2.0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            found = await self._resolver.resolve(host, "A", search=False)
        except dns.exception.DNSException as error:
            raise OSError(str(error)) from error
        return [
            ResolveResult(
                hostname=host,
                host=record.to_text(),
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for record in found
        ]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def name_server(names: Mapping[str, list[list[str]]]) -> AsyncIterator[tuple[NameServer, Asking]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(names), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server, Asking(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


@dataclass
class ForwardProxyServer:
    """A forward proxy: CONNECT, and http requests in absolute form, one per connection. `dial` resolves names."""

    dial: Callable[[str, int], tuple[str, int]]
    #: First lines of the requests.
    requested: list[str] = field(default_factory=list)
    #: Answer everything so: a status, and headers with their line ends.
    refuse: str | None = None
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, _, rest = head.partition("\r\n")
        self.requested.append(first)
        if self.refuse:
            writer.write(f"HTTP/1.1 {self.refuse}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        else:
            await self._pass_on(first, rest, reader, writer)

    async def _pass_on(self, first: str, rest: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, version = first.split(" ")
        tunnel = method == "CONNECT"
        authority, _, path = target.removeprefix("http://").partition("/")
        host, _, port = authority.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.dial(host, int(port)))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far_writer.write(f"{method} /{path} {version}\r\n{rest}".encode("latin-1"))
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            await _closed(far_writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def forward_proxy(
    dial: Callable[[str, int], tuple[str, int]] = lambda host, port: ("127.0.0.1", port),
) -> AsyncIterator[ForwardProxyServer]:
    """Without `dial`, every name is this machine."""
    proxy = ForwardProxyServer(dial)
    async with serving(proxy.serve) as proxy.port:
        yield proxy


def pool_of(session: aiohttp.ClientSession) -> aiohttp.TCPConnector:
    assert isinstance(session.connector, aiohttp.TCPConnector)
    return session.connector
