"""The operator's forward proxy: if one is set, every request to an untrusted address goes through it.

The proxy resolves names and decides on addresses. This process dials nothing but the proxy.
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

#: Responses to CONNECT by which a proxy says that it cannot reach the endpoint, or not in time.
_ENDPOINT_IS_DOWN = frozenset({502, 503, 504})
#: Only proxies send it (RFC 9110 §15.5.8).
_AUTHENTICATION_REQUIRED = 407

UNREACHABLE, REFUSED = "egress proxy unreachable", "egress proxy refused"


class ForwardProxy:
    """The proxy at `url` (http://host:port), and the guard that refuses to dial anything else."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)
        self._host = self.url.raw_host or ""
        #: The proxy's addresses as last resolved. They may be private, since the operator chose the proxy.
        self._addresses: frozenset[str] = frozenset({self._host} if _is_address(self._host) else ())

    def resolver(self, inner: AbstractResolver | None = None) -> AbstractResolver:
        """A resolver for the proxy's own name and no other."""
        return _ProxyResolver(self._host, inner or aiohttp.ThreadedResolver(), self._found)

    def socket_factory(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket to the proxy. Raises PermissionError for any other address."""
        family, kind, protocol, _, target = addr_info
        if target[0] not in self._addresses or target[1] != self.url.port:
            raise PermissionError("only the egress proxy may be dialled")
        return socket.socket(family, kind, protocol)

    def _found(self, addresses: frozenset[str]) -> None:
        self._addresses = addresses


def check_forwarded(response: aiohttp.ClientResponse, proxy: ForwardProxy | None) -> None:
    """Raise ClientHttpProxyError if the response to a plain http request comes from the proxy itself.

    Only 407 certainly does; other responses of a proxy look like those of the endpoint. With https the proxy cannot
    respond once the tunnel is open.
    """
    if proxy and response.status == _AUTHENTICATION_REQUIRED and response.url.scheme == "http":
        raise aiohttp.ClientHttpProxyError(response.request_info, response.history, status=response.status)


def proxy_failure(error: BaseException) -> str | None:
    """What failed about the proxy itself, which only the operator can fix; None if the proxy did not fail."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return None if error.status in _ENDPOINT_IS_DOWN else REFUSED
    if isinstance(error, aiohttp.ClientProxyConnectionError) or isinstance(error.__cause__, ProxyUnknown):
        return UNREACHABLE
    return None


class ProxyUnknown(OSError):
    """The proxy's name does not resolve."""


class _ProxyResolver(AbstractResolver):
    def __init__(self, name: str, inner: AbstractResolver, found: Callable[[frozenset[str]], None]) -> None:
        self._name, self._inner, self._tell = name, inner, found

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != self._name:
            raise PermissionError("only the egress proxy's name may be resolved")
        try:
            results = await self._inner.resolve(host, port, family)
        except OSError as error:
            raise ProxyUnknown(str(error)) from error
        self._tell(frozenset(result["host"] for result in results))
        return results

    async def close(self) -> None:
        await self._inner.close()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
