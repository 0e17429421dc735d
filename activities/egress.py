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
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

#: Seconds that dialling and the TLS handshake may take; less, if half of the whole request's time is less.
CONNECT_TIMEOUT = 5.0
#: Seconds that an idle connection is kept. Node.js and uvicorn close theirs after 5 s; a request that crosses such a
#: close is lost, and POST is not repeated by the client.
KEEPALIVE = 4.0
#: Bytes of an answer that are buffered before reading from the connection pauses; answers of interest are shorter.
READ_BUFFER = 8192

#: IANA IPv4 Special-Purpose Address Registry, multicast, reserved space, and Azure's WireServer among the public
#: addresses.
_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for the machine itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared address space; holds Alibaba Cloud's metadata service, 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure: WireServer, DHCP, DNS and health probes, reachable from each virtual machine
        "169.254.0.0/16",  # link local; holds the metadata services of most clouds, 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; holds broadcast
    )
)
#: The only part of IPv6 from which IANA gives out global unicast addresses. Outside it lie ::, ::1, IPv4-compatible and
#: -translated addresses, local NAT64 (64:ff9b:1::/48), discard-only (100::/64, 100:0:0:1::/64), segment routing
#: (5f00::/16), unique local (fc00::/7, where AWS has fd00:ec2::254), link local, site local and multicast.
_GLOBAL_V6 = IPv6Network("2000::/3")
#: IANA IPv6 Special-Purpose Address Registry, so far as it lies within the above.
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments; holds Teredo, which tunnels to any IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which tunnels to any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
#: The well-known NAT64 prefix. Behind it a translator reaches any IPv4 address; networks without IPv4 see all of the
#: old internet through it, so what is inside decides.
_NAT64 = IPv6Network("64:ff9b::/96")

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class EgressRefused(OSError):
    """The target may not be dialled.

    An OSError, so that the connector goes on to the next address of the name, and wraps it if there is none. `reason`
    is one of a few fixed texts without address or port: nobody learns from it what listens where.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether the address belongs to a host on the public internet. Text in any odd notation does not."""
    found = _reached(address)
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _DENIED_V4)
    if found is None or found.scope_id is not None or found not in _GLOBAL_V6:
        return False
    return not any(found in network for network in _DENIED_V6)


def _reached(address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    """Where packets end up: at the IPv4 address inside an IPv4-mapped or NAT64 one, else at the address itself."""
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return None
    if isinstance(address, IPv6Address) and address.scope_id is None:
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


class Egress:
    """The policy for targets: public addresses and those in `allow`; https, or http too; `ports`, None for any."""

    def __init__(
        self,
        *,
        allow: Sequence[IPv4Network | IPv6Network] = (),
        allow_http: bool = False,
        ports: frozenset[int] | None,
    ) -> None:
        self._allow = tuple(allow)
        self._schemes = {"https", "http"} if allow_http else {"https"}
        self._ports = ports

    def permits(self, address: str | IPv4Address | IPv6Address) -> bool:
        """Whether the address may be dialled."""
        found = _reached(address)
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
        # WHATWG URL, "ends in a number": 127.1, 0177.0.0.1, 2130706433 are addresses to some resolvers, no domain is
        # such.
        name = host.removesuffix(".")
        if (":" in name or _NUMBER.fullmatch(name.rpartition(".")[2].lower())) and not self.permits(name):
            raise EgressRefused("address not allowed")
        return parts

    def socket_factory(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for one address that is about to be dialled. Raises EgressRefused if it may not be."""
        family, kind, protocol, _, target = addr_info
        if family not in {socket.AF_INET, socket.AF_INET6} or not self.permits(str(target[0])):
            raise EgressRefused("address not allowed")
        self._check_port(target[1])
        return socket.socket(family, kind, protocol)

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
        connector = aiohttp.TCPConnector(
            limit=limit,
            keepalive_timeout=KEEPALIVE,
            socket_factory=self.socket_factory,
            resolver=resolver,
            loop=asyncio.get_running_loop(),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeouts(timeout),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )


def timeouts(total: float) -> aiohttp.ClientTimeout:
    """`total` seconds from dialling to the end of the answer, of which CONNECT_TIMEOUT at most are for dialling."""
    return aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_TIMEOUT, total / 2))
