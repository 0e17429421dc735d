"""Requests to endpoints: every one, handshakes too, has the same guard, limits, certificate and redaction."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from activities.egress.capped import read_start
from activities.egress.failures import CLIENT_ERRORS, classify_error, is_before_sending, redact
from activities.egress.policy import Dialled, Egress
from activities.sending.exchanges import note_exchange
from activities.sending.redaction import Reply, http_exchange
from activities.webhook.responses import RESPONSE_BYTES
from bellwire.deliveries import Outcome
from bellwire.keys import certificates
from bellwire.targets import WebhookTarget

#: TLS contexts with a client certificate that are cached; each takes a megabyte, and 25 ms to create.
MAX_TLS_CONTEXTS = 64


class RequestFailed(Exception):
    """There was no response. `outcome` says why, as tenants may see it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """A response whose head is whole, with the start of its body."""

    status: int
    headers: Mapping[str, str]
    start: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the requests of one attempt go. `tls` may hold a client certificate, `dialled` says what they dialled."""

    url: URL
    session: aiohttp.ClientSession
    egress: Egress
    timeout: aiohttp.ClientTimeout
    tls: ssl.SSLContext | bool
    dialled: Dialled
    delivery: str

    async def request(self, method: str, headers: Mapping[str, str], body: bytes | None = None) -> EndpointResponse:
        """Make one request, and note the exchange. Raises RequestFailed. The body of a private address is left out."""
        try:
            async with self.session.request(
                method,
                self.url,
                data=body,
                headers=headers,
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                timeout=self.timeout,
                ssl=self.tls,
            ) as response:
                self.egress.check_forwarded(response)
                start = await read_start(response, RESPONSE_BYTES)
                self._note(method, headers, body, Reply(response.status, response.reason, response.headers, start))
                return EndpointResponse(response.status, response.headers, b"" if self.dialled.private else start)
        except CLIENT_ERRORS as error:
            # In a private network, no exchange would tell that nothing listens.
            if self.dialled.private or not is_before_sending(error):
                self._note(method, headers, body, None)
            # The client's error names the address, so it is not chained.
            raise RequestFailed(redact(classify_error(error), error, self.dialled, delivery=self.delivery)) from None

    def _note(self, method: str, headers: Mapping[str, str], body: bytes | None, reply: Reply | None) -> None:
        private = self.dialled.private
        note_exchange(partial(http_exchange, method, str(self.url), headers, body, reply, private=private))


class ConnectionLimit:
    """At most `limit` attempts at a time at each host and port; others wait in the order in which they came.

    The client has no limit of its own: there, waiting would count against the endpoint's timeout.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots: WeakValueDictionary[tuple[str | None, int | None], asyncio.Semaphore] = WeakValueDictionary()

    def of(self, url: URL) -> asyncio.Semaphore:
        """What an attempt holds while it has a connection."""
        key = (url.raw_host, url.port)
        if (slots := self._slots.get(key)) is None:
            self._slots[key] = slots = asyncio.Semaphore(self._limit)
        return slots


async def tls_of(target: WebhookTarget) -> ssl.SSLContext | bool:
    """TLS with the target's client certificate, if it has one. Raises ValueError if that certificate is not usable."""
    if target.client_certificate is None:
        return True
    return await asyncio.to_thread(_context, target.client_certificate.get_secret_value())


#: The connector shares a connection only among requests of one context, so two certificates never share one.
_context = lru_cache(MAX_TLS_CONTEXTS)(certificates.context)
