"""The transport under twilio's client, and what its exceptions say.

The one that twilio brings ignores its timeout and drops the headers of refusals, and with them Retry-After. Here a failed
call is either `NotSent`, safe to repeat, or `AnswerLost`: Twilio may have accepted it, and it has no idempotency key that
would make repeating safe.
"""

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import urlencode

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response

from activities.sms.provider_http import AnswerLost, call, limits

_RETRY_AFTER: ContextVar[float | None] = ContextVar("twilio_retry_after", default=None)


class TwilioTransport(AsyncHttpClient):  # type: ignore[misc]  # twilio has no types
    """twilio's HTTP client over a session of ours.

    `timeout`: seconds for one call, from dialling (or waiting for a free connection) to the end of the answer.
    """

    def __init__(self, session: aiohttp.ClientSession, *, timeout: float) -> None:
        super().__init__(logging.getLogger("twilio"), True, timeout)
        self._session = session
        self._limits = limits(timeout)

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
        answer = await call(
            self._session,
            method,
            uri,
            timeout=self._limits,
            headers={**(headers or {}), **basic(auth)},
            params=params,
            data=urlencode(data, doseq=True) if data else None,
        )
        _RETRY_AFTER.set(answer.retry_after)
        if answer.status < 300 and not _is_object(answer.text):
            raise AnswerLost("unreadable answer")
        return Response(answer.status, answer.text, answer.headers)


def retry_after() -> float | None:
    """Seconds that the last answer to this asyncio task asked to wait; None if it did not say."""
    return _RETRY_AFTER.get()


def from_retry_after(error: TwilioException) -> tuple[int | None, int | None, str]:
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


def basic(auth: tuple[str, str] | None) -> dict[str, str]:
    """Basic authentication (RFC 7617) in UTF-8."""
    return {"Authorization": f"Basic {b64encode(':'.join(auth).encode()).decode()}"} if auth else {}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
