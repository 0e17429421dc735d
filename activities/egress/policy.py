"""Egress: which addresses the outside may make this process dial, decided on the address that is dialled.

A target's URL is a stranger's choice. Without a guard it could name this machine, a private network or a cloud's
metadata service (server-side request forgery). Names are not decided on: they resolve to one address now and another
in a second, and resolvers are passed over for literals. The connector asks this module for each socket, with the very
address it will connect.
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from activities.egress.forward_proxy import ForwardProxy, check_forwarded
from activities.egress.public_addresses import is_public, reached

#: Seconds that dialling and the TLS handshake may take; less, if half of the whole request's time is less.
CONNECT_TIMEOUT = 5.0
#: Seconds that an idle connection is kept. Node.js and uvicorn close theirs after 5 s; a request that crosses such a
#: close is lost, and POST is not repeated by the client.
KEEPALIVE = 4.0
#: Bytes of an answer that are buffered before reading from the connection pauses; answers of interest are shorter.
READ_BUFFER = 8192

NOT_ALLOWED = "address not allowed"

#: Host names in ASCII, as yarl leaves them. Nothing that some resolver may cut short, unescape or split.
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class EgressRefused(OSError):
    """The target may not be dialled.

    An OSError, so that the connector goes on to the next address of the name, and wraps it if there is none. `reason`
    is one of a few fixed texts without address or port: nobody learns from it what listens where.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Dialled:
    """What one request has dialled, so far."""

    #: An address that is not public, and that the operator allows: what happened there is not for everyone to read.
    inside: bool = False


#: That of the request which this task, or the one that began it, makes.
_dialled: ContextVar[Dialled | None] = ContextVar("dialled", default=None)


class Egress:
    """The policy for targets: public addresses and those in `allow`; https, or http too; `ports`, None for any.

    `proxy` (http://host:port) is a forward proxy that the operator trusts: everything goes through it, and it decides
    on names. Literals, schemes and ports are still checked here. With `details`, tenants may know what goes on at the
    addresses in `allow`.
    """

    def __init__(
        self,
        *,
        allow: Sequence[IPv4Network | IPv6Network] = (),
        allow_http: bool = False,
        ports: frozenset[int] | None,
        proxy: str | None = None,
        details: bool = True,
    ) -> None:
        self._allow = tuple(allow)
        self._proxy = ForwardProxy(proxy) if proxy else None
        self._discreet = bool(self._allow) and not details
        self._schemes = {"https", "http"} if allow_http else {"https"}
        self._ports = ports

    def permits(self, address: str | IPv4Address | IPv6Address) -> bool:
        """Whether the address may be dialled."""
        found = reached(address)
        return found is not None and (any(found in network for network in self._allow) or is_public(found))

    def checked(self, url: str) -> URL:
        """The URL, parsed. Raises EgressRefused for what is wrong with it itself, whatever its name may resolve to."""
        try:
            parts = URL(url)
            host = parts.raw_host
        except ValueError:
            raise EgressRefused("invalid URL") from None
        if not host or parts.user is not None or parts.password is not None:
            raise EgressRefused("invalid URL")
        if parts.scheme not in self._schemes:
            raise EgressRefused("scheme not allowed")
        self._check_port(parts.port)
        name = host.removesuffix(".")
        if ":" not in name and not _NAME.fullmatch(name):
            raise EgressRefused("invalid URL")
        # WHATWG URL, "ends in a number": 127.1, 0177.0.0.1, 2130706433 are addresses to some resolvers, no domain is
        # such.
        if (":" in name or _NUMBER.fullmatch(name.rpartition(".")[2].lower())) and not self.permits(name):
            raise EgressRefused(NOT_ALLOWED)
        return parts

    def socket_factory(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for one address that is about to be dialled. Raises EgressRefused if it may not be."""
        family, kind, protocol, _, target = addr_info
        if family not in {socket.AF_INET, socket.AF_INET6} or not self.permits(str(target[0])):
            raise EgressRefused(NOT_ALLOWED)
        self._check_port(target[1])
        self._note(str(target[0]))
        return socket.socket(family, kind, protocol)

    def dialling(self) -> Dialled:
        """What the requests dial that this task makes until it asks again."""
        dialled = Dialled()
        if self._discreet:
            _dialled.set(dialled)
        return dialled

    def check_forwarded(self, response: aiohttp.ClientResponse) -> None:
        """Raises aiohttp.ClientHttpProxyError if the answer is the forward proxy's own."""
        check_forwarded(response, self._proxy)

    def _note(self, address: str) -> None:
        if self._discreet and (dialled := _dialled.get()) and _is_inside(address):
            dialled.inside = True

    def _check_port(self, port: object) -> None:
        if not port or (self._ports is not None and port not in self._ports):
            raise EgressRefused("port not allowed")

    def session(
        self, *, limit: int = 0, timeout: float = 20.0, resolver: AbstractResolver | None = None
    ) -> aiohttp.ClientSession:
        """The client for strangers' URLs; one per worker, to be closed by the caller.

        `limit` is the most connections at a time, 0 for any number; give at least as many as there are requests at a
        time, since the wait for a connection counts against the receiver's time. Environment proxies and cookies are
        ignored, bodies are not decompressed. Redirects are each request's own choice: pass `allow_redirects=False`.
        """
        guard = self._proxy.socket_factory if self._proxy else self.socket_factory
        connector = (_NotingConnector if self._discreet else aiohttp.TCPConnector)(
            limit=limit,
            keepalive_timeout=KEEPALIVE,
            socket_factory=guard,
            resolver=self._proxy.resolver(resolver) if self._proxy else resolver,
            loop=asyncio.get_running_loop(),
        )
        return aiohttp.ClientSession(
            connector=connector,
            proxy=self._proxy.url if self._proxy else None,
            timeout=timeouts(timeout),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )


class _NotingConnector(aiohttp.TCPConnector):
    """Notes where a request goes whose connection is an old one, which takes no new socket."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        if (dialled := _dialled.get()) and _is_inside(req.url.raw_host):
            dialled.inside = True  # a literal; through a proxy there is nothing else to tell by
        connection = await super().connect(req, traces, timeout)
        peer = connection.transport and not req.proxy and connection.transport.get_extra_info("peername")
        if dialled and peer and _is_inside(peer[0]):
            dialled.inside = True
        return connection


def _is_inside(host: object) -> bool:
    """Whether it is an address, and not a public one."""
    return isinstance(host, str) and reached(host) is not None and not is_public(host)


def timeouts(total: float) -> aiohttp.ClientTimeout:
    """`total` seconds from dialling to the end of the answer, of which CONNECT_TIMEOUT at most are for dialling."""
    return aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_TIMEOUT, total / 2))
