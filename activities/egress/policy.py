"""The egress policy: which addresses an untrusted URL may make this process dial.

Without it, a target's URL could name this machine, a private network or a cloud's metadata service (server-side request
forgery). The policy checks addresses, not names: a name resolves to one address now and to another a second later, and
address literals skip the resolver. The connector calls this module for each socket, with the address it will connect to.
"""

import re
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from activities.egress.forward_proxy import ForwardProxy, check_forwarded
from activities.egress.name_lookups import TenantResolver
from activities.egress.public_addresses import is_public, reached
from activities.egress.responses import ResponseConnector
from bellwire.formats.web_urls import with_canonical_host

#: Seconds for connecting, TLS handshake included; half of the request's timeout if that is less.
CONNECT_TIMEOUT = 5.0
#: Seconds that an idle connection is kept. Node.js and uvicorn close theirs after 5 s; a request that crosses such a
#: close is lost, and POST is not repeated by the client.
KEEPALIVE = 4.0
#: Bytes of a response that are buffered before reading from the connection pauses.
READ_BUFFER = 8192

NOT_ALLOWED = "address not allowed"

#: Host names in ASCII, as yarl returns them. No character that a resolver may cut off, unescape or split at.
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
#: What may not stand in a URL (RFC 3986); it is percent-encoded. Everything else, percent signs too, stays as it is.
_NOT_IN_URL = re.compile(rb'[^\x21-\x7e]|["<>\\^`{|}]')
#: What URL parsers remove (WHATWG URL).
_REMOVED = re.compile(r"[\t\r\n]|^[\x00-\x20]+|[\x00-\x20]+$")
_LINE_ENDS = re.compile(r"[\t\r\n]")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class EgressRefused(OSError):
    """The target may not be dialled.

    An OSError, so that the connector tries the next address of the name, and wraps this error if there is none. `reason`
    is one of a few fixed texts without address or port, so that it reveals nothing about a network.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Dialled:
    """What one request has dialled so far."""

    #: Whether it dialled a private address that the operator allows. Tenants must not read what happened there.
    private: bool = False
    #: Whether only a forward proxy knows what it dialled.
    unknown: bool = False


#: The record of the request that this task, or the task that started it, makes.
_dialled: ContextVar[Dialled | None] = ContextVar("dialled", default=None)


class Egress:
    """Allows public addresses and those in `allow`; https, and http if set; the given `ports`, or any with None.

    `proxy` (http://host:port) is a forward proxy that the operator trusts: every request goes through it, and it decides
    on names. Address literals, schemes and ports are still checked here. With `details`, tenants see why requests to the
    addresses in `allow` failed.
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
        self._details, self._redacts = details, bool(self._allow) and not details
        self._schemes = {"https", "http"} if allow_http else {"https"}
        self._ports = ports

    def permits(self, address: str | IPv4Address | IPv6Address) -> bool:
        """Whether this process may dial the address."""
        found = reached(address)
        return found is not None and (any(found in network for network in self._allow) or is_public(found))

    def checked(self, url: str) -> URL:
        """The parsed URL, with path and query as they were given: some endpoints sign or compare them character by character.

        Raises EgressRefused if the URL itself breaks the policy, whatever its name resolves to.
        """
        try:
            if not url.isascii():
                # URL() itself takes IDNA 2003 for some names, and refuses others that are valid.
                url = with_canonical_host(_LINE_ENDS.sub("", url))
            parts = URL(url)
            host = parts.raw_host
        except (ValueError, IndexError):  # yarl raises IndexError for empty brackets before an @
            raise EgressRefused("invalid URL") from None
        if not host or parts.user is not None or parts.password is not None:
            raise EgressRefused("invalid URL")
        if parts.scheme not in self._schemes:
            raise EgressRefused("scheme not allowed")
        self._check_port(parts.port)
        name = host.removesuffix(".")
        if ":" not in name and not _NAME.fullmatch(name):
            raise EgressRefused("invalid URL")
        # WHATWG URL, "ends in a number": some resolvers take 127.1, 0177.0.0.1 and 2130706433 for addresses; no domain
        # ends so.
        if (":" in name or _NUMBER.fullmatch(name.rpartition(".")[2].lower())) and not self.permits(name):
            raise EgressRefused(NOT_ALLOWED)
        return _kept_as_given(url)

    def socket_factory(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for the address that is about to be dialled. Raises EgressRefused if that is not allowed."""
        family, kind, protocol, _, target = addr_info
        if family not in {socket.AF_INET, socket.AF_INET6} or not self.permits(str(target[0])):
            raise EgressRefused(NOT_ALLOWED)
        self._check_port(target[1])
        self._record(str(target[0]))
        return socket.socket(family, kind, protocol)

    def dialling(self) -> Dialled:
        """A record of what this task's requests dial, until the next call."""
        dialled = Dialled(unknown=self._proxy is not None and not self._details)
        if self._redacts:
            _dialled.set(dialled)
        return dialled

    def check_forwarded(self, response: aiohttp.ClientResponse) -> None:
        """Raise aiohttp.ClientHttpProxyError if the response comes from the forward proxy itself."""
        check_forwarded(response, self._proxy)

    def _record(self, address: str) -> None:
        if self._redacts and (dialled := _dialled.get()) and _is_private(address):
            dialled.private = True

    def _check_port(self, port: object) -> None:
        if not port or (self._ports is not None and port not in self._ports):
            raise EgressRefused("port not allowed")

    def session(
        self, *, limit: int = 0, timeout: float = 20.0, resolver: AbstractResolver | None = None
    ) -> aiohttp.ClientSession:
        """The HTTP client for untrusted URLs: one per worker; the caller closes it.

        `limit` caps the connections at a time; 0 for no cap. Give at least as many as there are requests at a time, since
        waiting for a connection counts against the endpoint's timeout. Proxies from the environment and cookies are
        ignored; bodies are not decompressed. Each request must pass `allow_redirects=False`.
        """
        guard = self._proxy.socket_factory if self._proxy else self.socket_factory
        connector = (_RecordingConnector if self._redacts else ResponseConnector)(
            limit=limit,
            keepalive_timeout=KEEPALIVE,
            socket_factory=guard,
            resolver=self._proxy.resolver(resolver) if self._proxy else resolver or TenantResolver(),
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


class _RecordingConnector(ResponseConnector):
    """Records what requests dial that reuse a connection and so take no new socket."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        if (dialled := _dialled.get()) and _is_private(req.url.raw_host):
            dialled.private = True  # a literal; behind a proxy nothing else is known
        connection = await super().connect(req, traces, timeout)
        peer = connection.transport and not req.proxy and connection.transport.get_extra_info("peername")
        if dialled and peer and _is_private(peer[0]):
            dialled.private = True
        return connection


def as_given(url: str) -> URL:
    """The URL with its request target as it was given, and scheme, host and port as URL() reads them. Raises ValueError."""
    parts = URL(url)
    host = f"[{parts.raw_host}]" if ":" in (parts.raw_host or "") else parts.raw_host
    port = "" if parts.explicit_port is None else f":{parts.explicit_port}"
    return URL.build(scheme=parts.scheme, authority=f"{host}{port}", path=request_target(url), encoded=True)


_kept_as_given = lru_cache(1024)(as_given)


def request_target(url: str) -> str:
    """Path and query of an absolute URL, as they are sent: without the fragment, at least `/`."""
    rest = _REMOVED.sub("", url).partition("#")[0].partition("//")[2]
    start = min((at for at in map(rest.find, "/?\\") if at >= 0), default=len(rest))
    target = _NOT_IN_URL.sub(
        lambda found: b"%%%02X" % found[0][0], rest[start:].encode(errors="surrogatepass")
    ).decode()
    return target if target.startswith("/") else f"/{target}"


def _is_private(host: object) -> bool:
    """Whether it is an address, and not a public one."""
    return isinstance(host, str) and reached(host) is not None and not is_public(host)


def timeouts(total: float) -> aiohttp.ClientTimeout:
    """`total` seconds from connecting to the end of the response, of which at most CONNECT_TIMEOUT are for connecting."""
    return aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_TIMEOUT, total / 2))
