"""The forward proxy: the operator's own way out, if there is one, through which every request to a stranger goes.

With it, names are resolved and addresses judged by the proxy. This process dials nothing but the proxy.
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

#: Answers to CONNECT by which a proxy says that it could not reach the receiver, or not in time.
_RECEIVER_IS_DOWN = frozenset({502, 503, 504})
#: What proxies alone may answer (RFC 9110, 15.5.8).
_AUTHENTICATION_REQUIRED = 407

UNREACHABLE, REFUSED = "egress proxy unreachable", "egress proxy refused"


class ForwardProxy:
    """The proxy at `url`, http://host:port, and the guard that lets nothing else be dialled."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)
        self._host = self.url.raw_host or ""
        #: Where the proxy is, as it was last resolved; it may be private, since the operator chose it.
        self._addresses: frozenset[str] = frozenset({self._host} if _is_address(self._host) else ())

    def resolver(self, inner: AbstractResolver | None = None) -> AbstractResolver:
        """Resolves the proxy's own name and no other."""
        return _OwnName(self._host, inner or aiohttp.ThreadedResolver(), self._found)

    def socket_factory(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket to the proxy. Raises PermissionError if the address is another's."""
        family, kind, protocol, _, target = addr_info
        if target[0] not in self._addresses or target[1] != self.url.port:
            raise PermissionError("only the egress proxy may be dialled")
        return socket.socket(family, kind, protocol)

    def _found(self, addresses: frozenset[str]) -> None:
        self._addresses = addresses


def check_forwarded(response: aiohttp.ClientResponse, proxy: ForwardProxy | None) -> None:
    """Raises ClientHttpProxyError for an answer to a plain http request that is the proxy's own.

    Only 407 is certain to be; what else a proxy may say cannot be told from the receiver's words. Through https the
    proxy does not speak, once it has let the request through.
    """
    if proxy and response.status == _AUTHENTICATION_REQUIRED and response.url.scheme == "http":
        raise aiohttp.ClientHttpProxyError(response.request_info, response.history, status=response.status)


def proxy_fault(error: BaseException) -> str | None:
    """What failed about the proxy itself, which is the operator's to mend; None if it is no failure of the proxy."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return None if error.status in _RECEIVER_IS_DOWN else REFUSED
    if isinstance(error, aiohttp.ClientProxyConnectionError) or isinstance(error.__cause__, ProxyUnknown):
        return UNREACHABLE
    return None


class ProxyUnknown(OSError):
    """The proxy's name does not resolve."""


class _OwnName(AbstractResolver):
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
