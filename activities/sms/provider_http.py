"""Calls of SMS providers over HTTP: a failed one was not sent for sure, or perhaps sent.

Few providers can be told the same thing twice without harm, so the difference decides whether a call may be repeated.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDictProxy

from activities.egress.retry_after import retry_after

#: Most bytes of one answer; a page of 200 messages that Twilio lists has about 400 kB.
MAX_RESPONSE_BYTES = 8 * 1024 * 1024
#: The part of a call's timeout that dialling may take. A timeout while dialling is known to have sent nothing.
DIALLING_SHARE = 1 / 3

#: Failures before the first byte of a request, and their words. Every other failure leaves open whether it arrived.
BEFORE_SENDING: Mapping[type[Exception], str] = {
    aiohttp.ConnectionTimeoutError: "connect timeout",
    aiohttp.ClientConnectorDNSError: "name not resolved",
    aiohttp.ClientSSLError: "TLS failed",
    aiohttp.ServerFingerprintMismatch: "TLS failed",
    aiohttp.ClientProxyConnectionError: "proxy failed",
    aiohttp.ClientHttpProxyError: "proxy failed",
    aiohttp.ClientConnectorError: "connect failed",
    aiohttp.InvalidURL: "bad URL",
    aiohttp.NonHttpUrlClientError: "bad URL",
    UnicodeError: "bad URL",  # a host name that IDNA cannot say
}


class NotSent(Exception):
    """Nothing was sent to the provider, so the call can be repeated."""


class AnswerLost(Exception):
    """The call may have reached the provider, and its answer did not come back."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a provider answered, whatever its status."""

    status: int
    text: str
    headers: CIMultiDictProxy[str]
    #: Seconds that it asked to wait; None if it did not say.
    retry_after: float | None


def provider_session() -> aiohttp.ClientSession:
    """For calls of providers. Without limit: the wait for a connection would count against the provider's time."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def limits(timeout: float) -> aiohttp.ClientTimeout:
    """`timeout`: seconds for one call, from dialling (or waiting for a free connection) to the end of the answer."""
    # The whole must be longer than dialling: a `total` that runs out while dialling looks like a lost answer.
    return aiohttp.ClientTimeout(total=timeout, connect=timeout * DIALLING_SHARE)


async def call(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    timeout: aiohttp.ClientTimeout,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    data: str | bytes | None = None,
) -> Answer:
    """The answer; redirects are never followed. Raises NotSent or AnswerLost."""
    if session.closed:
        raise NotSent("session closed")
    try:
        async with session.request(
            method, url, params=params, data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            wait = retry_after(answer.headers.get("Retry-After"), now=time.time())
            text = await _text(answer)
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise translate(error) from error
    return Answer(status=answer.status, text=text, headers=answer.headers, retry_after=wait)


def translate(error: Exception) -> NotSent | AnswerLost:
    """What an exception of aiohttp says about a request: not sent for sure, or perhaps sent."""
    if not isinstance(error, aiohttp.RedirectClientError):  # some of these are InvalidURL too, but come after an answer
        for kind, words in BEFORE_SENDING.items():
            if isinstance(error, kind):
                return NotSent(words)
    if isinstance(error, TimeoutError):
        return AnswerLost("timeout")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return AnswerLost("connection lost")
    return AnswerLost("unreadable answer")


async def _text(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    try:
        async for piece in answer.content.iter_chunked(65_536):
            body += piece
            if len(body) > MAX_RESPONSE_BYTES:
                raise aiohttp.ClientPayloadError("answer too long")
    except (aiohttp.ClientError, OSError):
        if answer.status < 400:
            raise
        # A refusal is one by its status, whatever became of its body.
    return body.decode(errors="replace")
