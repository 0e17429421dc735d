"""HTTP calls of providers. A failed call was either not sent, or it may have been sent.

Few providers accept the same request twice without sending twice, so the difference decides whether a call may be repeated.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDictProxy

from activities.egress.capped import read_capped
from activities.egress.causes import cause_of
from activities.egress.policy import as_given
from activities.egress.responses import ResponseConnector
from activities.egress.retry_after import retry_after
from activities.sending.exchanges import note_exchange
from activities.sending.redaction import Reply, http_exchange, without_secrets
from bellwire.formats.storable import storable_json

#: Largest response in bytes, and the largest list. A page of 200 messages that Twilio lists has about 400 kB.
MAX_RESPONSE_BYTES, MAX_LIST_BYTES = 1024 * 1024, 8 * 1024 * 1024
#: Longest id of what was sent, in characters.
MAX_ID = 200
#: Characters of a response that are recorded, before credentials are taken out of them.
_SHOWN = 16 * 1024
#: A number that is written as a text.
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
#: The share of a call's timeout for connecting. A connect timeout is known to have sent nothing.
CONNECT_SHARE = 1 / 3

#: Failures before the first byte of the request, with their reasons. After any other failure the request may have arrived.
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
    UnicodeError: "bad URL",  # a host name that IDNA cannot encode
}
#: The reasons that are followed by their cause.
_WITH_CAUSE = frozenset({"TLS failed", "connect failed"})


class NotSent(Exception):
    """Nothing was sent to the provider, so the call may be repeated."""


class ResponseLost(Exception):
    """The call may have reached the provider, but its response was lost or invalid."""


@dataclass(frozen=True, kw_only=True)
class ProviderResponse:
    """A provider's response with any status."""

    status: int
    #: Its strings are storable once they are parsed as JSON.
    text: str
    headers: CIMultiDictProxy[str]
    #: Seconds from its Retry-After header; None without one.
    retry_after: float | None
    #: The credentials of the request, which some providers repeat in their responses.
    secrets: Sequence[str] = field(default=(), repr=False)
    #: Whether it came from a private network, of which tenants must not read.
    private: bool = False

    @property
    def shown(self) -> str:
        """The text without the request's credentials, for the record of the attempt."""
        return "" if self.private else without_secrets(self.text[:_SHOWN], self.secrets)


def provider_session() -> aiohttp.ClientSession:
    """A session for calls of providers. Its connections are not limited, since waiting for one would count as connecting."""
    return aiohttp.ClientSession(connector=ResponseConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def limits(timeout: float) -> aiohttp.ClientTimeout:
    """`timeout`: seconds for one call, from connecting (or waiting for a free connection) to the end of the response."""
    # The total must be longer than connecting: a total timeout while connecting looks like a lost response.
    return aiohttp.ClientTimeout(total=timeout, connect=timeout * CONNECT_SHARE)


async def call(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    timeout: aiohttp.ClientTimeout,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    data: str | bytes | None = None,
    shown: str | None = None,
    secrets: Sequence[str] = (),
    limit: int = MAX_RESPONSE_BYTES,
) -> ProviderResponse:
    """Send one request, note the exchange, return the response. Redirects are not followed. Raises NotSent or ResponseLost.

    `shown` is noted in place of a URL that contains a secret, which is one of `secrets`. `limit`: bytes of the response.
    """
    if session.closed:
        raise NotSent("session closed")
    full_url = f"{url}?{urlencode(params)}" if params else url
    secrets = [*secrets, *_credentials(headers, params or {})]
    note = partial(http_exchange, method, shown or full_url, headers, data, known=secrets)
    try:
        target = as_given(full_url)
    except ValueError:
        raise NotSent("bad URL") from None
    try:
        async with session.request(
            method, target, data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            seconds = retry_after(response.headers.get("Retry-After"), now=time.time())
            text = await _text(response, limit)
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        failure = translate(error)
        if isinstance(failure, ResponseLost):
            note_exchange(partial(note, None))
        raise failure from error
    except ValueError:  # a header with a control character, such as that of a token
        raise NotSent("bad header") from None
    note_exchange(partial(note, Reply(response.status, response.reason, response.headers, text)))
    return ProviderResponse(
        status=response.status, text=text, headers=response.headers, retry_after=seconds, secrets=secrets
    )


def _credentials(headers: Mapping[str, str], params: Mapping[str, str]) -> list[str]:
    """The access token of a request, in a header or a parameter."""
    header = next((value for name, value in headers.items() if name.lower() == "authorization"), "")
    named = (value for name, value in params.items() if "token" in name or "secret" in name)
    return [each for each in (header.rpartition(" ")[2], *named) if each]


def translate(error: Exception) -> NotSent | ResponseLost:
    """What an exception of aiohttp means for a request: it was not sent, or it may have been sent."""
    if not isinstance(error, aiohttp.RedirectClientError):  # some are InvalidURL too, but come after a response
        for kind, reason in BEFORE_SENDING.items():
            if isinstance(error, kind):
                cause = cause_of(error) if reason in _WITH_CAUSE else None
                return NotSent(f"{reason}: {cause}" if cause else reason)
    if isinstance(error, TimeoutError):
        return ResponseLost("timeout")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return ResponseLost("connection lost")
    return ResponseLost("invalid response")


def parse_json(text: str) -> Any:
    """The document; None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object; an empty one if the text is none."""
    document = parse_json(text)
    return document if isinstance(document, dict) else {}


def number_of(value: Any) -> int | None:
    """The whole number that an answer has, written as a number or as a text; None if it is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def object_in(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object in this field; an empty one if there is none."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def provider_id_of(value: Any) -> str | None:
    """The value as a provider's id: a text or a number of limited length, else None."""
    valid = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if valid and 0 < len(str(value)) <= MAX_ID else None


async def _text(response: aiohttp.ClientResponse, limit: int) -> str:
    try:
        body = await read_capped(response, limit + 1)
    except (aiohttp.ClientError, OSError):
        if response.status < 400:
            raise
        body = b""  # a refusal is known by its status
    if len(body) > limit and response.status < 400:
        raise aiohttp.ClientPayloadError("response too large")
    return storable_json(body.decode("utf-8-sig", errors="replace"))
