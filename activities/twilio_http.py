"""Twilio's answers: the transport that brings them, and the one table that says what a refusal means.

The transport that twilio brings ignores its timeout and drops the headers of refusals, and with them Retry-After.
Here a failed call is either `NotSent`, safe to repeat, or `AnswerLost`: Twilio may have accepted it, and it has no
idempotency key that would make repeating safe.
"""

import json
import logging
import time
from base64 import b64encode
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response

from activities.retry_after import retry_after as seconds_of
from bellwire.deliveries import OutcomeKind

#: Most bytes of one answer; a page of 200 listed messages has about 400 kB.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
#: The part of a call's timeout that dialling may take. A timeout while dialling is known to have sent nothing.
DIALLING_SHARE = 1 / 3

#: Failures before the first byte of a request, and their words. Every other failure leaves open whether Twilio got it.
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

_RETRY_AFTER: ContextVar[float | None] = ContextVar("twilio_retry_after", default=None)


class NotSent(Exception):
    """Nothing was sent to Twilio, so the call can be repeated."""


class AnswerLost(Exception):
    """The call may have reached Twilio, and its answer did not come back."""


class TwilioTransport(AsyncHttpClient):  # type: ignore[misc]  # twilio has no types
    """twilio's HTTP client over a session of ours.

    `timeout`: seconds for one call, from dialling (or waiting for a free connection) to the end of the answer.
    """

    def __init__(self, session: aiohttp.ClientSession, *, timeout: float) -> None:
        super().__init__(logging.getLogger("twilio"), True, timeout)
        self._session = session
        # The whole must be longer than dialling: a `total` that runs out while dialling looks like a lost answer.
        self._limits = aiohttp.ClientTimeout(total=timeout, connect=timeout * DIALLING_SHARE)

    async def request(
        self,
        method: str,
        uri: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - part of twilio's interface
        allow_redirects: bool = False,  # noqa: ARG002 - part of twilio's interface
    ) -> Response:
        """Twilio's answer, whatever its status. Raises NotSent or AnswerLost.

        `timeout` and `allow_redirects` are ignored: the limits are the transport's, and redirects are never followed.
        """
        _RETRY_AFTER.set(None)
        if self._session.closed:
            raise NotSent("session closed")
        try:
            async with self._session.request(
                method,
                uri,
                params=params,
                data=urlencode(data, doseq=True) if data else None,
                headers={**(headers or {}), **_authorization(auth)},
                timeout=self._limits,
                allow_redirects=False,
            ) as answer:
                _RETRY_AFTER.set(seconds_of(answer.headers.get("Retry-After"), now=time.time()))
                text = await _text(answer)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise translate(error) from error
        if answer.status < 300 and not _is_object(text):
            raise AnswerLost("unreadable answer")
        return Response(answer.status, text, answer.headers)


def retry_after() -> float | None:
    """Seconds that the last answer to this asyncio task asked to wait; None if it did not say."""
    return _RETRY_AFTER.get()


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


@dataclass(frozen=True)
class Ruling:
    """What a refusal means."""

    kind: OutcomeKind
    #: The number is gone, or its owner said STOP.
    disable: bool = False
    #: It is for the operator to mend, so it is logged as an error.
    operator: bool = False
    #: It says something about the number, and not about the text, Twilio or us.
    number: bool = False


LATER = Ruling(OutcomeKind.DEFERRED)
NEVER = Ruling(OutcomeKind.REJECTED)
UNREACHED = Ruling(OutcomeKind.DEFERRED, number=True)
REFUSED = Ruling(OutcomeKind.REJECTED, number=True)
GONE = Ruling(OutcomeKind.REJECTED, disable=True, number=True)
OPERATOR = Ruling(OutcomeKind.DEFERRED, operator=True)
AMBIGUOUS = Ruling(OutcomeKind.UNKNOWN)

#: https://www.twilio.com/docs/api/errors. Twilio splits codes now and then: a new one is judged by its HTTP status.
BY_CODE: dict[int, Ruling] = {
    20429: LATER,  # too many requests
    20500: LATER,  # internal server error
    21611: LATER,  # the sender's queue is full
    30001: LATER,  # queue overflow
    30003: UNREACHED,  # handset unreachable
    30036: UNREACHED,  # validity period ran out
    21211: GONE,  # not a number
    21610: GONE,  # unsubscribed: STOP
    21614: GONE,  # not a mobile number
    30005: GONE,  # unknown handset
    30006: GONE,  # landline
    21602: NEVER,  # no body
    21617: NEVER,  # longer than 1,600 characters
    21619: NEVER,  # no body, media or content
    30004: REFUSED,  # blocked
    30007: REFUSED,  # filtered by the carrier
    30034: NEVER,  # number not registered with the carriers
    20003: OPERATOR,  # credentials
    20404: OPERATOR,  # no such account
    21212: OPERATOR,  # bad sender
    21408: OPERATOR,  # region not enabled
    21606: OPERATOR,  # sender cannot send SMS
    21608: OPERATOR,  # trial account, unverified number
    21659: OPERATOR,  # sender is not the account's
    30002: OPERATOR,  # account suspended
}


def ruling(status: int, code: int | None) -> Ruling:
    """What a refusal means: by its HTTP class first, then by Twilio's code. What Twilio refuses it did not accept."""
    if status == 429:
        return LATER
    if status in {502, 504} and code is None:
        return AMBIGUOUS  # a gateway's word, not Twilio's: what is behind it may have accepted the SMS
    if status >= 500:
        return LATER
    if code in BY_CODE:
        return BY_CODE[code]
    if status < 400 or status in {401, 403, 404}:
        return OPERATOR
    return LATER if status in {408, 409, 425} else NEVER


def stated(error: TwilioException) -> tuple[int | None, int | None, str]:
    """HTTP status, Twilio's code and its words in a refusal; None for what twilio's exception does not say."""
    if isinstance(error, TwilioRestException):
        status, code, words = error.status, error.code, str(error.msg)
    elif isinstance(error, TwilioServiceException):
        status, code, words = (
            error.status,
            error.code,
            f"{error.title}: {error.detail}" if error.detail else error.title,
        )
    else:
        answers = [argument for argument in error.args if isinstance(argument, Response)]
        status, code, words = (answers[0].status_code, None, answers[0].text) if answers else (None, None, str(error))
    # Without a code of Twilio's, twilio repeats the status in its place.
    code = code if isinstance(code, int) and code != status else None
    return status if isinstance(status, int) else None, code, str(words)


def _authorization(auth: tuple[str, str] | None) -> dict[str, str]:
    """Basic authentication (RFC 7617) in UTF-8."""
    return {"Authorization": f"Basic {b64encode(':'.join(auth).encode()).decode()}"} if auth else {}


async def _text(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    try:
        async for piece in answer.content.iter_chunked(65_536):
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise aiohttp.ClientPayloadError("answer too long")
    except (aiohttp.ClientError, OSError):
        if answer.status < 400:
            raise
        # A refusal is one by its status, whatever became of its body.
    return body.decode(errors="replace")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
