"""TwilioTransport: the HTTP transport for twilio's client, and the details of twilio's exceptions.

twilio's own transport ignores its timeout and drops the headers of refusals, including Retry-After. With this one, a failed
call raises NotSent, safe to repeat, or ResponseLost: Twilio may have accepted it, and without idempotency keys repeating is
not safe.
"""

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp
from twilio.base.deserialize import rfc2822_datetime
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response

from activities.providers.http import MAX_LIST_BYTES, ResponseLost, call, limits, parse_json

_RETRY_AFTER: ContextVar[float | None] = ContextVar("twilio_retry_after", default=None)
_DATE: ContextVar[str] = ContextVar("twilio_date", default="")
#: Of a refusal.
_STATUS: ContextVar[int | None] = ContextVar("twilio_status", default=None)

#: The field of a page that holds its messages.
_MESSAGES = "messages"
#: Twilio's codes have five digits. A longer number is no code, but perhaps a phone number.
_MAX_CODE = 999_999


class TwilioTransport(AsyncHttpClient):  # type: ignore[misc]  # twilio has no types
    """twilio's HTTP client on top of an aiohttp session.

    `timeout`: seconds for one call, from connecting (or waiting for a free connection) to the end of the response.
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
        """Twilio's response with any status. Raises NotSent or ResponseLost.

        `timeout` and `allow_redirects` are ignored: the transport has its own timeout, and redirects are never followed.
        """
        _RETRY_AFTER.set(None)
        _STATUS.set(None)
        response = await call(
            self._session,
            method,
            uri,
            timeout=self._limits,
            headers={**(headers or {}), **basic_auth(auth)},
            params=params,
            data=urlencode(data, doseq=True) if data else None,
            limit=MAX_LIST_BYTES,
        )
        _RETRY_AFTER.set(response.retry_after)
        _DATE.set(response.headers.get("Date", ""))
        _STATUS.set(response.status if response.status >= 300 else None)
        text = response.text
        if response.status < 300:
            document = parse_json(text)
            if not isinstance(document, dict):
                raise ResponseLost("invalid response")
            text = json.dumps(_readable(document))
        return Response(response.status, text, response.headers)


def retry_after() -> float | None:
    """Seconds from the Retry-After header of the last response in this asyncio task; None without one."""
    return _RETRY_AFTER.get()


def clock_difference() -> timedelta:
    """How far Twilio's clock is ahead of this machine's, by the last response in this asyncio task; 0 if it does not say."""
    try:
        return parsedate_to_datetime(_DATE.get()).astimezone(UTC) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return timedelta()


def error_details(error: TwilioException) -> tuple[int | None, int | None, str]:
    """HTTP status, Twilio's code and its message in a refusal; None for what the exception does not contain."""
    if isinstance(error, TwilioRestException):
        status, code, message = error.status, error.code, str(error.msg)
    elif isinstance(error, TwilioServiceException):
        status, code, message = (
            error.status,
            error.code,
            f"{error.title}: {error.detail}" if error.detail else error.title,
        )
    else:
        responses = [argument for argument in error.args if isinstance(argument, Response)]
        status, code, message = (
            (responses[0].status_code, None, responses[0].text) if responses else (None, None, str(error))
        )
    # If Twilio sent no code, twilio's client repeats the status as the code.
    code = code if type(code) is int and code != status and 0 < code <= _MAX_CODE else None
    # Twilio's client takes the status from the response's text if that has one, whatever it is.
    return status if type(status) is int else _STATUS.get(), code, str(message)


def basic_auth(auth: tuple[str, str] | None) -> dict[str, str]:
    """The header for basic authentication (RFC 7617) in UTF-8."""
    return {"Authorization": f"Basic {b64encode(':'.join(auth).encode()).decode()}"} if auth else {}


def _readable(document: dict[str, Any]) -> dict[str, Any]:
    """A message, or a page of messages, as texts only, without those that twilio's client cannot read.

    Twilio has accepted the SMS, whatever else the response says. An exception would hide that, and the SMS would be sent again.
    """
    texts = {name: str(value) for name, value in document.items() if _is_readable(name, value)}
    found = document.get(_MESSAGES)
    if isinstance(found, list):
        return {**texts, _MESSAGES: [_readable(each) for each in found if isinstance(each, dict)]}
    return texts


def _is_readable(name: str, value: Any) -> bool:
    if name.startswith("date_") and isinstance(value, str):
        try:
            rfc2822_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return False
        return True
    return isinstance(value, str | int | float) and not name.startswith("date_") and name != _MESSAGES
